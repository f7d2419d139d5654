"""``select``: keep some fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run
from streampipe.errors import StageError
from streampipe.stages.fields import find, metadata_of
from streampipe.stages.stage import stage
from streampipe.stages.values import check_flag, check_names
from streampipe.traits import Fields


def _check(fields: Any, metadata: Any) -> None:
    check_names("select", "fields", fields)
    check_flag("select", "metadata", metadata)


def _fields(options: Mapping[str, Any]) -> Fields:
    return Fields(tuple(options["fields"]), only=True)


@stage(rows="each", state="nothing", views=True, check=_check, fields=_fields)
def select(
    samples: Iterable[dict[str, Any]], fields: tuple[str, ...], *, metadata: bool = True, run: Run = FILLED_IN
) -> Iterator[dict[str, Any]]:
    """The named fields of each sample, and its metadata. ``"jpg;png;webp"`` is the first of these that is there.

    Args:
        fields: the fields to keep.
        metadata: whether ``__key__``, ``__url__`` and ``__position__`` stay. Without them, and without texts, a batch
            has tensors alone, as some trainers want it. Errors then name no sample, and stages behind that make random
            choices refuse to, so it goes last, in front of ``batch`` or behind it.

    Raises:
        StageError: a sample has none of the alternatives.

    >>> list(select(fields=("jpg;png",))([{"__key__": "a", "png": 1, "txt": 2}]))
    [{'__key__': 'a', 'png': 1}]
    """
    for sample in samples:
        try:
            chosen = [field if field in sample else find(sample, field, run.stage) for field in fields]
        except StageError as error:
            run.policy.failed(error, run.stage)
            continue
        run.policy.passed(run.stage)
        kept = metadata_of(sample) if metadata else {}
        for name in chosen:
            kept[name] = sample[name]
        yield kept
