"""``bucket``: each image's aspect-ratio bucket, and batches of one bucket each, made of encoded samples.

Alone, the stage writes down the size that a sample's images will have. With ``batch`` behind it, samples wait in one
pool a bucket, as bytes, until a pool holds a batch; such a group then goes through the stages up to ``batch`` by
itself. So nothing decoded ever waits, no batch mixes buckets, and the slot of a sample that fails is filled from its
own group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import log
from typing import Any, NamedTuple

import numpy as np

from streampipe import traits
from streampipe.context import FILLED_IN, Run, Sample, key_of, where
from streampipe.counters import counters
from streampipe.decoding.several import apart
from streampipe.errors import ConfigError, SampleError, StageError
from streampipe.index.facts import EDGES, facts_of
from streampipe.index.stated import differs, stated_size
from streampipe.plan.buckets import MISSTATED, Buckets, name_of
from streampipe.plan.compound import LACKS, Compound, Signature, told
from streampipe.plan.groups import check_leftover
from streampipe.plan.leftovers import merge
from streampipe.plan.ratios import cut_away, log_ratios
from streampipe.plan.shapes import Size
from streampipe.stages.stage import stage
from streampipe.stages.values import LEFTOVERS, check_choice, check_flag

MAX_BYTES = 1 << 30
_STATED = (("json.height", "json.width"),)


def _check(buckets: Any, tail: Any, same: Any, max_bytes: Any) -> None:
    if not isinstance(buckets, Buckets):
        raise ConfigError(f"bucket: buckets is an sp.Buckets, not {buckets!r:.80}")
    check_choice("bucket", "tail", tail, LEFTOVERS)
    if tail == "merge" and isinstance(buckets, Compound):
        raise ConfigError("bucket: tail='merge' would put other signatures into a batch: choose 'carry' or 'drop'")
    check_leftover(tail, buckets)
    if same is not None:
        check_flag("bucket", "same", same)
    if not isinstance(max_bytes, int) or max_bytes < 1:
        raise ConfigError(f"max_bytes is what may wait for full batches, 1 or more bytes, not {max_bytes!r}")


def _push(options: Mapping[str, Any]) -> traits.Group:
    return traits.Group(**options)


@stage(rows="fewer", state="nothing", takes="samples", views=True, check=_check, pushdown=_push)
def bucket(
    samples: Iterable[Sample],
    buckets: Buckets,
    *,
    tail: str = "carry",
    same: bool | None = None,
    max_bytes: int = MAX_BYTES,
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """Each sample with ``__size__``, the (height, width) of its bucket. Beyond ``max_ar`` samples are dropped, counted.

    The size of a sample is that of its first image, as shown (after EXIF orientation), by its header; of one without an
    image, ``width`` and ``height`` of its json member.

    Raises:
        StageError: a sample has neither, or its image is decoded already.

    >>> list(bucket(buckets=Buckets([(8, 8), (4, 16)]))([{"__key__": "a", "json": b'{"width": 30, "height": 10}'}]))
    [{'__key__': 'a', 'json': b'{"width": 30, "height": 10}', '__size__': (4, 16)}]
    """
    sizes = buckets.sizes if not isinstance(buckets, Compound) else []
    for each in assigned(samples, buckets, run, sizes):
        yield {**each.sample, "__size__": told(sizes[each.bucket])}


class Assigned(NamedTuple):
    """A sample, the number of its bucket, and its log aspect ratio."""

    sample: Sample
    bucket: int
    ratio: float


def assigned(
    samples: Iterable[Sample], buckets: Buckets, run: Run, sizes: Sequence[tuple[int, ...]]
) -> Iterator[Assigned]:
    """The samples that have a bucket, which are numbered as ``sizes`` are: compound ones as they come."""
    numbers: dict[Size, int] = {}
    for sample in samples:
        try:
            (h, w), facts = _size_of(sample, run.stage)
            if isinstance(buckets, Compound):
                number = _signed(sample, buckets, h, w, facts, numbers, run.stage)
            else:
                number = buckets.of(h, w, _frames_of(sample, buckets, run.stage))
        except SampleError as error:
            run.policy.failed(error, run.stage)
            continue
        run.policy.passed(run.stage)
        if isinstance(sizes, list) and number == len(sizes):
            sizes.append(next(reversed(numbers)))
        if number < 0:
            counters.add(run.stage, f"dropped ({buckets.outside})", example=key_of(sample))
            continue
        yield Assigned(sample, number, log(w) - log(h))


def _frames_of(sample: Sample, buckets: Buckets, stage_name: str) -> int:
    """How many frames a sample has: a clip its own, all others one."""
    clip = sample.get("__clip__")
    if clip is not None and buckets.frames is None:
        raise ConfigError(
            f"stage {stage_name!r}: samples are clips, and the buckets have no frames: say sp.Buckets(..., frames=)"
        )
    return 1 if clip is None else int(clip.frames)


def _signed(
    sample: Sample, buckets: Compound, h: int, w: int, facts: dict[str, Any], numbers: dict[Size, int], stage_name: str
) -> int:
    """The number of a sample's signature; a new one for one that is seen for the first time."""
    height, width = EDGES
    names = [name.removesuffix(f".{height}") for name in facts if name.endswith(f".{height}")]
    others = {name: (facts[f"{name}.{height}"], facts.get(f"{name}.{width}", 0)) for name in names}
    found = buckets.of_sizes(h, w, others)
    if found == LACKS:
        wanted = " or ".join(name for name, _ in buckets.rules)
        raise StageError(
            f"stage {stage_name!r}, {where(sample)}: it lacks {wanted}, or the size of one cannot be read; say "
            f"sp.Compound(..., missing='keep') or 'drop', or skip such samples with on_error='skip'"
        )
    return numbers.setdefault(found, len(numbers)) if isinstance(found, Signature) else -1


def _size_of(sample: Sample, stage_name: str) -> tuple[Size, dict[str, Any]]:
    facts = facts_of(sample)
    if "__clip__" in sample and facts.get("video.width"):
        return (facts["video.height"], facts["video.width"]), facts
    if facts["width"] and facts["height"]:
        _check_stated(facts, stage_name)
        return (facts["height"], facts["width"]), facts
    stated = stated_size(facts, _STATED)
    if stated is not None:
        return stated, facts
    raise StageError(
        f"stage {stage_name!r}, {where(sample)}: there is no image, or none whose size can be read, and no width and "
        f"height in its json; bucket stands before decode; skip such samples with on_error='skip'"
    )


def _check_stated(facts: dict[str, Any], stage_name: str) -> None:
    """Count a json member that states another size than the image's header; the header is believed."""
    stated = stated_size(facts, _STATED)
    if stated is not None and differs(stated, (facts["height"], facts["width"])):
        counters.add(stage_name, MISSTATED)


class Group(NamedTuple):
    """The samples of a batch, the name of their bucket for the report, and the shares that are cut off, summed."""

    name: str
    samples: list[Sample]
    lost: float


class Pools:
    """Samples that wait for a batch of their bucket. What goes in comes out: in a group, or counted.

    Args:
        sizes: samples in a batch of each bucket; of a compound one, by its signature.
        leftover: ``carry`` (short groups at the end), ``merge`` (neighbours share groups at the end) or ``drop``.
        max_bytes: beyond it the largest pool must go before it is full: as a short group, or under ``drop`` left out;
            under ``merge`` all pools are merged.
    """

    def __init__(
        self, buckets: Buckets, sizes: Sequence[int] | Callable[[Any], int], leftover: str, max_bytes: int, run: Run
    ) -> None:
        check_leftover(leftover, buckets)
        self._buckets = buckets
        self._sizes = sizes
        self._leftover = leftover
        self._max_bytes = max_bytes
        self._run = run
        self._shapes = [] if isinstance(buckets, Compound) else buckets.sizes  # compound ones as they come
        self._pools: list[list[Assigned]] = [[] for _ in self._shapes]
        self._bytes = [0] * len(self._shapes)

    def groups(self, samples: Iterable[Sample]) -> Iterator[Group]:
        """Groups of samples, each of one bucket; ``__size__`` is written into them."""
        for each in assigned(samples, self._buckets, self._run, self._shapes):
            number = each.bucket
            if number == len(self._pools):
                self._pools.append([])
                self._bytes.append(0)
            self._pools[number].append(each)
            self._bytes[number] += bytes_in(each.sample)
            if len(self._pools[number]) == self._batch(number):
                yield self._out(number, self._taken(number))
            elif sum(self._bytes) > self._max_bytes:
                yield from self._relieved()
        yield from self._ended()

    def _batch(self, number: int) -> int:
        """How many samples make a batch of a bucket."""
        return self._sizes(self._shapes[number]) if callable(self._sizes) else self._sizes[number]

    def _relieved(self) -> Iterator[Group]:
        if self._leftover == "merge":
            counters.add(self._run.stage, "times that max_bytes merged all pools")
            yield from self._merged()
            return
        largest = int(np.argmax(self._bytes))
        if self._leftover == "drop":
            self._left_out(largest)
        else:
            counters.add(self._run.stage, "batches cut short by max_bytes")
            yield self._out(largest, self._taken(largest))

    def _ended(self) -> Iterator[Group]:
        if self._leftover == "merge":
            yield from self._merged()
            return
        for number, pool in enumerate(self._pools):
            if pool and self._leftover == "drop":
                self._left_out(number)
            elif pool:
                counters.add(self._run.stage, "short batches at the end")
                yield self._out(number, self._taken(number))

    def _merged(self) -> Iterator[Group]:
        pools = [self._taken(number) for number in range(len(self._pools))]
        assert not callable(self._sizes)
        for batch in merge(self._buckets, [len(pool) for pool in pools], self._sizes):
            members = [each for b, first, count in batch.pieces for each in pools[b][first : first + count]]
            counters.add(self._run.stage, "merged batches")
            yield self._out(batch.target, members)

    def _taken(self, number: int) -> list[Assigned]:
        pool, self._pools[number] = self._pools[number], []
        self._bytes[number] = 0
        return pool

    def _left_out(self, number: int) -> None:
        counters.add(name_of(self._shapes[number]), "left out", len(self._taken(number)))

    def _out(self, target: int, members: list[Assigned]) -> Group:
        size = self._shapes[target]
        lost = cut_away(np.array([each.ratio for each in members]), log_ratios([size])[0])
        samples = [{**each.sample, "__size__": told(size)} for each in members]
        return Group(name_of(size), samples, float(lost.sum()))


def count_batch(group: Group) -> None:
    """Count a batch for the histogram of ``report``."""
    counters.add(group.name, "batches")
    counters.add(group.name, "samples", len(group.samples))
    counters.add(group.name, "cut", group.lost)


def bytes_in(sample: Sample) -> int:
    """The bytes of a sample's fields."""
    values = apart(sample).values()
    return sum(len(value) for value in values if isinstance(value, (bytes, bytearray, memoryview)))
