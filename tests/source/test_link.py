"""How many bytes a link wants on their way follows from its rate and latency."""

import threading

import pytest

from streampipe.source import Network, traffic
from streampipe.source.link import Link
from streampipe.source.traffic import Traffic


def test_a_link_needs_its_rate_times_its_latency():
    now = [100.0]
    link = Link(lambda: now[0])
    assert link.needs == 0
    link.answered(0.2)
    link.answered(0.05)
    link.answered(0.4)  # a busy link's own doing
    for _ in range(10):
        now[0] += 0.1
        link.came(10_000_000)
    assert link.needs == 4 * 100_000_000 * 0.05
    now[0] += 100
    link.came(1)  # a reader that paused is no slower link
    assert link.needs == 4 * 100_000_000 * 0.05


def test_the_first_bytes_already_say_something_of_a_rate_and_idle_time_says_nothing():
    now = [100.0]
    link = Link(lambda: now[0])
    now[0] = 105.0  # nothing was asked for until here
    link.answered(0.05)
    link.came(1_000_000)
    assert link.rate == pytest.approx(1_000_000 / 0.05)
    now[0] += 0.05
    link.came(3_000_000)
    assert link.rate == pytest.approx(4_000_000 / 0.1)
    now[0] += 60
    link.came(1)
    assert link.rate == pytest.approx(4_000_000 / 0.1)


def test_what_is_read_ahead_is_what_the_link_needs_and_never_more_than_the_budget():
    traffic = Traffic(Network(window=1 << 20, memory=64 << 20))
    assert all(traffic.take_ahead(1 << 20, False, 0) for _ in range(5))  # one is used, four are on their way
    assert not traffic.take_ahead(1 << 20, False, 0)
    assert traffic.take_ahead(1 << 20, True, 0)
    traffic.link._latency, traffic.link.rate = 0.1, 40e6
    assert traffic.take_ahead(1 << 20, False, 0)
    traffic.link.rate = 1e12
    assert sum(traffic.take_ahead(1 << 20, False, 0) for _ in range(100)) == 64 - 7


def test_what_a_shuffle_holds_is_not_on_its_way():
    traffic = Traffic(Network(window=1 << 20, memory=64 << 20))
    traffic.hold(56 << 20)
    assert sum(traffic.take_ahead(1 << 20, False, 0) for _ in range(10)) == 5  # as above
    traffic.link._latency, traffic.link.rate = 0.1, 1e12
    assert sum(traffic.take_ahead(1 << 20, False, 0) for _ in range(10)) == 3  # no more than there is memory for


def test_a_small_object_says_what_the_latency_is_and_nothing_of_the_rate():
    now = [100.0]
    link = Link(lambda: now[0])

    def index():
        now[0] += 0.2
        yield b"some"
        now[0] += 5
        yield b"more"

    assert b"".join(link.heard(index())) == b"somemore"
    assert link.latency == pytest.approx(0.2)
    assert link.rate == link.total == 0


def test_more_requests_than_usual_are_on_their_way_where_answers_come_late_for_what_they_bring():
    traffic = Traffic(Network())
    assert traffic._most == 32
    traffic.link._latency, traffic.link.rate = 0.001, 700e6
    assert traffic._most == 32
    traffic.link._latency, traffic.link.rate = 0.2, 40e6
    assert traffic._most == Network().requests == 64
    assert Traffic(Network(requests=4))._most == 4


def test_a_stream_that_the_garbage_collector_ends_inside_the_account_gives_its_bytes_back(monkeypatch):
    account = Traffic(Network())
    account.hold(10)

    class Collecting:
        @staticmethod
        def add(*_):
            account.hold(-10)  # what the end of an abandoned stream does, in whichever thread collects it

    monkeypatch.setattr(traffic, "counters", Collecting)
    thread = threading.Thread(target=account.take, args=(100,), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert account._taken == 100
