"""``mix``, ``concat`` and ``split``: several pipelines as one, and one as two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from streampipe.engine.batched import BatchSamples
from streampipe.engine.mix import MixSamples
from streampipe.engine.planning import check_part
from streampipe.errors import ConfigError
from streampipe.kinds import checked
from streampipe.pipeline import Pipeline
from streampipe.plan.schedule import Schedule
from streampipe.policy import ErrorPolicy
from streampipe.query.split import Split
from streampipe.reading.protocol import Samples
from streampipe.spelling import spelt
from streampipe.stages import where
from streampipe.stages.stage import pushdown_of
from streampipe.traits import Batch, Filter, Limit, Pack


@spelt
def mix(
    pipes: Sequence[Pipeline],
    weights: Sequence[float] | Schedule | None = None,
    *,
    repeats: Sequence[int] | None = None,
    seed: int = 0,
    epochs: int | None = 1,
    on_error: str | ErrorPolicy | None = None,
) -> Pipeline:
    """Several pipelines as one, each with its share of every batch: planned, exact, resumable at any step.

    Args:
        pipes: ``sp.stream(...)`` with stages of one sample in, one sample out, and ``where``. None of them batched:
            then every batch behind the mixture has samples of all. Or all of them batched, with a batch size,
            ``bucket`` and stages of its own each: then every step is a whole batch of one of them, and shares are of
            batches.
        weights: how the samples are shared out. Shares are exact: after any number of batches each part is within two
            samples of its own. A part that is used up begins anew, in a new order, also within an epoch. An
            ``sp.Schedule`` changes them while a model is trained; it may be another one after a resume.
        repeats: how often every sample of each part comes in an epoch, exactly, in a new order each time (what kohya
            writes as ``10_name``). By default once.
        seed: of random choices in the stages behind. Each part's order has its own seed.
        epochs: an epoch of the mixture has as many samples as all parts together, repeats counted. None for an
            endless stream.
        on_error: as in ``stream``; by default what all parts say.

    Raises:
        ConfigError: a part cannot be planned (samples not counted), some are batched and some not, or a weight is not
            above 0.
    """
    pipes = _pipelines(pipes, "mix")
    batched = [_is_batched(pipe) for pipe in pipes]
    if any(batched) and not all(batched):
        raise ConfigError("mix takes parts that are all batched, or none of them: some here are, some are not batched")
    if weights is not None and repeats is not None:
        raise ConfigError("mix takes weights or repeats, not both: repeats say how the samples are shared")
    if isinstance(weights, Schedule) and weights.parts != len(pipes):
        raise ConfigError(f"mix has {len(pipes)} pipelines, and its schedule weights for {weights.parts}")
    shares = weights if weights is None or isinstance(weights, Schedule) else _numbers(weights)
    if isinstance(shares, list) and (len(shares) != len(pipes) or not all(0 < each < float("inf") for each in shares)):
        hint = "; weights by step are sp.Schedule({0: [3, 1], 10_000: [1, 1]})" if isinstance(weights, Mapping) else ""
        raise ConfigError(f"mix takes a weight above 0 for each of its {len(pipes)} pipelines, not {weights}{hint}")
    times = [1] * len(pipes) if repeats is None else list(repeats) if isinstance(repeats, Iterable) else []
    if len(times) != len(pipes) or not all(isinstance(each, int) and each >= 1 for each in times):
        raise ConfigError(
            f"mix takes a number of repeats, 1 or more, for each of its {len(pipes)} pipelines, not {repeats}"
        )
    specs = [pipe.spec for pipe in pipes]
    source = BatchSamples(specs, shares, times) if any(batched) else MixSamples(specs, shares, times)
    if shares is None and not any(batched):
        _check_planned(pipes, "the mixture")
    return _whole(pipes, source, seed, epochs, on_error)


@spelt
def concat(
    pipes: Sequence[Pipeline],
    *,
    seed: int = 0,
    epochs: int | None = 1,
    on_error: str | ErrorPolicy | None = None,
) -> Pipeline:
    """Several pipelines one after the other in every epoch: each sample of each once, in each part's own order.

    For validation on several datasets, or a curriculum. It is planned, as ``mix`` is, so a batch may have the last
    samples of one part and the first of the next. Behind ``bucket`` batches are by bucket, and parts are shared as in
    ``mix``.

    Args:
        pipes: ``sp.stream(...)`` with stages of one sample in, one sample out, and ``where``; not batched.
        seed: of random choices in the stages behind. Each part's order has its own seed.
        epochs: of a pass; None for an endless stream.
        on_error: as in ``stream``; by default what all parts say.

    Raises:
        ConfigError: a part cannot be planned (samples not counted), or is batched.
    """
    pipes = _parts(pipes, "concat")
    _check_planned(pipes, "concat")
    source = MixSamples([pipe.spec for pipe in pipes], None, [1] * len(pipes), True)
    return _whole(pipes, source, seed, epochs, on_error)


@checked
def split(pipe: Pipeline, by: str = "key", share: float = 0.01, *, seed: int = 0) -> tuple[Pipeline, Pipeline]:
    """A pipeline as two: the rest, and the ``share`` of its samples that is held out, for validation.

    The side of a sample is a function of the fact ``by`` and ``seed`` alone: no sample is ever on both, whatever is
    added, moved, packed anew or read in another order; a larger share holds out what a smaller one does. Where samples
    are counted the index answers it, and nothing is read. The stages of ``pipe`` stand behind it in both.

    Args:
        pipe: not a mixture; split its parts.
        by: the key, or a fact as ``where`` knows them: with ``by="image_hash"``, say, duplicates are on one side.
        share: about how much is held out, between 0 and 1.
        seed: another one holds out others. It is not the pipeline's: that one may change.

    Raises:
        ConfigError: the share is not between 0 and 1; or, when it runs, a sample lacks the fact.

    >>> import streampipe as sp
    >>> rest, held_out = split(sp.from_iterable([{"__key__": f"{i:03d}"} for i in range(100)]), share=0.1)
    >>> len(list(rest)), len(list(held_out))
    (84, 16)
    """
    if not isinstance(pipe, Pipeline):
        raise ConfigError(f"split takes a pipeline, as sp.stream(...) gives it, not {pipe!r:.80}")
    if pipe.source.parts:
        raise ConfigError("split stands before mix: split its parts, and mix the rests and what is held out")
    first = tuple(takewhile(lambda stage: isinstance(pushdown_of(stage), (Filter, Limit)), pipe.chain))
    begin = pipe._changed(chain=first)
    sides = []
    for side in Split.halves(share, by, seed):
        found = begin.apply(where(condition=side, beside=begin._beside("where")))
        for stage in pipe.chain[len(first) :]:
            found = found.apply(stage)
        sides.append(found)
    return sides[0], sides[1]


def _pipelines(pipes: Sequence[Pipeline], name: str) -> list[Pipeline]:
    pipes = [] if isinstance(pipes, Pipeline) or not isinstance(pipes, Iterable) else list(pipes)
    if not pipes or not all(isinstance(pipe, Pipeline) for pipe in pipes):
        raise ConfigError(f"{name} takes a list of pipelines, as in {name}([a, b])")
    return pipes


def _parts(pipes: Sequence[Pipeline], name: str) -> list[Pipeline]:
    pipes = _pipelines(pipes, name)
    if any(_is_batched(pipe) for pipe in pipes):
        raise ConfigError(f"{name} takes pipelines that are not batched: batch behind it")
    return pipes


def _whole(
    pipes: Sequence[Pipeline], source: Samples, seed: int, epochs: int | None, on_error: str | ErrorPolicy | None
) -> Pipeline:
    """The pipeline of several, for the rank that all of them are for, and with their policy for errors."""
    policies = [pipe.spec.policy for pipe in pipes]
    if on_error is None and any(policy != policies[0] for policy in policies):
        said = " and ".join(sorted({repr(policy) for policy in policies}))
        raise ConfigError(
            f"the parts of a mixture have one policy for errors, and theirs are {said}: say on_error= here"
        )
    given = policies[0].fresh() if on_error is None else on_error
    policy = given if isinstance(given, ErrorPolicy) else ErrorPolicy(given)
    worlds = {pipe._world for pipe in pipes}
    if len(worlds) > 1:
        said = " and ".join(sorted("of no rank" if each is None else f"of_rank{each}" for each in worlds))
        raise ConfigError(f"the parts of a mixture are for one rank, and some are {said}: say of_rank behind it, once")
    made = Pipeline(source, seed=seed, epochs=epochs, policy=policy)
    made._world = worlds.pop()
    return made


def _numbers(weights: Any) -> list[float]:
    """Weights as numbers; 0 for what is none."""
    if isinstance(weights, (str, Pipeline)) or not isinstance(weights, Iterable):
        return []
    return [float(each) if isinstance(each, (int, float, np.number)) else 0.0 for each in weights]


def _check_planned(pipes: Sequence[Pipeline], whole: str) -> None:
    for pipe in pipes:
        check_part(pipe.spec, whole)


def _is_batched(pipe: Pipeline) -> bool:
    return pipe.source.batched or any(isinstance(pushdown_of(stage), (Batch, Pack)) for stage in pipe.chain)
