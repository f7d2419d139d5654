"""Samples as slices of a shard, before they are dicts: a batch of them is made column by column.

What lies together in a shard and is alike is a ``Run``, which has columns already; any other sample is a ``Sliced``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, NamedTuple

from streampipe.context import Position, Sample
from streampipe.errors import SampleError, ShardError


class Sliced(NamedTuple):
    """A plain sample: its fields are bytes, or views of what was read."""

    key: str
    url: str
    position: Position
    names: Sequence[str]
    fields: Sequence[Any]


@dataclass(slots=True)
class Run:
    """Plain samples with the same fields: what a ``Sliced`` has of one, of each; ``fields`` are columns."""

    keys: list[str]
    urls: list[str]
    positions: list[Position]
    names: Sequence[str]
    fields: list[list[Any]]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Sample]:
        names = ("__key__", "__url__", "__position__", *self.names)
        values = zip(self.keys, self.urls, self.positions, *self.fields, strict=True)
        return map(dict, map(zip, repeat(names), values))

    def __getitem__(self, which: slice) -> Run:
        fields = [each[which] for each in self.fields]
        return Run(self.keys[which], self.urls[which], self.positions[which], self.names, fields)


_NONE = Run([], [], [], (), [])

Found = Sliced | Sample | ShardError | SampleError
Part = Run | Sequence[Found]
"""One sample or several, in their order."""


def as_sample(found: Sliced | Sample) -> Sample:
    """The dict that stages are given.

    >>> as_sample(Sliced("000017", "00000.tar", Position(0, 0, 17), ("jpg", "txt"), [b"\\xff\\xd8", b"a cat"]))["txt"]
    b'a cat'
    """
    if type(found) is not Sliced:
        assert isinstance(found, dict)
        return found
    key, url, position, names, fields = found
    sample: Sample = {"__key__": key, "__url__": url, "__position__": position}
    sample.update(zip(names, fields, strict=True))
    return sample


class Parts:
    """Samples as they were found together, for one step after the other."""

    def __init__(self, parts: Iterator[Part]) -> None:
        self._parts = parts
        self._rest: Part | None = None  # of what was found together, for the next step

    def take(self, number: int) -> Iterator[Part]:
        """The next so many samples."""
        while number:
            part = next(self._parts) if self._rest is None else self._rest
            part, self._rest = (part[:number], part[number:]) if len(part) > number else (part, None)
            number -= len(part)
            yield part


class OfStep(Iterator[Sample | ShardError | SampleError]):
    """The samples of a step, or the error of each that failed; they are read when they are asked for."""

    def __init__(self, parts: Parts, number: int) -> None:
        self._parts = parts.take(number)
        self._found: Iterator[Found] = chain.from_iterable(self._parts)

    def __next__(self) -> Sample | ShardError | SampleError:
        found = next(self._found)
        return found if isinstance(found, (ShardError, SampleError)) else as_sample(found)

    def columns(self) -> Sample | None:
        """All of them by field, as lists, or None: one is missing or odd, or they differ in their fields. Then each of
        them is still to be had.
        """
        parts = list(self._parts)
        runs = _runs(parts)
        if runs is None:
            self._found = chain.from_iterable(parts)
            return None
        whole = runs[0] if len(runs) == 1 else _joined(runs)
        found: Sample = {"__key__": whole.keys, "__url__": whole.urls, "__position__": whole.positions}
        found.update(zip(whole.names, whole.fields, strict=True))
        return found


def _runs(parts: Sequence[Part]) -> list[Run] | None:
    """The parts as runs, or None: not all samples are plain, with the same fields."""
    found: list[Run] = []
    alone: list[Found] = []  # samples behind each other that are in no run
    for part in (*parts, _NONE):
        if not isinstance(part, Run):
            alone += part
            continue
        if alone:
            run = _run_of(alone)
            if run is None:
                return None
            found.append(run)
            alone = []
        found.append(part)
    del found[-1]
    same = found and all(tuple(run.names) == tuple(found[0].names) for run in found)
    return found if same else None


def _run_of(samples: Sequence[Any]) -> Run | None:
    """Samples that were found alone as a run, if they are plain and have the same fields."""
    names = samples[0].names if type(samples[0]) is Sliced else None
    if names is None or any(type(each) is not Sliced or each.names != names for each in samples):
        return None
    keys, urls, positions, _, fields = zip(*samples, strict=True)
    return Run(list(keys), list(urls), list(positions), names, list(map(list, zip(*fields, strict=True))))


def _joined(runs: Sequence[Run]) -> Run:
    """Runs with the same fields as one."""
    every = chain.from_iterable
    columns = [list(every(each)) for each in zip(*(run.fields for run in runs), strict=True)]
    keys, urls = list(every(run.keys for run in runs)), list(every(run.urls for run in runs))
    return Run(keys, urls, list(every(run.positions for run in runs)), runs[0].names, columns)
