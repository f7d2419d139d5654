"""What the tests of the source share: a server that breaks, and settings that do not wait long."""

import random
import threading
import time

import pytest

from streampipe.source import Network, Source
from streampipe.testing import FaultServer

DATA = random.Random(0).randbytes(700_001)
"""More than one window of ``QUICK``, and no round number."""

QUICK = Network(
    tries=4, stall=0.5, connect=5.0, first_wait=0.0, longest_wait=0.2, window=128 << 10, memory=1 << 20, requests=8
)


@pytest.fixture
def server():
    with FaultServer({"a.tar": DATA, "b.tar": DATA[::-1], "empty.tar": b""}) as server:
        yield server


@pytest.fixture
def source():
    return Source(network=QUICK)


def whole(source, url, then=()):
    """All bytes of an object, by way of windows ahead of need."""
    return b"".join(source.chunks(url, then))


def bounded(function, *arguments, seconds=30.0):
    """The result of a call, or its error; a call that hangs is a failure, not a wait without end."""
    result = []

    def run():
        try:
            result.append((function(*arguments), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert result, f"it hangs: nothing came in {seconds} s"
    if result[0][1] is not None:
        raise result[0][1]
    return result[0][0]


def until(condition, seconds=20.0):
    """Wait for something that other threads or processes do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
