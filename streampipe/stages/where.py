"""``where``: keep the samples whose facts fulfil a condition; no pixel is decoded for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from streampipe.context import FILLED_IN, Run, Sample
from streampipe.errors import ConfigError, StageError
from streampipe.index.beside import Beside
from streampipe.index.facts import facts_of
from streampipe.index.known import Known, columns_beside
from streampipe.query.condition import Condition
from streampipe.query.own import WithFacts
from streampipe.query.split import Split
from streampipe.stages.nothing import NOTHING_LEFT, none_left
from streampipe.stages.stage import stage
from streampipe.traits import Filter


def _check(condition: Any, beside: Any) -> None:
    if not isinstance(condition, (Condition, Split, WithFacts)):
        raise ConfigError(f"where: condition is a Condition, WithFacts or a Split, not {condition!r:.80}")


def _push(options: Mapping[str, Any]) -> Filter:
    return Filter(options["condition"])


@stage(rows="fewer", state="nothing", takes="samples", views=True, check=_check, pushdown=_push)
def where(
    samples: Iterable[Sample],
    condition: Condition | WithFacts | Split,
    beside: Beside | None = None,
    *,
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """The samples for which ``condition`` is true of their facts (``streampipe.index.facts``).

    Where a value is not among a sample's own facts, img2dataset's ``00000.parquet`` beside the shard is looked at, once
    for each shard. What is dropped is counted by the parts of the condition that stand between ``and``: each sample
    under the first that is false or, where none is, the first that is unknown.

    Raises:
        StageError: nothing is left of 10,000 samples (or of all, for a lone consumer); it says why.

    >>> kept = where(condition=Condition("n > 1"))([{"__key__": "a", "json": b'{"n": 1}'}, {"json": b'{"n": 2}'}])
    >>> list(kept)
    [{'json': b'{"n": 2}'}]
    """
    seen = kept = 0
    reasons: Counter[str] = Counter()
    there: set[str] = set()
    sizes = condition.wants_sizes
    for sample in samples:
        seen += 1
        facts = facts_of(sample, sizes)
        if beside is not None and condition.lacks(facts):
            facts = {**_beside(beside, sample, run), **facts}
        verdict = condition.of_sample(facts)
        verdict.record(run.stage)
        if verdict.kept[0]:
            kept += 1
            if kept == 1 and run.in_lane:
                run.policy.fate(run.stage).kept = True
            yield sample
        elif not kept and not run.resumed:
            reasons += verdict.reasons
            there.update(facts)
            if seen >= NOTHING_LEFT and not isinstance(condition, Split):  # a split may be of very few
                raise nothing_left(condition.text, condition.names(there), there, seen, reasons)
    if seen and not kept and not run.resumed and not run.fill:  # a rest may be without any
        none_left(run, seen, partial(nothing_left, condition.text, condition.names(there), there), reasons)


def nothing_left(text: str, names: str, there: Collection[str], seen: int, reasons: Counter[str]) -> StageError:
    """The error for a condition that dropped everything, with a histogram of why."""
    shown = "; ".join(f"{why} for {times}" for why, times in reasons.most_common(8))
    columns = ", ".join(sorted(there)[:40])
    return StageError(
        f"where {text} dropped every one of {seen} samples ({shown}); check names and limits: "
        f"{names + '; ' if names else ''}there are {columns}"
    )


def _beside(beside: Beside, sample: Sample, run: Run) -> Mapping[str, Any]:
    """What img2dataset's file beside the shard says about a sample."""
    position = sample.get("__position__")
    if beside.shards is None or beside.source.opener is not None or position is None:
        return {}
    url = beside.shard_of(sample, run)
    load = partial(columns_beside, source=beside.source, limits=beside.limits)
    known: Known = beside.held(url, load, position.epoch, run, "looks beside shards")
    return known.get(str(sample.get("__key__")))
