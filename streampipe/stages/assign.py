"""``assign``: the same fields for every sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.errors import ConfigError
from streampipe.stages.stage import stage
from streampipe.traits import Fields


def _check(fields: Any) -> None:
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        raise ConfigError(f"assign: fields are values by name, not {fields!r:.80}")
    for name in fields:
        if not name or name.startswith("__"):
            raise ConfigError(f"assign: {name!r} is metadata, which samples bring along; give the field another name")


def _fields(options: Mapping[str, Any]) -> Fields:
    return Fields(())


@stage(rows="each", state="nothing", views=True, check=_check, fields=_fields)
def assign(samples: Iterable[dict[str, Any]], fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each sample with these fields, in place of its own of the same names: a ``loss_weight``, the name of a dataset.

    Values are not copied: every sample holds the same object. ``batch`` makes a tensor of numbers, and stacks tensors.

    >>> list(assign(fields={"loss_weight": 0.5})([{"__key__": "a"}, {"__key__": "b", "loss_weight": 2}]))
    [{'__key__': 'a', 'loss_weight': 0.5}, {'__key__': 'b', 'loss_weight': 0.5}]
    """
    fields = dict(fields)
    for sample in samples:
        yield {**sample, **fields}
