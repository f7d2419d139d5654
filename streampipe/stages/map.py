"""``map``: a function over every sample, or over one field of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, blame, key_of, within
from streampipe.counters import counters
from streampipe.decorators.skip import SKIP
from streampipe.errors import ConfigError, StageError, StreampipeError
from streampipe.stages.fields import find, metadata_of
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.stages.values import check_function, check_number, check_takes_one
from streampipe.threads import ordered
from streampipe.traits import Fields


def _check(fn: Any, field: Any, threads: Any) -> None:
    check_function("map", "fn", fn)
    if inspect.isgeneratorfunction(fn):
        raise ConfigError(
            f"map: {fn.__name__} yields, and would give a generator for each sample: return the sample; flat_map(fn) "
            f"makes several of one, and apply(sp.stage(fn)) is for a function of the whole stream"
        )
    if field is not None and (not isinstance(field, str) or not field):
        raise ConfigError(f"map: field is the name of a field, or None for the whole sample, not {field!r}")
    check_number("map", "threads", threads, 0, optional=True)
    check_takes_one("map", fn, "the sample" if field is None else f"the field {field!r}")
    default = _defaults(fn).get("out")
    if default is inspect.Parameter.empty:
        raise ConfigError(
            "map: out= of the function needs the default None: the first value of a batch is made without a row, and "
            "says what shape and dtype rows have"
        )
    if field is None and wants(fn, "out"):
        raise ConfigError(
            "map: the function takes out=, the row of its batch, so say which field it makes: map(function, field)"
        )


def _fields(options: Mapping[str, Any]) -> Fields | None:
    return None if options["field"] is None else Fields((options["field"],))


@stage(rows="each", state="nothing", check=_check, fields=_fields)
def map(
    samples: Iterable[Any],
    fn: Callable[..., Any],
    field: str | None = None,
    *,
    threads: int | None = None,
    run: Run = FILLED_IN,
) -> Iterator[Any]:
    """``fn(sample)`` for every sample, or, with ``field``, ``fn(sample[field])`` in place of that field.

    ``field`` may name alternatives (``"jpg;png"``). A function with a parameter named ``rng`` is given a numpy
    generator seeded by (seed, epoch, key, stage). One that returns ``sp.SKIP`` drops the sample. A new dict without
    ``__key__`` gets the old one's key, URL and position. With ``threads``, calls overlap and the order stays.

    A function of a field with a parameter ``out=None`` need not make a tensor (or array) that ``batch`` then copies:
    where ``batch`` follows, and only stages between that leave the field as it is (``select``, ``rename``, ``caption``,
    ``map`` of another field ...), it is given the row of its batch, to write its value into and to return. ``out`` is
    None for the first value of a batch, which says what shape and dtype rows have, and where there is no row::

        def scaled(image, out=None):
            return torch.div(image, 255, out=out)

    Raises:
        StageError: ``fn`` raised, or returned None for a whole sample; it names the stage and the sample.

    >>> list(map(fn=str.upper, field="txt")([{"__key__": "a", "txt": "x"}]))
    [{'__key__': 'a', 'txt': 'X'}]
    """
    call, drops = _caller(fn, field, run), Drops(run, ": the function returned sp.SKIP for all")
    for sample, result in ordered(call, samples, threads, run=run):
        if isinstance(result, StreampipeError):
            run.policy.failed(result, run.stage)
        elif result is SKIP:
            counters.add(run.stage, "dropped", example=key_of(sample))
            drops.drop()
        else:
            drops.keep()
            run.policy.passed(run.stage)
            yield result
        del sample, result  # neither may be kept alive while the consumer works
    drops.end()


def _caller(fn: Callable[..., Any], field: str | None, run: Run) -> Callable[[Any], tuple[Any, Any]]:
    """A function of a sample that returns the sample and ``fn``'s result, or the error that it became."""
    seeded, fn = wants(fn, "rng"), within(fn, run)

    def call(sample: Any) -> tuple[Any, Any]:
        try:
            extra = {"rng": run.rng(sample)} if seeded else {}
            if field is None:
                result = fn(sample, **extra)
                return sample, _whole(sample, result, run.stage)
            name = find(sample, field, run.stage)
            value = fn(sample[name], **extra)
            return sample, value if value is SKIP else {**sample, name: value}
        except Exception as error:
            return sample, caused(blame(error, run.stage, sample if isinstance(sample, dict) else None), error)

    return call


def _whole(sample: Any, result: Any, stage_name: str) -> Any:
    if not (isinstance(sample, dict) and "__key__" in sample):
        return result
    if result is None:
        raise StageError(
            f"stage {stage_name!r}, sample {sample['__key__']!r}: the function returned None; return the sample, or "
            f"sp.SKIP to drop it"
        )
    if type(result) is dict and "__key__" not in result:
        return {**metadata_of(sample), **result}
    return result


def caused(ours: StreampipeError, error: Exception) -> StreampipeError:
    """An error with the one that it was made of."""
    if ours is not error:
        ours.__cause__ = error
    return ours


def wants(fn: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter that is filled in for it: ``rng``, or ``out`` with the default None."""
    found = _defaults(fn)
    return name in found and (name != "out" or found[name] is None)


def _defaults(fn: Callable[..., Any]) -> dict[str, Any]:
    """A function's parameters with their defaults."""
    try:
        return {each.name: each.default for each in inspect.signature(fn).parameters.values()}
    except (TypeError, ValueError):  # some built-in functions have no signature
        return {}
