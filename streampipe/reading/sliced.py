"""A sample as slices of a shard, before it is a dict: a batch of them is made column by column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from streampipe.context import Position, Sample
from streampipe.errors import SampleError, ShardError


class Sliced(NamedTuple):
    """A plain sample: its fields are bytes, or views of what was read."""

    key: str
    url: str
    position: Position
    names: Sequence[str]
    fields: list[Any]


Found = Sliced | Sample | ShardError | SampleError


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


class OfStep(Iterator[Sample | ShardError | SampleError]):
    """The samples of a step, or the error of each that failed; they are read when they are asked for."""

    def __init__(self, found: Iterator[Found], number: int) -> None:
        self._found: Iterator[Found] = islice(found, number)
        self._number = number

    def __next__(self) -> Sample | ShardError | SampleError:
        found = next(self._found)
        return found if isinstance(found, (ShardError, SampleError)) else as_sample(found)

    def columns(self) -> Sample | None:
        """All of them by field, as lists, or None: one is missing or odd, or they differ in their fields. Then each of
        them is still to be had.
        """
        rows = list(self._found)
        names = rows[0].names if rows and type(rows[0]) is Sliced else None
        if names is None or any(type(each) is not Sliced or each.names != names for each in rows):
            self._found = chain(rows, self._found)
            return None
        keys, urls, positions, _, fields = zip(*rows, strict=True)
        found: Sample = {"__key__": list(keys), "__url__": list(urls), "__position__": list(positions)}
        found.update(zip(names, map(list, zip(*fields, strict=True)), strict=True))
        return found
