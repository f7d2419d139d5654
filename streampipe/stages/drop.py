"""``drop``: all fields but some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, key_of
from streampipe.counters import counters
from streampipe.errors import ConfigError, StageError
from streampipe.stages.fields import find
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.stages.values import MISSING, check_choice, check_names
from streampipe.traits import Fields


def _check(fields: Any, missing: Any) -> None:
    check_names("drop", "fields", fields)
    check_choice("drop", "missing", missing, MISSING)
    for name in fields:
        if any(each.startswith("__") for each in name.split(";")):
            raise ConfigError(f"drop: {name!r} is metadata, which every sample keeps")


def _fields(options: Mapping[str, Any]) -> Fields:
    return Fields(tuple(options["fields"]))


@stage(rows="each", state="nothing", views=True, check=_check, fields=_fields)
def drop(
    samples: Iterable[dict[str, Any]], fields: tuple[str, ...], *, missing: str = "error", run: Run = FILLED_IN
) -> Iterator[dict[str, Any]]:
    """Each sample without the named fields. ``"jpg;png;webp"`` is the first of these that is there.

    Args:
        fields: the fields to remove.
        missing: where a sample has none of the alternatives: ``"error"``, ``"keep"`` it, or ``"drop"`` it, counted.

    Raises:
        StageError: a sample has none of the alternatives.

    >>> list(drop(fields=("txt",))([{"__key__": "a", "png": 1, "txt": 2}]))
    [{'__key__': 'a', 'png': 1}]
    """
    drops = Drops(run, f", because none has {', '.join(map(repr, fields))}; name what they have")
    for sample in samples:
        try:
            gone = {find(sample, field, run.stage) for field in fields}
        except StageError as error:
            if missing == "error":
                run.policy.failed(error, run.stage)
                continue
            what = f"fields missing (sample {'dropped' if missing == 'drop' else 'kept'})"
            counters.add(run.stage, what, example=key_of(sample))
            if missing == "drop":
                drops.drop()
                continue
            gone = _there(sample, fields)
        run.policy.passed(run.stage)
        drops.keep()
        yield {name: value for name, value in sample.items() if name not in gone}
    drops.end()


def _there(sample: dict[str, Any], fields: tuple[str, ...]) -> set[str]:
    """The first alternative of each field that the sample has one of."""
    found = (next((name for name in field.split(";") if name in sample), None) for field in fields)
    return {name for name in found if name is not None}
