"""A schedule says a share for each part at every step; what makes none is refused."""

import pickle
from fractions import Fraction

import pytest

from streampipe import ConfigError, Schedule


def shares(schedule, *steps):
    return [[str(each) for each in schedule.at(step)] for step in steps]


def test_weights_stay_as_they_are_until_the_next_point():
    schedule = Schedule({0: [3, 1], 10: [1, 1], 20: [0, 0.5]})
    assert shares(schedule, 0, 9, 10, 19, 20, 10**12) == [["3/4", "1/4"]] * 2 + [["1/2", "1/2"]] * 2 + [["0", "1"]] * 2


def test_shares_go_linearly_and_stay_behind_the_last_point():
    schedule = Schedule({0: [3, 1], 10: [0, 7]}, linear=True)
    assert shares(schedule, 0, 5, 10, 11) == [["3/4", "1/4"], ["3/8", "5/8"], ["0", "1"], ["0", "1"]]


def test_a_part_is_there_from_its_first_step_up_to_its_last():
    schedule = Schedule([2, 1, 1], start={1: 5}, end={0: 20})
    assert shares(schedule, 4, 5, 19, 20) == [
        ["2/3", "0", "1/3"],
        ["1/2", "1/4", "1/4"],
        ["1/2", "1/4", "1/4"],
        ["0", "1/2", "1/2"],
    ]
    rising = Schedule({0: [1, 0], 10: [0, 1]}, linear=True, start={1: 5})
    assert shares(rising, 4, 5, 6) == [["1", "0"], ["1/2", "1/2"], ["2/5", "3/5"]]


def test_a_schedule_is_a_value():
    schedule = Schedule({0: [3, 1], 10: [1, 1]})
    assert schedule == Schedule({10: [2, 2], 0: [6, 2]}) == pickle.loads(pickle.dumps(schedule))
    assert schedule != Schedule({0: [3, 1], 11: [1, 1]})
    assert schedule.digest != Schedule({0: [3, 1], 10: [1, 1]}, linear=True).digest
    assert Schedule([0.1, 0.2]).at(0) == (Fraction(1, 3), Fraction(2, 3))
    with pytest.raises(AttributeError, match="frozen"):
        schedule.parts = 3


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        ({10: [1, 1]}, {}, "begins at step 10: say the weights at step 0"),
        ({}, {}, "say the weights at step 0"),
        ({0: [1, 1], 5: [1]}, {}, "has 1 and 2 weights at its points"),
        ({0: [0, 0]}, {}, "the weights at step 0 are a list of numbers, 0 or more and not all 0"),
        ({0: [1, -1]}, {}, "0 or more"),
        ({0: [1, float("nan")]}, {}, "0 or more"),
        ({0: [1, float("inf")]}, {}, "0 or more"),
        ({0: 3}, {}, "a list of numbers"),
        ({-1: [1]}, {}, "a point's step is a whole number, 0 or more, not -1"),
        ({0.5: [1]}, {}, "a whole number"),
        ("3:1", {}, "takes weights by step"),
        ([1, 1], {"start": {2: 5}}, r"start=\{2: 5\} is no step of one of its 2 parts"),
        ([1, 1], {"end": [3]}, "end is a step by a part's number"),
        ([1, 1], {"start": {0: 5, 1: 5}}, "no part has a weight from step 0 to 4"),
        ([1, 1], {"end": {0: 5, 1: 8}}, "no part has a weight from step 8 on"),
    ],
)
def test_what_is_no_schedule_is_refused(points, options, words):
    with pytest.raises(ConfigError, match=words):
        Schedule(points, **options)
