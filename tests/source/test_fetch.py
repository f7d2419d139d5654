"""The law of resuming: whatever breaks, wherever, the bytes that come are those of the object, and all of them."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.source.failures import Ended
from streampipe.source.fetch import Fetch, attempt
from streampipe.source.store import Answer, Pin
from streampipe.source.stores import OpenerStore
from streampipe.testing import BrokenOpener, Chunked, Cut, FaultServer, IgnoreRange, NoLength, Reset, Status
from tests.source.conftest import DATA, bounded

SIZE = 300_000
OBJECT = DATA[:SIZE]
EAGER = Network(tries=3, first_wait=0, longest_wait=0.01, stall=5, window=40_000, memory=200_000)
SMALL = Network(tries=3, first_wait=0, longest_wait=0.01, stall=5, window=1_000, memory=4_000)


@pytest.fixture(scope="module")
def shared():
    with FaultServer({"a.tar": OBJECT}) as server:
        yield server


offsets = st.integers(0, SIZE)


@settings(max_examples=60, deadline=None)
@given(
    breaks=st.lists(offsets, max_size=8),
    sized=st.booleans(),
    error=st.sampled_from([ConnectionResetError, OSError, TimeoutError, IndexError, RuntimeError]),
    network=st.sampled_from([EAGER, SMALL]),
)
def test_an_opener_that_breaks_gives_the_original(breaks, sized, error, network):
    opener = BrokenOpener({"x://a": OBJECT}, sorted(breaks), error=error, sized=sized)
    source = Source(opener=opener, network=Network(**{**vars(network), "tries": 9}))
    assert bounded(lambda: b"".join(source.chunks("x://a"))) == OBJECT


faults = st.one_of(
    st.none(),
    st.builds(Reset, st.integers(0, 50_000)),
    st.builds(Cut, st.integers(0, 50_000)),
    st.sampled_from([Status(503), Status(429, {"Retry-After": "0"}), Status(500, body=b"x" * 100_000)]),
)


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(faults, max_size=12),
    whole=st.sampled_from([None, IgnoreRange(), Chunked(), NoLength()]),
    network=st.sampled_from([EAGER, SMALL]),
    size=st.sampled_from([0, 1, 999, 1_000, 1_001, 40_000, 262_144, SIZE]) | offsets,
)
def test_a_server_that_breaks_gives_the_original(shared, script, whole, network, size):
    """With and without ranges and lengths."""
    shared.put("a.tar", OBJECT[:size])
    shared.script("a.tar", *script, always=whole)
    source = Source(network=Network(**{**vars(network), "tries": 14}))
    assert bounded(lambda: b"".join(source.chunks(shared.url("a.tar")))) == OBJECT[:size]


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(faults, max_size=6),
    whole=st.sampled_from([None, None, IgnoreRange(), Chunked()]),
    at=st.tuples(offsets, offsets).map(sorted),
)
def test_any_range_is_exactly_that_range(shared, script, whole, at):
    start, end = at
    shared.put("a.tar", OBJECT)
    shared.script("a.tar", *script, always=whole)
    source = Source(network=Network(**{**vars(EAGER), "tries": 8}))
    if start == end:
        return
    assert bounded(source.read, shared.url("a.tar"), start, end) == OBJECT[start:end]


def test_a_range_beyond_the_end_is_an_error(shared):
    shared.put("a.tar", OBJECT)
    shared.script("a.tar")
    with pytest.raises(sp.SourceError, match="10 of 20 bytes came from byte 299990 on; it is shorter than its index"):
        Source(network=EAGER).read(shared.url("a.tar"), SIZE - 10, SIZE + 10)
    with pytest.raises(sp.SourceError, match="HTTP 416"):
        Source(network=EAGER).read(shared.url("a.tar"), SIZE + 10, SIZE + 20)


class Stubborn:
    """A store whose answers come whole or not at all, and only when they are small."""

    ranges, streams, worked = True, False, False

    def __init__(self, most):
        self.most, self.asked, self.renewed = most, [], 0

    def credentials(self, url):
        return "with a stub"

    def renew(self):
        self.renewed += 1

    def pin(self, url):
        return Pin(SIZE, "1")

    def get(self, url, start, end, pin):
        self.asked.append(end - start)
        if end - start > self.most:
            raise ConnectionResetError("too much at once")
        return Answer(start, Pin(SIZE, "1"), iter([OBJECT[start:end]]))


def test_a_store_that_cannot_carry_a_window_is_asked_for_less():
    store = Stubborn(70_000)
    assert b"".join(Fetch(store, "x://a", Network(tries=4, first_wait=0), 0, SIZE)) == OBJECT
    assert store.asked[:4] == [SIZE, SIZE // 2, SIZE // 4, 65_536]
    assert len(store.asked) < 12
    with pytest.raises(sp.SourceUnavailable):
        list(Fetch(Stubborn(10), "x://a", EAGER, 0, SIZE))


class Refusing(Stubborn):
    """It gives so many answers, then refuses until it is renewed."""

    def get(self, url, start, end, pin):
        if len(self.asked) >= self.most and not self.renewed:
            raise PermissionError("expired")
        self.asked.append(start)
        return Answer(start, Pin(SIZE, "1"), iter([OBJECT[start : start + 1000]]))

    def pin(self, url):
        if not self.renewed:
            raise PermissionError("expired")
        return Pin(SIZE, "1")


def test_credentials_are_renewed_once_and_only_where_they_were_good_before():
    store = Refusing(3)
    assert b"".join(Fetch(store, "x://a", EAGER, 0, 6000)) == OBJECT[:6000]
    assert store.renewed == 1
    store = Refusing(0)
    with pytest.raises(sp.AccessDenied, match="asked for with a stub"):
        list(Fetch(store, "x://a", EAGER, 0, 6000))
    with pytest.raises(sp.AccessDenied):
        attempt(store, "x://a", EAGER)
    assert store.renewed == 0
    store.worked = True
    assert attempt(store, "x://a", EAGER) == Pin(SIZE, "1")


def test_a_fetch_that_was_given_up_is_an_error_not_an_end():
    stop = threading.Event()
    pieces = iter(Fetch(OpenerStore(BrokenOpener({"x": OBJECT * 10})), "x", EAGER, stop=stop))
    next(pieces)
    stop.set()
    with pytest.raises(sp.SourceError, match="given up at byte 1048576"):
        next(pieces)


def test_an_answer_that_brings_nothing_is_no_end():
    class Empty(Stubborn):
        def get(self, url, start, end, pin):
            return Answer(start, Pin(SIZE, "1"), iter(()))

    with pytest.raises(sp.TruncatedShard, match="ends at byte 0") as error:
        list(Fetch(Empty(0), "x://a", EAGER, 0, SIZE))
    assert isinstance(error.value.__cause__, Ended)
