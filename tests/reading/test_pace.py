"""How long a consumer waits, and how many requests that costs, on links in simulated time."""

import pytest

from streampipe.source import Network
from tests.reading.simulated import World, consume

MB = 1e6


@pytest.mark.parametrize("latency", [0.02, 0.05])
@pytest.mark.parametrize("ahead", [0, 4])
def test_who_needs_less_than_the_link_has_hardly_waits(monkeypatch, latency, ahead):
    """What comes before its turn is bought from what the link has to spare, and from what lies ready."""
    found = consume(monkeypatch, World(latency, 40 * MB), 0.8, ahead=ahead)
    assert found.share(0, 10) < 0.1
    assert found.share(10) < 0.01
    assert found.requests < 0.44 * found.samples


@pytest.mark.parametrize("rate", [40 * MB, 20 * MB])
def test_where_a_link_has_much_latency_more_requests_are_on_their_way_and_nobody_waits_for_long(monkeypatch, rate):
    found = consume(monkeypatch, World(0.2, rate), 0.8, ahead=4, samples=5_000)
    assert found.share(0, 10) < 0.12
    assert found.share(10) < 0.01
    assert found.requests < 0.6 * found.samples


def test_who_only_makes_good_what_he_missed_is_not_starved_by_long_requests(monkeypatch):
    """He waits for all of the first ten seconds, as one does who takes all he can get, but needs less."""
    world = World(0.2, 20 * MB, Network(requests=32))
    assert consume(monkeypatch, world, 0.8, ahead=4).share(10) < 0.01


@pytest.mark.parametrize(("latency", "samples"), [(0.001, 4_000), (0.02, 6_000), (0.1, 10_000)])
def test_shuffled_reading_is_nearly_as_fast_as_reading_in_order(monkeypatch, latency, samples):
    def seconds(shuffle):
        return consume(monkeypatch, World(latency, 700 * MB), None, samples=samples, shuffle=shuffle).taken[-1]

    assert seconds(False) > 0.8 * seconds(True)


@pytest.mark.parametrize(("latency", "least"), [(0.001, 0.95), (0.02, 0.8)])
def test_who_takes_all_he_can_get_has_the_whole_link(monkeypatch, latency, least):
    found = consume(monkeypatch, World(latency, 700 * MB), None, samples=6_000)
    assert 6_000 * 0.1 / 700 / found.taken[-1] > least
    assert found.requests < 0.14 * found.samples


def test_small_samples_come_together(monkeypatch):
    found = consume(monkeypatch, World(0.02, 40 * MB), None, samples=3000, sample=5_000)
    assert found.requests < 0.14 * found.samples


def test_who_waits_all_the_time_gets_long_requests_after_a_while(monkeypatch):
    early = consume(monkeypatch, World(0.02, 40 * MB), None, samples=4_000)
    late = consume(monkeypatch, World(0.02, 40 * MB), None, samples=9_000)
    assert (late.requests - early.requests) / 5_000 < 0.6 * early.requests / 4_000


def test_a_pass_that_the_link_brings_at_once_costs_hardly_more_requests_than_its_first_batch(monkeypatch):
    found = consume(monkeypatch, World(0.002, 300 * MB), None, samples=307)
    assert found.requests < 40
