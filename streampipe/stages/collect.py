"""``collect``: several images of one sample in one field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, Sample, key_of, where
from streampipe.counters import counters
from streampipe.decoding.several import Images, numbered, place_of
from streampipe.errors import ConfigError, StageError, StreampipeError
from streampipe.plan.compound import renamed
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.stages.values import MISSING, check_choice, check_names, check_number
from streampipe.values import Fields


def _check(fields: Any, listed: Any, least: Any, missing: Any) -> None:
    check_names("collect", "fields", fields)
    check_number("collect", "least", least, 0)
    check_choice("collect", "missing", missing, MISSING)
    if not isinstance(listed, Mapping) or not all(isinstance(x, str) and x for pair in listed.items() for x in pair):
        raise ConfigError(
            f"collect: listed is where the json lists a field's members, as in {{'ref': 'json.refs'}}, "
            f"not {listed!r:.80}"
        )
    if not fields and not listed:
        raise ConfigError("collect: name the fields, as in collect('ref') for ref.0.jpg, ref.1.jpg")


@stage(rows="each", state="nothing", takes="samples", check=_check)
def collect(
    samples: Iterable[Sample],
    fields: tuple[str, ...] = (),
    *,
    listed: Mapping[str, str] = {},
    least: int = 1,
    missing: str = "error",
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """Several images of a sample as one field, a list in order: members ``ref.0.jpg``, ``ref.1.jpg``, ... as ``ref``.

    ``decode`` decodes all of a list. Behind ``bucket`` it stands in front of ``decode``.

    Args:
        fields: their names. One member without a number (``ref.jpg``) is a list of one.
        listed: fields whose members the json lists, and where: ``{"ref": "json.references"}``, there
            ``["source.jpg", "style.png"]``. Such a member may be told with or without the sample's key.
        least: how many a sample must have; 0: it may have none, and has an empty list.
        missing: what becomes of a sample that has fewer: ``"error"``, ``"keep"`` it with those that are there, or
            ``"drop"`` it; counted.

    Raises:
        StageError: a sample has fewer than ``least``; numbers have a gap; or the json lists a member that is not there.

    >>> sample = {"__key__": "a", "jpg": b"...", "ref.1.png": b"second", "ref.0.jpg": b"first"}
    >>> list(collect(fields=("ref",))([sample]))
    [{'__key__': 'a', 'jpg': b'...', 'ref': [b'first', b'second']}]
    """
    drops = Drops(run, f", because none has {least} of {', '.join((*fields, *listed))}; name what they have")
    for sample in samples:
        try:
            members = {name: _numbered(sample, name) for name in fields}
            members |= {name: _listed(sample, name, place) for name, place in listed.items()}
            few = [name for name, each in members.items() if len(each) < least]
            if few and missing == "error":
                raise StageError(
                    f"it has {len(members[few[0]])} {few[0]!r}, and {least} are wanted; say collect(..., least=0), or "
                    f"missing='keep' or 'drop'"
                )
        except StreampipeError as error:
            run.policy.failed(StageError(f"stage {run.stage!r}, {where(sample)}: {error}"), run.stage)
            continue
        if few:
            what = f"fewer than {least} {few[0]} (sample {'dropped' if missing == 'drop' else 'kept'})"
            counters.add(run.stage, what, example=key_of(sample))
            if missing == "drop":
                drops.drop()
                continue
        run.policy.passed(run.stage)
        drops.keep()
        yield _collected(sample, members)
    drops.end()


def _numbered(sample: Sample, name: str) -> list[str]:
    """The members of a list, which are numbered from 0 or 1 without a gap; one alone needs no number."""
    found = numbered((each for each in sample if not each.startswith("__")), name)
    numbers = [place_of(each)[len(name) + 1 :] for each in found]
    if numbers in ([], [""]):
        return found
    first = 1 if numbers[0] == "1" else 0
    if numbers != [str(i) for i in range(first, first + len(found))]:
        told = ", ".join(each or "none" for each in numbers)
        raise StageError(f"its {name!r} have the numbers {told}: some are missing, or there twice")
    return found


def _listed(sample: Sample, name: str, place: str) -> list[str]:
    """The members of a list as the json has them."""
    value = Fields(sample).value(place)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise StageError(f"{place} is no list of members for {name!r} but {value!r:.80}")
    found = [_member(sample, each) for each in value]
    gone = [told for told, each in zip(value, found, strict=True) if each is None]
    if gone:
        raise StageError(f"{place} lists {gone[0]!r} for {name!r}, which is not there")
    return [each for each in found if each is not None]


def _member(sample: Sample, told: str) -> str | None:
    """A field by its own name, or by the whole name of its member."""
    base, key = told.rpartition("/")[2], str(sample.get("__key__")).rpartition("/")[2]
    for name in (told, base, base.removeprefix(f"{key}.")):
        if name.lower() in sample and not name.startswith("__"):
            return name.lower()
    return None


def _collected(sample: Sample, members: Mapping[str, list[str]]) -> Sample:
    gone = {each for found in members.values() for each in found}
    made = {name: value for name, value in sample.items() if name not in gone}
    made |= {name: Images(sample[each] for each in found) for name, found in members.items()}
    places = {place_of(each): f"{name}.{i}" for name, found in members.items() for i, each in enumerate(found)}
    return renamed(made, places)
