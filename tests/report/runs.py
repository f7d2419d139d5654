"""Runs of loaders over small shards, of which a part is made slow on purpose."""

from __future__ import annotations

import itertools
import time

import streampipe as sp


def sleepy(value):
    time.sleep(0.01)
    return value


def rarely_slow(value):
    time.sleep(0.2 if int(value[-4:]) % 20 == 3 else 0.001)
    return value


def computing(value):
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass
    return value


@sp.stage
def own(samples):
    for sample in samples:
        time.sleep(0.01)
        yield sample


def pipe(folder, **options):
    return sp.stream(folder if isinstance(folder, list) else str(folder), shuffle=True, epochs=None, **options)


def run(pipe, batches, step=0.0, **options):
    """A loader that gave so many batches; the consumer sleeps so long at each."""
    loader = pipe.loader(**options)
    for _ in itertools.islice(loader, batches):
        if step:
            time.sleep(step)
    loader._close()  # what is made ahead of an endless pass ends here
    return loader
