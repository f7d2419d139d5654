"""Samples of unequal lengths to one pack: sequences one behind the other, and where each of them is.

The forms are those that attention kernels take: ``cu_seqlens`` (int32, one more than samples) and ``max_seqlen`` for
flash-attention's varlen functions and torch's nested tensors, ``segment_ids`` for a mask of flex_attention, and
``position_ids``, which begin at 0 in every sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from streampipe.context import Sample
from streampipe.errors import StageError
from streampipe.memory import empty
from streampipe.stages.collate import as_tensor, numbers, of_lists
from streampipe.stages.fields import written


def join(samples: Sequence[Sample], concat: Sequence[str] = (), total: int | None = None) -> dict[str, Any]:
    """One dict of the samples of a pack.

    Args:
        samples: dicts; a field that some of them lack is None there, and of no length where it is joined.
        concat: fields that are joined along their first dimension: tensors, arrays or lists of numbers. The first says
            ``cu_seqlens`` (int32, samples + 1), ``max_seqlen`` (an int), ``position_ids`` (int64, from 0 in each
            sample) and ``segment_ids`` (int32, the number of the sample in the pack). Another one of equal lengths
            shares them, one of others has its own: ``text.cu_seqlens`` and so on.
        total: rows that joined fields are filled up to with zeros, so that all packs have one shape; there
            ``segment_ids`` are -1, and no sequence of ``cu_seqlens`` is. None: as many as there are.

    Returns:
        The joined fields and what says where each sample is; every other field as a tensor of numbers, or else a list.

    Raises:
        StageError: a field of ``concat`` is in no sample, is no tensor, or has rows of unequal shape or dtype; or its
            rows are more than ``total``.

    >>> pack = join([{"t": torch.tensor([5, 6])}, {"t": torch.tensor([7])}], ["t"])
    >>> pack["t"].tolist(), pack["cu_seqlens"].tolist(), pack["position_ids"].tolist(), pack["segment_ids"].tolist()
    ([5, 6, 7], [0, 2, 3], [0, 1, 0], [0, 0, 1])
    """
    names = list(dict.fromkeys(name for sample in samples for name in sample))
    made: dict[str, Any] = {}
    first: list[int] | None = None
    for name in concat:
        rows = _rows(name, samples)
        lengths = [len(each) for each in rows]
        made[name] = _joined(name, rows, samples, total)
        if first is None or lengths != first:
            made |= _places("" if first is None else f"{name}.", lengths, len(made[name]))
        first = first or lengths
    for name in names:
        if name not in made:
            made[name] = _column(name, [sample.get(name) for sample in samples])
    return made


def _column(name: str, values: list[Any]) -> Any:
    """The values of a field that is not joined: numbers as a tensor, anything else as a list."""
    plain = not name.startswith("__") and all(isinstance(each, (bool, int, float, np.generic)) for each in values)
    found = numbers(values) if plain else None
    return values if found is None else found


def _rows(name: str, samples: Sequence[Sample]) -> list[torch.Tensor]:
    """A field of each sample as a tensor; one of no rows where a sample lacks it."""
    found: list[torch.Tensor | None] = []
    for sample, given in zip(samples, of_lists([sample.get(name) for sample in samples]), strict=True):
        value = as_tensor(given)
        if value is not None and not (isinstance(value, torch.Tensor) and value.dim()):
            raise StageError(
                f"pack(concat={name!r}): sample {sample.get('__key__')!r} has a {type(value).__name__}, and tensors, "
                f"arrays or lists of numbers with a first dimension are joined: make one in map(...)"
            )
        found.append(value)
    like = next((each for each in found if each is not None), None)
    if like is None:
        there = ", ".join(dict.fromkeys(each for sample in samples for each in sample))
        advice = f"default({written(name, 'torch.empty(0, 768)')})"
        raise StageError(
            f"pack(concat={name!r}): no sample of the pack has that field; there are {there}; where a whole pack may "
            f"lack it, say in front of pack what no rows of it are, as in {advice}"
        )
    return [like[:0] if each is None else each for each in found]


def _joined(name: str, rows: Sequence[torch.Tensor], samples: Sequence[Sample], total: int | None) -> torch.Tensor:
    """The rows one behind the other, in memory that a worker hands over without a copy."""
    like, lead = next(((each, s) for each, s in zip(rows, samples, strict=True) if len(each)), (rows[0], samples[0]))
    for each, sample in zip(rows, samples, strict=True):
        if len(each) and (each.shape[1:] != like.shape[1:] or each.dtype != like.dtype):
            raise StageError(
                f"pack(concat={name!r}): rows are {like.dtype} of shape {tuple(like.shape[1:])} in sample "
                f"{lead.get('__key__')!r} and {each.dtype} of {tuple(each.shape[1:])} in {sample.get('__key__')!r}: "
                f"bring them to one shape and dtype in map(...)"
            )
    length = sum(map(len, rows))
    if total is not None and length > total:
        raise StageError(
            f"pack(fixed=True): field {name!r} has {length} rows in a pack of a budget of {total}, so cost= says less "
            f"than samples have: make cost the number of their rows"
        )
    out = empty((length if total is None else total, *like.shape[1:]), like.dtype)
    at = 0
    for each in rows:
        out[at : at + len(each)] = each
        at += len(each)
    out[at:] = 0
    return out


def _places(prefix: str, lengths: Sequence[int], total: int) -> dict[str, Any]:
    """Where the rows of each sample are."""
    sizes = np.array(lengths, np.int64)  # torch's repeat_interleave starts threads for it
    ends = np.cumsum(sizes)
    rows = int(ends[-1]) if len(ends) else 0
    segments, positions = np.full(total, -1, np.int32), np.zeros(total, np.int64)
    segments[:rows] = np.repeat(np.arange(len(sizes)), sizes)
    positions[:rows] = np.arange(rows) - np.repeat(ends - sizes, sizes)
    return {
        f"{prefix}cu_seqlens": torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
        f"{prefix}max_seqlen": max(lengths, default=0),
        f"{prefix}position_ids": torch.from_numpy(positions),
        f"{prefix}segment_ids": torch.from_numpy(segments),
    }
