"""Shards made by worker processes: each tells the parent what it read and counted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from streampipe.cluster import Cluster
from streampipe.counters import Counted, counters
from streampipe.processes import Tell, ordered
from streampipe.write.work import Work


class _Maker:
    """Makes shards in a worker process, and hands over what it counted."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._process = 0

    def __call__(self, number: int, tell: Tell) -> Counted:
        if self._process != os.getpid():  # this worker's first shard
            self._process = os.getpid()
            torch.set_num_threads(1)
            counters.take()  # what a forked worker was born with is the parent's
        self._work.make(number, tell)
        return counters.take()


def in_workers(work: Work, numbers: Sequence[int], workers: int, context: Any, tell: Tell) -> None:
    """Make the shards of these numbers in ``workers`` processes, or on a cluster where ``context`` is one. Ends when
    all have ended, or at the first error.

    Raises:
        PackError: a process died.
        ConfigError: the pipeline cannot be handed to a spawned process.
    """
    maker = _Maker(work)
    made: Iterator[Counted]
    if isinstance(context, Cluster):
        made = context.ordered(maker, numbers, tell)
    else:
        made = ordered(maker, numbers, workers, tell=tell, context=context)
    for counted in made:
        counters.merge(counted)
