"""Tries are counted by what they bring, and the pauses between them are random, growing and bounded."""

import socket
import threading
import time

import pytest

import streampipe as sp
from streampipe.source.failures import Ended, HttpError
from streampipe.source.retry import Tries


class Pauses(threading.Event):
    """An event that nobody sets; it notes how long it was waited for, and does not wait."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        return False


def failing(network, error, times):
    stop = Pauses()
    tries = Tries("https://host/a.tar", network, stop)
    for _ in range(times):
        tries.again(error, 7)
    return stop.waits


def test_pauses_are_drawn_from_a_range_that_doubles_up_to_the_longest():
    network = sp.Network(tries=11, first_wait=1, longest_wait=20)
    drawn = [failing(network, OSError("x"), 10) for _ in range(300)]
    for k in range(10):
        mine = [waits[k] for waits in drawn]
        most = min(20, 2**k)
        assert 0 <= min(mine) < 0.1 * most  # full jitter: from nothing
        assert 0.9 * most < max(mine) <= most


def test_retry_after_raises_a_pause_and_is_capped():
    network = sp.Network(tries=5, first_wait=0, longest_wait=20)
    assert failing(network, HttpError(503, "", {"Retry-After": "7"}), 2) == [7, 7]
    assert failing(network, HttpError(503, "", {"Retry-After": "300"}), 1) == [300]
    assert failing(network, HttpError(503, "", {"Retry-After": "100000"}), 1) == [600]
    assert failing(sp.Network(patience=5, longest_wait=2), HttpError(503, "", {"Retry-After": "60"}), 1) == [5]


def test_pauses_that_a_store_asks_for_are_kept_within_the_patience(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = Pauses()
    tries = Tries("https://host/a.tar", sp.Network(first_wait=0, longest_wait=2), stop)
    for seconds in (590, 8, 2):
        tries.again(HttpError(503, "", {"Retry-After": "590"}), 7)
        now[0] += seconds
    assert stop.waits == [590, 10, 2]
    with pytest.raises(sp.SourceUnavailable):
        tries.again(HttpError(503, "", {"Retry-After": "590"}), 7)


@pytest.mark.parametrize("asked", ["\xb2", "-5", "Fri, 31 Dec 9999 23:59:59 -0000", "soon"])
def test_a_pause_that_is_none_is_no_pause(asked):
    error = HttpError(503, "", {"Retry-After": asked})
    assert failing(sp.Network(first_wait=0, patience=0.5, longest_wait=0.5), error, 1)[0] in (0, 0.5)


def test_the_hubs_rate_limit_says_how_long_to_wait():
    network = sp.Network(first_wait=0)
    assert failing(network, HttpError(429, "", {"Ratelimit": '"resolvers";r=0;t=40'}), 1) == [40]
    assert failing(network, HttpError(429, "", {"Ratelimit": '"api";r=0;t=7', "Retry-After": "9"}), 1) == [9]
    assert failing(network, HttpError(200, "", {"Ratelimit": '"api";r=5;t=40'}), 1) == [0]
    assert failing(network, HttpError(429, "", {"Ratelimit": "nonsense; fit=3"}), 1) == [0]


def test_patience_is_a_time_not_a_number_of_tries(monkeypatch, caplog):
    """An outage of minutes is survived, and said once; when the time is over it is an error."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tries = Tries("https://host/a.tar", sp.Network(patience=300), Pauses())
    for _ in range(299):
        now[0] += 1
        tries.again(OSError("refused"), 7)
    assert [record.getMessage() for record in caplog.records if "is tried again until 300 s" in record.getMessage()]
    assert len(caplog.records) == 1
    tries.progress()
    now[0] += 299
    tries.again(OSError("refused"), 7)
    now[0] += 2
    tries.again(OSError("refused"), 7)  # the time began with the first failure
    now[0] += 300
    with pytest.raises(sp.SourceUnavailable, match=r"3 tries at byte 7 brought nothing, in 30\d\.\d s"):
        tries.again(OSError("refused"), 7)


def test_a_store_that_never_gave_anything_is_not_waited_for_long(monkeypatch):
    now, worked = [0.0], [False]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for patience, wanted in ((600, 30), (5, 5)):
        tries = Tries("https://host/a.tar", sp.Network(patience=patience), Pauses(), worked=lambda: worked[0])
        tries.again(OSError("refused"), 0)
        now[0] += wanted - 0.5
        tries.again(OSError("refused"), 0)
        now[0] += 1
        with pytest.raises(sp.SourceUnavailable):
            tries.again(OSError("refused"), 0)
    tries = Tries("https://host/a.tar", sp.Network(patience=600), Pauses(), worked=lambda: worked[0])
    tries.again(OSError("refused"), 0)
    worked[0] = True  # another thread was given something
    now[0] += 100
    tries.again(OSError("refused"), 0)


def test_what_no_time_will_change_is_given_up_after_eight_tries():
    for error in (Ended("5 of 9 bytes came"), socket.gaierror(socket.EAI_NONAME, "Name or service not known")):
        tries = Tries("https://host/a.tar", sp.Network(first_wait=0), Pauses())
        for _ in range(7):
            tries.again(error, 0)
        with pytest.raises(sp.StreampipeError, match="8 tries"):
            tries.again(error, 0)


def test_the_last_try_says_how_many_there_were_where_and_for_how_long():
    tries = Tries("https://host/a.tar?sig=hidden", sp.Network(tries=3), Pauses())
    tries.again(OSError("reset"), 7)
    tries.again(OSError("reset"), 7)
    with pytest.raises(
        sp.SourceUnavailable, match=r"host/a\.tar could.*reset.*3 tries at byte 7 .* in 0\.\d s"
    ) as error:
        tries.again(OSError("reset"), 7)
    assert "hidden" not in str(error.value)


def test_progress_begins_the_count_anew():
    tries = Tries("https://host/a.tar", sp.Network(tries=3), Pauses())
    for _ in range(5):
        tries.again(OSError("reset"), 7)
        tries.again(OSError("reset"), 7)
        tries.progress()
    tries.again(OSError("reset"), 7)


def test_ends_in_good_order_alone_are_a_truncated_shard():
    tries = Tries("https://host/a.tar", sp.Network(tries=2), Pauses())
    tries.again(Ended("5 of 9 bytes came"), 5)
    with pytest.raises(sp.TruncatedShard, match=r"ends at byte 5, in 2 tries"):
        tries.again(Ended("0 of 4 bytes came"), 5)
    tries = Tries("https://host/a.tar", sp.Network(tries=2), Pauses())
    tries.again(OSError("reset"), 5)
    with pytest.raises(sp.SourceUnavailable):
        tries.again(Ended("0 of 4 bytes came"), 5)


def test_what_is_final_costs_no_pause():
    stop = Pauses()
    with pytest.raises(sp.ShardMissing):
        Tries("https://host/a.tar", sp.Network(), stop).again(HttpError(404, ""), 0)
    assert stop.waits == []


def test_a_pause_ends_when_reading_is_given_up():
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    start = time.monotonic()
    with pytest.raises(sp.SourceError, match="reset"):
        Tries("https://host/a.tar", sp.Network(), stop).again(HttpError(503, "reset", {"Retry-After": "60"}), 0)
    assert time.monotonic() - start < 30
