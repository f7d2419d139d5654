"""``flat_map``: a function that gives several samples in place of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, blame, within
from streampipe.counters import counters
from streampipe.decorators.skip import SKIP
from streampipe.errors import StageError, StreampipeError
from streampipe.stages.fields import metadata_of
from streampipe.stages.map import wants
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.stages.values import check_function, check_number
from streampipe.threads import ordered


def _check(fn: Any, threads: Any) -> None:
    check_function("flat_map", "fn", fn)
    check_number("flat_map", "threads", threads, 0, optional=True)


@stage(rows="split", state="offset", check=_check)
def flat_map(
    samples: Iterable[Any], fn: Callable[..., Any], *, threads: int | None = None, run: Run = FILLED_IN
) -> Iterator[Any]:
    """The samples that ``fn(sample)`` gives, for every sample: crops of an image, captions of one picture, turns.

    ``fn`` gives a list, or any iterable, or is a generator function; it must give the same for the same sample. With a
    parameter named ``rng`` it is given a numpy generator seeded by (seed, epoch, key, stage). An empty one, or
    ``sp.SKIP``, drops the sample, counted.

    Each new sample gets the metadata that it lacks from the old one. Keys stay unique: one that is without ``__key__``,
    or has the old sample's, is called ``KEY-0``, ``KEY-1``, ... by its place among those that ``fn`` gave.

    Raises:
        StageError: ``fn`` raised, or gave nothing that can be gone through; it names the stage and the sample.

    >>> list(flat_map(fn=lambda s: [{"n": i} for i in s["n"]])([{"__key__": "a", "n": [1, 2]}]))
    [{'__key__': 'a-0', 'n': 1}, {'__key__': 'a-1', 'n': 2}]
    """
    call, drops = _caller(fn, run), Drops(run, ": the function gave nothing for any")
    given, before = run.at or (0, None)  # of the sample that comes first
    for result in ordered(call, samples, threads, run=run):
        behind = run.trail.mark
        if isinstance(result, StreampipeError):
            run.policy.failed(result, run.stage)
            result = []
        elif not result:
            counters.add(run.stage, "dropped")
            drops.drop()
        else:
            drops.keep()
            run.policy.passed(run.stage)
        for number in range(given, len(result)):
            run.trail.mark = [number + 1, before] if number + 1 < len(result) else [0, behind]
            yield result[number]
        given, before = 0, behind
    drops.end()


def _caller(fn: Callable[..., Any], run: Run) -> Callable[[Any], Any]:
    """A function from a sample to the list of those that ``fn`` gives, or to the error that it became."""
    seeded, fn = wants(fn, "rng"), within(fn, run)

    def call(sample: Any) -> Any:
        try:
            found = fn(sample, **({"rng": run.rng(sample)} if seeded else {}))
            if found is SKIP:
                return []
            if isinstance(found, (Mapping, str, bytes)) or not isinstance(found, Iterable):
                raise StageError(
                    f"stage {run.stage!r}, sample {_key(sample)!r}: the function gave a {type(found).__name__}; give a "
                    f"list of samples"
                )
            return [_named(sample, each, number) for number, each in enumerate(found)]
        except Exception as error:
            ours = blame(error, run.stage, sample if isinstance(sample, dict) else None)
            if ours is not error:
                ours.__cause__ = error
            return ours

    return call


def _named(sample: Any, made: Any, number: int) -> Any:
    """A new sample with the metadata of the old one, and a key of its own."""
    if not (isinstance(sample, dict) and "__key__" in sample and isinstance(made, dict)):
        return made
    key = made.get("__key__", sample["__key__"])
    if key == sample["__key__"]:
        key = [f"{each}-{number}" for each in key] if isinstance(key, list) else f"{key}-{number}"
    return {**metadata_of(sample), **made, "__key__": key}


def _key(sample: Any) -> Any:
    return sample.get("__key__") if isinstance(sample, dict) else None
