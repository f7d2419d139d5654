"""``rename``: give fields other names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, where
from streampipe.decoding.several import place_of
from streampipe.errors import ConfigError, StageError
from streampipe.plan.compound import renamed
from streampipe.stages.fields import find
from streampipe.stages.stage import stage
from streampipe.traits import Fields


def _check(names: Any) -> None:
    pairs = list(names.items()) if isinstance(names, Mapping) else [(None, None)]
    if not all(isinstance(each, str) and each for pair in pairs for each in pair):
        raise ConfigError(f"rename: names are new names with the old ones, as in image='jpg;png', not {names!r:.80}")


def _fields(options: Mapping[str, Any]) -> Fields:
    return Fields((*options["names"], *options["names"].values()))


@stage(rows="each", state="nothing", views=True, check=_check, fields=_fields)
def rename(
    samples: Iterable[dict[str, Any]], names: Mapping[str, str], *, run: Run = FILLED_IN
) -> Iterator[dict[str, Any]]:
    """Each sample with fields renamed: ``{"image": "jpg;png;webp"}`` calls the first of these that is there ``image``.

    Other fields stay as they are. So samples that hold different formats get one name that later stages can use.

    Raises:
        StageError: a sample has none of the alternatives, or has another field with the new name; or two new names are
            for one field.

    >>> list(rename(names={"image": "jpg;png"})([{"__key__": "a", "png": 1, "txt": 2}]))
    [{'__key__': 'a', 'image': 1, 'txt': 2}]
    """
    for sample in samples:
        try:
            new: dict[str, str] = {}
            for name, old in names.items():
                found = find(sample, old, run.stage)
                if new.setdefault(found, name) != name:
                    raise StageError(
                        f"stage {run.stage!r}, {where(sample)}: field {found!r} cannot be both {new[found]!r} and "
                        f"{name!r}; a field has one name, so copy it in map(...)"
                    )
            for name in new.values():
                if name in sample and name not in new:
                    raise StageError(
                        f"stage {run.stage!r}, {where(sample)}: it already has a field {name!r}; select fields first"
                    )
        except StageError as error:
            run.policy.failed(error, run.stage)
            continue
        run.policy.passed(run.stage)
        made = {new.get(name, name): value for name, value in sample.items()}
        yield renamed(made, {place_of(old): place_of(name) for old, name in new.items()})
