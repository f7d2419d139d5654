"""The numbers of a report as values: how a loader ran, what it did, and a row for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

READING = "reading"


@dataclass(frozen=True)
class StageFacts:
    """A stage of the pipeline: its name, its threads in each reader (0: it runs in the reader's own), and whether it
    could have some."""

    name: str
    threads: int = 0
    can_thread: bool = False
    python: bool = False
    """It calls a function of the user's, which may hold Python's lock."""
    foreign: bool = False
    """It is a stage of the user's own."""


@dataclass(frozen=True)
class Facts:
    """How a loader runs: its stages in order, worker processes, threads that make batches (in each worker, or in this
    process), and the cores that all ``ranks`` have together."""

    stages: Sequence[StageFacts] = ()
    workers: int = 0
    threads: int = 0
    prefetch: int = 2
    ranks: int = 1
    cores: int = 1
    remote: bool = False
    device: str = ""
    """Where batches are brought to, by ``to_device``; then they are made in the background in any case."""

    def of_ranks(self, ranks: int) -> Facts:
        """Of so many ranks together, each of which runs like this one."""
        return replace(self, ranks=ranks, cores=self.cores // self.ranks * ranks)

    @property
    def readers(self) -> int:
        """Who makes batches: so many threads or processes."""
        return max(1, self.workers) * max(1, self.threads) * self.ranks

    @property
    def background(self) -> bool:
        """Whether batches are made while the consumer works."""
        return self.workers > 0 or self.threads > 0 or bool(self.device)


@dataclass
class StageRow:
    """A stage. Seconds are sums over all readers; ``busy`` and ``cpu`` those of its own threads."""

    name: str
    samples_in: int = 0
    samples_out: int = 0
    own_seconds: float = 0.0
    waiting_seconds: float = 0.0
    busy_seconds: float = 0.0
    cpu_seconds: float = 0.0
    threads: int = 0
    can_thread: bool = False
    python: bool = False
    foreign: bool = False
    share: float = 0.0
    utilisation: float | None = None
    p50: float = 0.0
    p99: float = 0.0
    slow_calls: float = 0.0
    slow_share: float = 0.0
    slow_times: float = 0.0
    slowest: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Summary:
    """What a loader did, in seconds, shares from 0 to 1, samples a second; ``verdict`` says what to change."""

    batches: int = 0
    samples: int = 0
    wait_seconds: float = 0.0
    step_seconds: float = 0.0
    wait_share: float = 0.0
    wait_p50: float = 0.0
    wait_p95: float = 0.0
    wait_p99: float = 0.0
    first_batch_seconds: list[float] = field(default_factory=list)
    rate: float = 0.0
    consumer_rate: float | None = None
    capacity: float | None = None
    readers: int = 1
    workers: int = 0
    threads: int = 0
    ranks: int = 1
    cores: int = 1
    background: bool = False
    making_seconds: float = 0.0
    made: float = 0.0
    """Samples that took those seconds."""
    idle_seconds: float = 0.0
    timed_share: float = 0.0
    queue_fill: float = 0.0
    queue_size: int = 0
    ready_share: float = 0.0
    disk_bytes: int = 0
    disk_seconds: float = 0.0
    network_bytes: int = 0
    network_wait_seconds: float = 0.0
    requests: int = 0
    cache_hits: int = 0
    cache_downloads: int = 0
    slots_filled: int = 0
    remote: bool = False
    device: str = ""
    device_decode_seconds: float = 0.0
    device_copy_seconds: float = 0.0
    device_wait_seconds: float = 0.0
    device_share: float = 0.0
    stages: list[StageRow] = field(default_factory=list)
    other_seconds: float = 0.0
    drops: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    buckets: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, dict[str, float]] = field(default_factory=dict)
    limit: str = ""
    verdict: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
