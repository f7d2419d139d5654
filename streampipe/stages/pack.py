"""``pack``: samples to packs that cost a budget at most.

Where an index knows what samples cost, the planner has decided, and a pack's samples come together. Else the stage
decides as samples come, window after window: the cheapest pack of a window waits for the next one, no longer. So what
the stage keeps are the numbers of the samples that wait, and a stream goes on by reading two windows at most again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

from streampipe.context import FILLED_IN, Mark, Run, Sample, Trail, blame, key_of, where, within
from streampipe.counters import counters
from streampipe.decoding import is_image
from streampipe.errors import ConfigError, StageError
from streampipe.index.facts import facts_of
from streampipe.plan.pack_plan import ABOVE
from streampipe.plan.packed import ADVICE_OVER, ADVICE_UNKNOWN
from streampipe.plan.packing import Packing, fit
from streampipe.query.cost import Cost
from streampipe.stages.batch import Collate
from streampipe.stages.collate import Batch
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.stages.values import check_flag, check_function, check_names, check_number
from streampipe.stages.varlen import join
from streampipe.traits import Pack

WINDOW = 256


def _check(
    budget: Any, cost: Any, limit: Any, missing: Any, concat: Any, fixed: Any, window: Any, collate: Any
) -> None:
    check_number("pack", "budget", budget, 1)
    check_number("pack", "limit", limit, 1, optional=True)
    if limit is not None and limit > budget:
        raise ConfigError(f"pack: no pack has room for a sample of limit={limit}: it is at most the budget of {budget}")
    check_number("pack", "window", window, 1)
    check_flag("pack", "fixed", fixed)
    check_function("pack", "collate", collate, optional=True)
    if isinstance(concat, str) or concat:
        check_names("pack", "concat", [concat] if isinstance(concat, str) else concat)
    if missing not in ("error", 0) or isinstance(missing, bool):
        raise ConfigError(f"pack: missing is 'error', or 0 where a missing value costs nothing, not {missing!r}")
    if not callable(cost) and not isinstance(cost, str):
        raise ConfigError(
            f"pack: cost is a column, an expression as in 'height * width // 256 + tokens', or a function, not {cost!r}"
        )
    if callable(cost) and missing != "error":
        raise ConfigError("pack: missing= goes with an expression; a function of your own says what a sample costs")
    if collate is not None and (concat or fixed):
        raise ConfigError(
            "pack takes concat= and fixed=, or collate=, not both: a collate of your own joins as it likes"
        )
    if fixed and not concat:
        raise ConfigError("pack(fixed=True) fills joined fields up to the budget: name them by concat=")
    if isinstance(cost, str):
        Cost(cost)


@lru_cache(1000)
def _parsed(text: str, zero: bool) -> Cost:
    return Cost(text, zero)


def _packing(budget: int, cost: Any, limit: int | None, missing: Any) -> Packing:
    return Packing(budget, _parsed(cost, missing == 0) if isinstance(cost, str) else cost, limit)


def _push(options: Mapping[str, Any]) -> Pack | None:
    given = _packing(*(options[name] for name in ("budget", "cost", "limit", "missing")))
    return Pack(given) if isinstance(given.cost, Cost) else None


@stage(rows="batch", state="offset", takes="samples", check=_check, pushdown=_push)
def pack(
    samples: Iterable[Sample],
    budget: int,
    cost: str | Callable[[Any], int] = "tokens",
    *,
    limit: int | None = None,
    missing: str | int = "error",
    concat: str | Sequence[str] = (),
    fixed: bool = False,
    window: int = WINDOW,
    collate: Collate | None = None,
    run: Run = FILLED_IN,
) -> Iterator[Batch]:
    """Packs of samples that cost ``budget`` together at most, each a dict: see ``streampipe.stages.varlen``.

    Args:
        budget: what a pack may cost.
        cost: what a sample costs: a column, an expression of columns as in ``where``, or a function of the sample.
            Fractions are rounded up.
        limit: samples that cost more are left out, counted. Without it one that costs more than the budget is an error.
        missing: ``"error"``, or 0: a value that a sample lacks counts as 0 in ``cost``.
        concat: fields that are joined along their first dimension, with ``cu_seqlens`` and the like; others are lists.
        fixed: joined fields are filled up to ``budget`` rows, so that all packs have one shape.
        window: where nothing knows what samples cost before they come: so many of them are packed together.
        collate: a function from the samples of a pack to what it becomes, in place of all that.

    Raises:
        StageError: a sample has no cost, or costs more than the budget; ``cost`` raised.

    >>> rows = [{"n": 5}, {"n": 1}, {"n": 3}, {"n": 4}]
    >>> [each["n"].tolist() for each in pack(budget=8, cost="n")(rows)]
    [[5, 3], [1, 4]]
    """
    names = (concat,) if isinstance(concat, str) else tuple(concat)
    make = collate or partial(join, concat=names, total=budget if fixed else None)
    if run.fill:  # planned: they are one pack
        if rows := list(samples):
            yield make(rows)
        return
    given = _packing(budget, cost, limit, missing)
    taken = Trail(run.at[-1] if run.at else None)
    for each in _packs(_costed(samples, given, taken, run), budget, window, taken, run):
        yield make([row.sample for row in each])


class _Row(NamedTuple):
    """A sample, what it costs, and the mark before it came."""

    sample: Sample
    cost: int
    before: Mark


def _costed(samples: Iterable[Sample], packing: Packing, taken: Trail, run: Run) -> Iterator[_Row]:
    """The samples that can be packed; ``taken`` has the mark behind the last that came.

    Those above the limit are left out, counted; those without a cost are errors.
    """
    drops = Drops(run, f": all cost more than limit={packing.most}")
    for sample in samples:
        before, taken.mark = taken.mark, run.trail.mark
        try:
            cost = _cost_of(sample, packing, run)
        except Exception as error:
            run.policy.failed(blame(error, run.stage, sample), run.stage)
        else:
            run.policy.passed(run.stage)
            if cost <= packing.most:
                drops.keep()
                yield _Row(sample, cost, before)
            else:
                counters.add(run.stage, ABOVE, example=key_of(sample))
                drops.drop()
    drops.end()


def _cost_of(sample: Sample, packing: Packing, run: Run) -> int:
    """What a sample costs.

    Raises:
        StageError: nobody can say, or more than any pack may cost.
    """
    cost = packing.cost
    if isinstance(cost, Cost):
        found = cost.of_sample(_facts(sample, cost.wants_sizes))
        if not found:
            raise StageError(
                f"stage {run.stage!r}, {where(sample)}: it has no cost ({cost.text}): a value is missing, or it costs "
                f"nothing; {ADVICE_UNKNOWN}"
            )
    else:
        found = within(cost, run)(sample)
        if not isinstance(found, int) or found < 1:
            raise StageError(
                f"stage {run.stage!r}, {where(sample)}: cost= gave {found!r}; a cost is a whole number, 1 or more"
            )
    if packing.limit is None and found > packing.budget:
        raise StageError(
            f"stage {run.stage!r}, {where(sample)}: it costs {found}, more than the budget of {packing.budget}; "
            f"{ADVICE_OVER}"
        )
    return int(found)


def _facts(sample: Sample, sizes: bool) -> Mapping[str, Any]:
    """What is known of a sample; of a decoded image the size that it had in its file, as an index has it."""
    facts = facts_of(sample, sizes)
    if sizes and facts.get("height") is None:
        size = sample.get("original_size")
        if size is None:
            size = next((each.shape[-2:] for each in sample.values() if is_image(each)), None)
        if size is not None:
            facts["height"], facts["width"] = (int(each) for each in size)
    return facts


def _packs(rows: Iterator[_Row], budget: int, window: int, taken: Trail, run: Run) -> Iterator[list[_Row]]:
    """The packs of one window after the other, each with the mark behind it. The cheapest pack of a window waits.

    A window's state is ``[given, skip, waiting, mark]``: packs of it that were given out; the mark before the oldest
    sample that waits, how many samples from there on come before the window, and which of those wait.
    """
    given, skip, numbers, mark = _checked(run.at, run.stage)
    old = list(islice(rows, skip))
    waiting = [(number, old[number]) for number in numbers if number < len(old)]
    ended = False
    while not ended:
        new = list(islice(rows, window))
        ended = len(new) < window
        every = waiting + list(enumerate(new, skip))
        packs = fit([row.cost for _, row in every], budget)
        held = [] if ended else _cheapest(packs, every, len(waiting))
        out = [pack for pack in packs if pack is not held]
        own = [skip, [number for number, _ in waiting], mark]
        total = skip + len(new)
        if held:
            first, oldest = every[held[0]]
            skip, mark = total - first, oldest.before
            waiting = [(every[i][0] - first, every[i][1]) for i in held]
        else:
            skip, waiting, mark = 0, [], taken.mark
        for number, pack in enumerate(out[given:], given + 1):
            last = number == len(out)
            run.trail.mark = [0, skip, [n for n, _ in waiting], mark] if last else [number, *own]
            counters.add(run.stage, "packs")
            yield [every[i][1] for i in pack]
        given = 0


def _cheapest(packs: Sequence[list[int]], every: Sequence[tuple[int, _Row]], waiting: int) -> list[int]:
    """The pack that waits for the next window: none of one pack, nor one with a sample that has waited before."""
    if len(packs) < 2:
        return []
    found = min(packs, key=lambda pack: sum(every[i][1].cost for i in pack))
    return [] if found[0] < waiting else found


def _checked(at: Mark, stage_name: str) -> tuple[int, int, list[int], Mark]:
    """The state of a window."""
    if not at:
        return 0, 0, [], None
    *own, mark = at
    if len(own) == 3 and _is_number(own[0]) and _is_number(own[1]) and isinstance(own[2], list):
        given, skip, waiting = own
        if all(_is_number(each) and each < skip for each in waiting):
            return given, skip, waiting, mark
    raise ConfigError(f"the state's mark is {at!r:.80} behind stage {stage_name}: it is damaged")


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0
