"""A remote file read in pieces: what is asked for ahead is of no use to who is not wanted any more."""

import threading

import pytest

from streampipe.reading.pieces import Pieces
from streampipe.source import Network
from streampipe.source.store import Pin
from streampipe.source.traffic import Traffic
from streampipe.source.versions import Version
from streampipe.unwanted import Unwanted, asking, is_unwanted
from tests.source.conftest import bounded


class Away:
    """A source whose store is away from the second request on, until ``back`` is set."""

    cache = None

    def __init__(self):
        self.traffic = Traffic(Network())
        self.gone, self.back = threading.Event(), threading.Event()
        self.asked = []

    def read(self, url, start, end, version):
        self.asked.append(is_unwanted())
        if len(self.asked) > 1:
            self.gone.set()
            self.back.wait()
        return bytes(end - start)


def test_who_is_not_wanted_any_more_does_not_wait_for_what_was_asked_for_ahead():
    source, over = Away(), threading.Event()
    pieces = Pieces(source, Version("http://x/a.parquet", Pin(1000)), 100, [(0, 1000)])

    def read():
        with asking(over.is_set):
            assert pieces.between(0, 50) == bytes(50)
            source.gone.wait()
            over.set()
            with pytest.raises(Unwanted):
                pieces.between(100, 150)

    try:
        bounded(read)
    finally:
        source.back.set()
    assert [each() for each in source.asked] == [True, True]  # and the thread that fetches can see that too
