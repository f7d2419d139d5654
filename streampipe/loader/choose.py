"""How many threads and workers: a rule for this machine and pipeline, or a short trial of a few, remembered.

What decides is where stages spend their time. Codecs release Python's lock, so threads of one process share them, and
nothing is handed over; Python code of the user's needs processes, as long as there is such a lock. The rule looks at
the stages, the trial at the clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from streampipe.atomic import write_atomic
from streampipe.engine.chain import describe
from streampipe.engine.compile import compile
from streampipe.gil import has_gil
from streampipe.index.memory import memory
from streampipe.loader.feed import Crew
from streampipe.loader.reports import facts_of
from streampipe.report import Facts
from streampipe.spec import Job, Spec

_SECONDS = 1.5
"""Of a trial, from its first batch on."""
_FEWEST = 4
"""Batches of a trial."""
_BETTER = 1.05
"""How many times faster a choice must be than the rule's, which is made where they are about the same."""


class Setting(NamedTuple):
    """Worker processes, and threads in each or, without any, in this process."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"num_workers={self.workers}, threads={self.threads}"


class Tried(NamedTuple):
    """A setting, and the samples a second that came."""

    setting: Setting
    rate: float


@dataclass(frozen=True)
class Choice:
    """What was chosen, from what."""

    setting: Setting
    tried: Sequence[Tried] = ()
    remembered: bool = False

    def __str__(self) -> str:
        """As a line of ``explain()``."""
        if not self.tried:
            return f"{self.setting}, by the rule for this machine"
        rates = "; ".join(f"{each.setting}: {each.rate:,.0f} samples/s" for each in self.tried)
        return f"{self.setting}, by a trial{' that was remembered' if self.remembered else ''} ({rates})"


def rule(facts: Facts) -> Setting:
    """The setting for stages and cores, without trying.

    Stages with threads that run codecs: a thread for each core. A user's code: without a GIL the same, else a worker
    for each core, where there are more than two. Else one background thread, so that reading goes on while a step runs.

    >>> from streampipe.report import StageFacts
    >>> rule(Facts((StageFacts("decode", can_thread=True),), cores=8))
    Setting(workers=0, threads=8)
    >>> rule(Facts((), cores=8))
    Setting(workers=0, threads=1)
    """
    if any(stage.can_thread and not stage.python for stage in facts.stages):
        return Setting(0, facts.cores)
    if any(stage.python or stage.foreign for stage in facts.stages) and facts.cores > 2:
        return Setting(facts.cores, 0) if has_gil() else Setting(0, facts.cores)
    return Setting(0, 1)


def candidates(facts: Facts) -> list[Setting]:
    """The settings that a trial tries: the rule's first, then threads alone, workers alone, and both.

    >>> [str(each) for each in candidates(Facts((), cores=4))]
    ['num_workers=0, threads=1', 'num_workers=0, threads=4', 'num_workers=4, threads=0', 'num_workers=2, threads=2']
    """
    cores = facts.cores
    every = [rule(facts), Setting(0, cores), Setting(cores, 0)]
    every += [Setting(cores // 2, 2)] if cores >= 4 else []
    return list(dict.fromkeys(every))


def choose(spec: Spec, measure: Callable[[Setting], float], world_size: int = 1) -> Choice:
    """The fastest setting, by a trial, or what an earlier trial of this pipeline on this machine has found."""
    facts = facts_of(compile(spec, Job(world_size)), Crew(0, 0, 0), 2)
    place = _place(spec, facts, world_size)
    known = _remembered(place)
    if known is not None:
        return known
    tried = [Tried(each, round(measure(each), 2)) for each in candidates(facts)]
    best = max(tried, key=lambda each: each.rate)
    if best.rate < _BETTER * tried[0].rate:
        best = tried[0]
    _remember(place, best.setting, tried)
    return Choice(best.setting, tuple(tried))


def rate_of(batches: Any, number_of: Callable[[Any], int], seconds: float | None = None) -> float:
    """Samples a second that come from an iterator, without the first batch: with it workers and threads start."""
    for _ in islice(batches, 1):
        pass
    samples, taken, start = 0, 0, monotonic()
    for batch in batches:
        samples, taken = samples + number_of(batch), taken + 1
        if taken >= _FEWEST and monotonic() - start >= (_SECONDS if seconds is None else seconds):
            break
    return samples / max(monotonic() - start, 1e-9)


def _place(spec: Spec, facts: Facts, world_size: int) -> Path:
    """The file in which the choice is remembered: of this pipeline, machine, and number of ranks; and without a GIL."""
    of = [describe(spec.source, spec.chain), platform.node(), facts.cores, world_size]
    text = json.dumps(of if has_gil() else [*of, "no GIL"])
    return Path(memory()).parent / "choices" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _remembered(place: Path) -> Choice | None:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        tried = tuple(Tried(Setting(int(w), int(t)), float(rate)) for w, t, rate in found["tried"])
        workers, threads = found["setting"]
        return Choice(Setting(int(workers), int(threads)), tried, remembered=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(place: Path, setting: Setting, tried: Sequence[Tried]) -> None:
    found = {"setting": list(setting), "tried": [[*each.setting, each.rate] for each in tried]}
    try:
        os.makedirs(place.parent, exist_ok=True)
        write_atomic(place, json.dumps(found).encode(), sync=False)
    except OSError:  # it is tried again next time
        return
