"""Objects come in windows ahead of need: several in flight, within a budget, across the borders of shards."""

import threading
import time

import pytest

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.source.forward import LEAST, Forward, not_small
from streampipe.source.store import Pin
from streampipe.source.traffic import Traffic
from streampipe.source.web import web
from streampipe.testing import FaultServer, IgnoreRange, Stall, Status
from tests.source.conftest import DATA, QUICK, bounded, until, whole

BIG = DATA * 12  # 8.4 MB
WINDOWS = Network(stall=20, tries=2, first_wait=0, window=256 << 10, memory=2 << 20, requests=8)


@pytest.fixture
def big():
    with FaultServer({f"{i}.tar": BIG[i:] for i in range(6)}) as server:
        yield server


def test_several_windows_are_in_flight_within_the_budget(big):
    big.latency = 0.05
    most = 0

    class Watched(Traffic):
        def take(self, size, needed=False):
            nonlocal most
            taken = super().take(size, needed)
            most = max(most, self._taken)
            return taken

    traffic = Watched(WINDOWS)
    forward = Forward(web({}, WINDOWS), big.url("0.tar"), WINDOWS, traffic)
    assert b"".join(forward) == BIG
    assert big.live > 2  # connections
    assert 1 << 20 < most <= (2 << 20) + (256 << 10)  # passed by one window at most
    assert traffic._taken == 0
    assert max(end - start for start, end in (each.range for each in big.requests)) == 256 << 10


def test_the_first_window_is_small_and_asked_for_before_those_of_later_shards(big):
    source = Source(network=Network(stall=20, window=8 << 20, requests=1))  # one after the other, as they were asked
    chunks = source.chunks(big.url("0.tar"), [big.url("1.tar"), big.url("2.tar")])
    assert len(next(chunks)) == 256 << 10
    assert big.requests[0].name == "0.tar"
    chunks.close()
    source.close()


def test_the_next_shards_are_begun_before_they_are_wanted_and_asked_for_once(big):
    source = Source(network=WINDOWS)
    urls = [big.url(f"{i}.tar") for i in range(5)]
    for number, url in enumerate(urls):
        assert whole(source, url, urls[number + 1 :]) == BIG[number:]
        if number == 0:
            assert {request.name for request in big.requests} == {f"{i}.tar" for i in range(4)}  # three ahead
    for number in range(5):
        starts = [request.range[0] for request in big.requests if request.name == f"{number}.tar"]
        assert len(starts) == len(set(starts)), "a window was asked for twice"
    source.close()
    assert source._live.traffic._taken == 0


def test_the_link_does_not_wait_at_the_border_of_a_shard(big):
    """Once all of a shard is asked for, windows of the next one are, though nobody has asked for its bytes yet."""
    source = Source(network=Network(stall=20, window=1 << 20, memory=64 << 20))
    assert whole(source, big.url("0.tar"), [big.url("1.tar")]) == BIG
    until(lambda: len([each for each in big.requests if each.name == "1.tar"]) > 3)
    assert whole(source, big.url("1.tar")) == BIG[1:]


def test_a_shard_that_comes_next_twice_or_in_a_circle_does_no_harm(big):
    source = Source(network=WINDOWS)
    a, b, c = (big.url(f"{i}.tar") for i in range(3))
    assert bounded(whole, source, a, [b, b, a]) == BIG
    assert bounded(whole, source, b, [c, b, c]) == BIG[1:]
    assert bounded(whole, source, c, [b, a]) == BIG[2:]
    source.close()


def test_threads_that_read_the_same_shards_each_get_all_of_them(big):
    """The workers of a thread loader share a source."""
    source = Source(network=WINDOWS)
    urls = [big.url(f"{i}.tar") for i in range(4)]
    orders = [urls, urls[::-1], urls[1:] + urls[:1], urls]
    wrong = []

    def read(order):
        for _ in range(2):
            for number, url in enumerate(order):
                if whole(source, url, order[number + 1 :]) != BIG[int(url[-5]) :]:
                    wrong.append(url)
            source.close()

    threads = [threading.Thread(target=bounded, args=(read, order)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert source._live.traffic._taken == 0


def test_closing_gives_the_budget_back_and_ends_what_waits(server):
    traffic = Traffic(QUICK)
    server.script("a.tar", always=Stall(100))
    forward = Forward(web({}, Network(stall=60)), server.url("a.tar"), QUICK, traffic)
    forward.start()
    start = time.monotonic()
    forward.close()
    assert traffic._taken == 0
    with pytest.raises(sp.SourceError, match="closed while it was read"):
        list(forward)
    assert time.monotonic() - start < 30


def test_an_error_ends_the_stream_where_it_belongs(server):
    """What came before it is given out; nothing of what came behind it."""
    server.script("a.tar", None, None, always=Status(404))
    got = []
    with pytest.raises(sp.ShardMissing):
        for chunk in Source(network=Network(window=100_000)).chunks(server.url("a.tar")):
            got.append(chunk)
    assert DATA.startswith(b"".join(got))
    assert len(b"".join(got)) >= 100_000


@pytest.mark.parametrize("begin", [0, 1, 128 << 10, 500_000, len(DATA) - 1, len(DATA)])
@pytest.mark.parametrize("ranges", [True, False])
def test_it_can_begin_anywhere(server, begin, ranges):
    server.script("a.tar", always=None if ranges else IgnoreRange())
    store = web({}, QUICK)
    forward = Forward(store, server.url("a.tar"), QUICK, Traffic(QUICK), store.pin(server.url("a.tar")), begin)
    assert b"".join(forward) == DATA[begin:]


def test_it_can_begin_anywhere_without_a_size(server):
    forward = Forward(web({}, QUICK), server.url("a.tar"), QUICK, Traffic(QUICK), Pin(), 1000)
    assert b"".join(forward) == DATA[1000:]


def test_a_reader_that_stops_early_leaves_nothing(big):
    source = Source(network=WINDOWS)
    for _ in range(5):
        chunks = source.chunks(big.url("0.tar"), [big.url("1.tar")])
        next(chunks)
        chunks.close()
        source.close()
    assert source._live.traffic._taken == 0
    assert source._live.coming == {}


def test_a_window_is_given_out_in_pieces_of_itself(big):
    """Joined, it would be in memory twice, and pages that are touched for the first time cost more than receiving."""
    source = Source(network=Network(stall=20, window=4 << 20))
    chunks = list(source.chunks(big.url("0.tar")))
    assert b"".join(chunks) == BIG
    assert max(map(len, chunks)) <= 512 << 10
    assert len(chunks) < 2 * len(BIG) // LEAST
    assert len({id(chunk.obj.base) for chunk in chunks[1:]}) < len(chunks) - 1


@pytest.mark.parametrize("sizes", [[], [1], [10, 0, 3], [1, 2, 100, 64, 3, 200, 1]])
def test_small_pieces_are_joined_and_large_ones_are_not(sizes):
    pieces = [bytes([i]) * size for i, size in enumerate(sizes)]
    chunks = list(not_small(pieces, least=64))
    assert b"".join(chunks) == b"".join(pieces)
    assert all(len(chunk) >= 64 for chunk in chunks[:-1])
    assert all(len(chunk) < 64 + max(sizes) for chunk in chunks)
