"""Shards as a source of samples: what one consumer reads in one epoch, in order. Sequential tier."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from streampipe.context import Run, Sample
from streampipe.counters import counters
from streampipe.errors import ShardError
from streampipe.order import windowed
from streampipe.plan import deal, sample_seed, shard_seed
from streampipe.samples import group
from streampipe.source import Source, redact
from streampipe.tar import Limits, Member, compression_of, decompress, read_members, stream_members
from streampipe.urls import ShardList


class ShardSamples:
    """The samples of a list of shards. Calling it with a run and an epoch reads one consumer's share."""

    def __init__(self, shards: ShardList, source: Source, window: int | None, limits: Limits) -> None:
        self.shards = shards
        self.source = source
        self.window = window  # None: shard order; 0: shards shuffled, samples not; else the shuffle's window
        self.limits = limits

    def __call__(self, run: Run, epoch: int, views: bool = False) -> Iterator[Sample]:
        """One epoch of one consumer. Fields are bytes; with ``views`` they may be memoryviews of a shard."""
        if not self.window:
            return self._in_order(run, epoch, views)
        # The heap holds references into mapped shards where it can; bytes are made only of what it gives out.
        seed = sample_seed(run.seed, epoch, run.consumer)
        shuffled = windowed(self._in_order(run, epoch, True), self.window, seed)
        return shuffled if views else map(to_bytes, shuffled)

    def _in_order(self, run: Run, epoch: int, views: bool) -> Iterator[Sample]:
        seed = None if self.window is None else shard_seed(run.seed, epoch)
        for portion in deal(len(self.shards), run.consumer, seed):
            url = self.shards[portion.shard]
            shown = redact(url)
            try:
                yield from group(
                    self._members(url, shown),
                    shown,
                    epoch=epoch,
                    shard=portion.shard,
                    part=portion.part,
                    parts=portion.parts,
                    views=views,
                    limits=self.limits,
                )
            except ShardError as error:
                run.policy.failed(error, "reading")
            else:
                run.policy.passed("reading")
                counters.add("reading", "shards", 1 / portion.parts)

    def _members(self, url: str, shown: str) -> Iterator[Member]:
        data = self.source.buffer(url)
        if data is not None and compression_of(url, bytes(data[:8])) is None:
            return read_members(data, shard=shown, limits=self.limits)
        chunks = self.source.chunks(url)
        head = next(chunks, b"")
        whole: Iterator[bytes] = chain([head] if head else [], chunks)
        kind = compression_of(url, head[:8])
        if kind is not None:
            whole = decompress(whole, shard=shown, kind=kind, limits=self.limits)
        return stream_members(whole, shard=shown, limits=self.limits)


def to_bytes(sample: Sample) -> Sample:
    """The sample with every memoryview copied into bytes, in place."""
    for name, value in sample.items():
        if type(value) is memoryview:
            sample[name] = bytes(value)
    return sample
