"""Mixtures whose shares change: what deciding a batch costs, and how far shares are from what they should be.

10^9 samples in global batches of 1,024, four parts, weights that go linearly. Beside it: parts that are drawn by chance
from the same weights, as trainers do with a global generator.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streampipe.plan.course import Course, Rates, begin
from streampipe.plan.mixed import Shares
from streampipe.plan.schedule import Schedule

BATCH = 1024
STEPS = 10**9 // BATCH
RAMPS = Schedule({0: [5, 3, 1, 1], 100_000: [1, 1, 1, 1], 900_000: [0, 1, 2, 7]}, linear=True)


def course_of(schedule: Schedule, size: int = BATCH) -> Course:
    """The course of a mixture of samples; of batches with ``size=1``."""
    return begin(Rates([[(schedule, k)] for k in range(schedule.parts)]), size)


def cpu(what: Callable[[int], Any], steps: Sequence[int]) -> float:
    """Milliseconds of CPU time a step."""
    start = time.process_time()
    for step in steps:
        what(step)
    return (time.process_time() - start) / len(steps) * 1000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="steps that are timed")
    count = parser.parse_args().count
    rng = np.random.default_rng(0)
    anywhere = rng.integers(0, STEPS, count).tolist()
    along = range(STEPS // 2, STEPS // 2 + count)
    fixed, shares = course_of(Schedule([5, 3, 1, 1])), Shares([5, 3, 1, 1])
    costs = {
        "constant weights, a list": lambda step: shares.owner(np.arange(step * BATCH, (step + 1) * BATCH)),
        "a schedule, constant": fixed.owner,
        "a schedule, going linearly": course_of(RAMPS).owner,
        "the same, of whole batches": course_of(RAMPS, 1).owner,
    }
    for name, what in costs.items():
        print(f"{name:30} {cpu(what, anywhere):.3f} ms at any step, {cpu(what, along):.3f} ms at the next")
    course, worst, chance = course_of(RAMPS), 0.0, 0.0
    for step in sorted(anywhere):
        due = np.array(course.leg(step).due_before(step), float)
        worst = max(worst, float(np.abs(np.array(course.had_before(step)) - due).max()))
    had, due = np.zeros(4), np.zeros(4)
    for step in range(0, STEPS, STEPS // 2000):  # 2,000 steps, drawn by chance
        share = np.array(RAMPS.at(step), float)
        had, due = had + rng.multinomial(BATCH, share), due + BATCH * share
        chance = max(chance, float(np.abs(had - due).max()))
    print(f"farthest from its share, at {count} steps of {STEPS:,}: {worst:.2f} samples")
    print(f"the same drawn by chance, within 2,000 steps: {chance:,.0f} samples")


if __name__ == "__main__":
    main()
