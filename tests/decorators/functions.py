"""Decorated functions and stages at module level: what must be picklable by name."""

import streampipe as sp


def plain(value):
    """Doubles."""
    return value * 2


@sp.timed
def timed_only(value):
    """Doubles."""
    return value * 2


@sp.timed
@sp.retry(tries=2, first_wait=0)
@sp.on_error("skip")
def stacked(value):
    """Doubles."""
    return value * 2


@sp.on_error("skip")
@sp.timed(name="grow")
@sp.stage
def grow(samples, by: int = 1):
    """Adds."""
    for sample in samples:
        yield sample + by


@sp.stage
@sp.logged
def inner(samples, by: int = 1):
    for sample in samples:
        yield sample + by


@sp.stage
def bare(samples, by: int = 1):
    for sample in samples:
        yield sample + by
