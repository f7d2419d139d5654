"""From a pipeline and its division to a plan: which samples there are, and how an epoch of them is cut into batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from streampipe.engine.division import Division, divide
from streampipe.engine.learnt import check_learnt
from streampipe.errors import ConfigError, ShardError
from streampipe.plan import stepped
from streampipe.plan.ask import Uncounted
from streampipe.plan.bucket_plan import Bucketed, BucketPlan, make_plan
from streampipe.plan.compound import Signatures
from streampipe.plan.lanes import sensible_window
from streampipe.plan.pack_plan import Packed, PackPlan, make_pack_plan
from streampipe.plan.packed import NotPacked
from streampipe.plan.planned import Plan, make
from streampipe.plan.streams import choose_streams
from streampipe.reading.protocol import Samples
from streampipe.spec import AnyStage, Job, Spec
from streampipe.stages.grouping import bucket_sizes
from streampipe.stages.pack import pack
from streampipe.stages.stage import fields_of, pushdown_of
from streampipe.stages.where import nothing_left
from streampipe.traits import Group, Limit

_SHARDS_TO_BLAME = 100
"""How many shards are looked at to say why a condition keeps nothing."""


def narrowed(spec: Spec, chain: Sequence[AnyStage]) -> Spec:
    """The pipeline, whose source reads no other fields than a chain, which runs on its samples, has a use for.

    That is known up to the first ``select``, if all stages in front of it say what they look at.
    """
    fields: set[str] = set()
    for stage in chain:
        found = fields_of(stage)
        if found is None:
            break
        fields.update(name for each in found.at for name in each.split(";"))
        if found.only:
            if stage is chain[0] and any(_only(spec, each) is spec.source for each in found.at):
                return spec  # the source lacks a field: the error that says so lists all fields, so all are read
            return replace(spec, source=spec.source.only(frozenset(fields)))
    return spec


def _only(spec: Spec, field: str) -> Samples:
    return spec.source.only(frozenset(field.split(";")))


def plan_of(spec: Spec, division: Division, job: Job) -> Plan:
    """The plan of a pass.

    Raises:
        Uncounted: samples cannot be counted without reading them.
    """
    _check_tail(division, job)
    source = spec.source
    if source.tier == "sequential":
        raise Uncounted("tier='sequential' was asked for")
    if source.batched:
        if division.pushed:
            raise ConfigError("where, take and skip stand behind a mixture of batches; put them into its parts")
        plan: Plan = source.plan_for(job, spec.seed)
        return plan
    try:
        dataset: Any = _dataset(source, division, job)
    except ShardError as error:
        if spec.policy.mode == "raise" or source.parts:
            raise
        raise Uncounted(f"a shard is damaged, and its readable samples are wanted ({error})") from error
    if division.keep and division.keep.conditions and not dataset.samples:
        raise _nothing_kept(source, division)
    if division.pack is not None:
        return _with_packs(spec, dataset, division, job)
    if division.limit is not None:
        dataset = dataset.limited(division.limit.first, division.limit.last)
    text = division.keep.text if division.keep else ""
    if division.group is not None:
        return _with_buckets(spec, dataset, division, job)
    size = (division.batch or 1) * job.world_size
    if getattr(dataset, "rates", None) is not None:
        if tail_of(division, job) != "short":
            raise ConfigError("tail= has no meaning for a mixture with a schedule, which has whole batches only")
        return stepped.make(dataset, dataset.rates, size, spec.seed)
    plan = make(dataset, size, source.shuffle, spec.seed, tail_of(division, job), text)
    return _read_forward(plan) if plan.shuffled and any(part.forward for part in dataset.parts()) else plan


def _read_forward(plan: Plan) -> Plan:
    """The plan in lanes that can be divided among readers, because a shard that is read forward should have one."""
    lanes = plan.lanes
    chosen = choose_streams(lanes.size, len(plan.dataset.shards))
    window = sensible_window(chosen.places) if plan.sensible else lanes.window
    return replace(plan, lanes=replace(lanes, places=chosen.places, columns=chosen.columns, window=window))


def _dataset(source: Samples, division: Division, job: Job) -> Any:
    """The samples as far as they are known: by an index, or, if nothing is asked of it, by another tool's counts."""
    if division.pack is not None and division.limit is not None:
        raise NotPacked("take and skip choose other samples in every epoch, and packs follow from all")
    try:
        check_learnt(source, job)
        groups = division.group.buckets if division.group else division.pack.packing if division.pack else None
        return source.dataset(division.keep, groups)
    except NotPacked:
        raise
    except Uncounted as reason:
        try:
            counted = source.counted()
        except Uncounted:
            raise reason from None
        if division.pack is not None:
            raise NotPacked(str(reason)) from None
        if division.pushed and not all(isinstance(pushdown_of(stage), Limit) for stage in division.pushed):
            raise OnlyCounted(str(reason)) from None
        return counted


class OnlyCounted(Uncounted):
    """Samples are counted, but the chain asks an index for more."""


def _check_tail(division: Division, job: Job) -> None:
    """Refuse a loader's choice that nothing in the chain would heed."""
    if job.tail is None:
        return
    if any(isinstance(pushdown_of(stage), Group) for stage in division.chain):
        raise ConfigError("tail= has no meaning with buckets: say bucket(tail='carry' | 'merge' | 'drop')")
    if any(getattr(stage, "define", None) is pack for stage in division.chain):
        raise ConfigError("tail= has no meaning with pack: every sample comes once an epoch")


def tail_of(division: Division, job: Job) -> str:
    """What becomes of an epoch's last batch."""
    return job.tail or division.last


def _nothing_kept(source: Samples, division: Division) -> Exception:
    assert division.keep is not None
    seen, reasons, there = 0, Counter[str](), set[str]()
    for each in islice(source.indexes(), _SHARDS_TO_BLAME):
        seen, reasons = seen + len(each), reasons + division.keep.reasons(each)
        there.update(each.fact_names)
    return nothing_left(division.keep.text, division.keep.names(there), there, seen, reasons)


def _with_buckets(spec: Spec, dataset: Bucketed, division: Division, job: Job) -> BucketPlan:
    group = division.group
    assert group is not None
    if spec.policy.mode == "raise":
        dataset.check_sized()
    text = division.keep.text if division.keep else ""
    sizes = division.sizes
    if isinstance(dataset.buckets, Signatures):
        sizes = bucket_sizes(replace(group, buckets=dataset.buckets), division.tail)
    plan = make_plan(
        dataset,
        sizes,
        job.world_size,
        spec.source.shuffle,
        spec.seed,
        text,
        group.tail,
        group.same is not False,
    )
    plan.check_epochs(spec.epochs)
    return plan


def _with_packs(spec: Spec, dataset: Packed, division: Division, job: Job) -> PackPlan:
    if spec.policy.mode == "raise":
        dataset.check_costs()
    if dataset.left_out and not dataset.samples:
        raise ConfigError(
            f"pack: all {dataset.left_out} samples cost more than limit={dataset.packing.most}: check it and cost "
            f"({dataset.packing.cost.text})"
        )
    text = division.keep.text if division.keep else ""
    return make_pack_plan(dataset, job.world_size, spec.source.shuffle, spec.seed, text)


def check_part(spec: Spec, whole: str = "the mixture") -> tuple[Division, Plan]:
    """A part of a mixture or the like, planned.

    Raises:
        ConfigError: it cannot be.
    """
    division = divide(spec.chain)
    try:
        if division.head:
            raise Uncounted(division.why)
        spec = narrowed(spec, division.tail)
        plan = plan_of(spec, division, Job())
    except Uncounted as reason:
        raise ConfigError(f"a part of {whole} cannot be planned: {reason}") from None
    if division.group or division.pack:
        what = "buckets; put bucket" if division.group else "packs; put pack"
        raise ConfigError(f"a part of {whole} has {what} behind it")
    return division, plan
