"""What an output shard is made of, and making one.

Where samples are counted, output shard k is a batch of the plan: ``max_samples`` places in the input shards, known
before a byte is read. The chain runs over these samples alone, as that of consumer k of as many as there are shards. So
a shard is a function of the pipeline and its number: whoever makes it, whenever, makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from streampipe.checksum import Hashes
from streampipe.context import Consumer, Run, Sample, where
from streampipe.counters import counters
from streampipe.engine.batches import read_batch
from streampipe.engine.chain import name_of, takes_views, through
from streampipe.engine.division import divide
from streampipe.engine.planning import plan_of
from streampipe.errors import ConfigError, DuplicateKey, StageError, UnsafeName
from streampipe.index.find import index_url
from streampipe.index.writer import IndexWriter
from streampipe.plan.ask import Uncounted
from streampipe.plan.planned import Plan
from streampipe.plan.stepped import StepPlan
from streampipe.policy import ErrorPolicy
from streampipe.source import Source
from streampipe.spec import AnyStage, Job, Spec
from streampipe.stages import batch
from streampipe.stages.stage import pushdown_of
from streampipe.traits import Batch, Filter, Group, Limit
from streampipe.write.draft import Draft, put
from streampipe.write.encode import QUALITY, encode_sample
from streampipe.write.job import shard_url

Tell = Callable[[int], object]
"""Is told of samples that were read."""


@dataclass(frozen=True)
class Work:
    """Everything a process needs to make any shard of a job. Picklable where the pipeline is.

    The error policy counts over all shards that a process makes: small shards must not hide that most samples fail.
    """

    plan: Plan
    chain: tuple[AnyStage, ...]
    shards: int
    pattern: str
    seed: int
    policy: ErrorPolicy
    source: Source = field(default_factory=Source)
    quality: int = QUALITY
    sha256: bool = True
    threads: int = 0

    def make(self, number: int, tell: Tell, beside: bool = False) -> None:
        """Write an output shard and its index; ``beside``: a thread makes its sha256."""
        consumer = Consumer(worker=number, num_workers=self.shards)
        run = Run(seed=self.seed, consumer=consumer, policy=self.policy, threads=self.threads)
        views = takes_views(self.chain)
        epoch, step = divmod(number, self.plan.batches)
        samples = told(read_batch(self.plan, epoch, step, run, views is not None), tell)
        made = through(self.chain, samples, run, views)
        write_shard(shard_url(self.pattern, number), made, run, self.source, self.quality, self.sha256, beside)


def planned(spec: Spec, size: int) -> tuple[Plan, tuple[AnyStage, ...]]:
    """The plan whose batches are the output shards, and the chain that runs over each.

    Raises:
        Uncounted: there can be none, because samples are not counted.
    """
    for stage in spec.chain:
        push = pushdown_of(stage)
        if isinstance(push, (Batch, Group)) and push.tail == "drop":
            raise ConfigError(
                f"{name_of(stage, parameters=True)} would drop samples at every shard's end: leave tail= out"
            )
    first, rest = _cut(spec.chain)
    if late := [stage for stage in rest if isinstance(pushdown_of(stage), Limit)]:
        raise CountedLate(
            f"{name_of(late[0], parameters=True)} counts what stages in front of it give, which nobody knows before"
        )
    of_shards = replace(spec, chain=(*first, batch(size=size)))
    plan = None if spec.source.batched else plan_of(of_shards, divide(of_shards.chain), Job(tail="short"))
    if plan is None or isinstance(plan, StepPlan):
        raise ConfigError(
            "write has no steps of training, by which this mixture takes turns (it has a schedule, or parts that are "
            "batched): write the parts instead"
        )
    return plan, rest


class CountedLate(Uncounted):
    """What a shard begins with depends on what all shards before it gave."""


def _cut(chain: tuple[AnyStage, ...]) -> tuple[tuple[AnyStage, ...], tuple[AnyStage, ...]]:
    """The stages that choose samples before any is read, and those that run over each shard."""
    first = tuple(takewhile(lambda stage: isinstance(pushdown_of(stage), (Filter, Limit)), chain))
    while divide((*first, batch(size=1))).head:
        first = first[:-1]
    return first, chain[len(first) :]


def write_shard(
    url: str, samples: Iterable[Any], run: Run, source: Source, quality: int, sha256: bool = True, beside: bool = False
) -> None:
    """Write samples as a shard, and its index before it: where there is a shard, there is its index."""
    run = run.in_stage("write")
    with Draft(url, source) as draft, Hashes(beside and sha256) as hashes:
        writer = IndexWriter(draft.file.write, url, sha256, hashes)
        count = 0
        for sample in samples:
            try:
                writer.add(key_of(sample), encode_sample(sample, quality))
            except (StageError, DuplicateKey, UnsafeName) as error:
                run.policy.failed(error if isinstance(error, StageError) else _placed(error, sample), run.stage)
                continue
            run.policy.passed(run.stage)
            count += 1
        index = writer.close()
        draft.finish()
        put(index_url(url), index.to_bytes(), source)
        draft.publish()
    for what, amount in (("shards", 1), ("samples", count), ("bytes", writer.offset)):
        counters.add(run.stage, what, amount)


def key_of(sample: Any) -> str:
    """The key of what is to become a sample of a shard.

    Raises:
        StageError: it is no sample: a batch, or something of the user's own make.
    """
    key = sample.get("__key__") if isinstance(sample, dict) else None
    if isinstance(key, list):
        raise StageError(f"stage 'write' got a batch of {len(key)} samples: put unbatch() before write")
    if not isinstance(key, str):
        raise StageError(
            f"stage 'write' got a {type(sample).__name__} without '__key__': a sample is a dict that has one"
        )
    return key


def _placed(error: DuplicateKey | UnsafeName, sample: Any) -> DuplicateKey | UnsafeName:
    return type(error)(f"stage 'write', {where(sample)}: {error}")


def told(samples: Iterable[Sample], tell: Tell) -> Iterator[Sample]:
    """The samples; ``tell`` hears of each."""
    for sample in samples:
        yield sample
        tell(1)
