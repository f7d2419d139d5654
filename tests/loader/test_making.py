"""How often times are taken of what a loader makes."""

from streampipe.counters import OfLoader
from streampipe.loader import making
from streampipe.loader.making import READER, TimedItems, made_for
from streampipe.observe import Stack


def timed(seconds_of_items, monkeypatch, looks=10):
    """Which of the items are timed, where a look costs 1 us and may take 1 % of the time."""
    monkeypatch.setattr(making, "_cost_of_a_look", lambda: 1e-6)
    clock = Stack()
    duty, found = TimedItems(clock, 0.01), []
    for number, seconds in enumerate(seconds_of_items):
        duty.begin()
        if clock.on:
            found.append(number)
            clock.looks = looks
        duty.end(seconds)
    return found


def test_long_items_are_all_timed_but_the_first(monkeypatch):
    assert timed([0.1] * 5, monkeypatch) == [1, 2, 3, 4]


def test_short_items_are_timed_as_often_as_it_costs_little(monkeypatch):
    assert timed([1e-4] * 40, monkeypatch) == [1, 11, 21, 31]


def test_an_item_that_was_held_up_is_no_room_for_more_looks(monkeypatch):
    """On a busy machine the processor is taken away now and then: the others take as long as before."""
    items = [1e-4] * 40
    items[11] = 0.5
    assert timed(items, monkeypatch) == [1, 11, 21, 31]


def test_the_busy_time_is_that_of_all_items_but_the_first():
    counts = OfLoader()
    assert list(made_for(counts, iter("abcde"))) == list("abcde")
    assert (counts.get(READER, "samples in"), counts.get(READER, "samples out")) == (4, 5)
