"""From what was counted to the numbers of a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from streampipe.counters import Counts
from streampipe.observe.tally import SUMS
from streampipe.report.seen import DEVICE, DEVICE_LOOP, LOADER, Seen
from streampipe.report.summary import READING, Facts, StageFacts, StageRow, Summary
from streampipe.report.verdict import judge

DISK, READER, BUCKET = "reading files", "making batches", "bucket "  # no stage is named so
NETWORK, NETWORK_TIMED = (
    "network seconds",
    "timed network seconds",
)  # of the reader: all waits, and those in timed items
WAIT = "wait seconds"
_SLOW = (32, 16, 8, 4)  # times the median, from which on a call is slow: the first of which there are enough to matter
_MATTERS = 0.4  # of a stage's time


def summarize(seen: Seen, facts: Facts) -> Summary:
    """The numbers and the verdict."""
    found = _consumer(seen, facts)
    sums = seen.counted.sums
    found.stages = _stages(seen, facts, found)
    inside = sum(row.own_seconds for row in found.stages)
    found.other_seconds = max(0.0, found.making_seconds - inside)
    found.network_bytes = int(sums.get(("network", "bytes"), 0))
    found.network_wait_seconds = sums.get((READING, WAIT), 0.0)
    found.requests = int(sums.get(("network", "requests"), 0))
    found.cache_hits = int(sums.get(("cache", "hits"), 0))
    found.cache_downloads = int(sums.get(("cache", "downloads"), 0))
    found.slots_filled = int(sum(n for (_, what), n in sums.items() if what == "slots filled"))
    found.disk_bytes = int(sums.get((DISK, "bytes"), 0))
    found.disk_seconds = sums.get((DISK, "busy seconds"), 0.0) * _Times(sums, found).scale
    _on_device(found, seen, facts)
    found.drops = _reasons(
        seen, lambda name, what: name != "skipped" and "dropped" in what and what != "captions dropped"
    )
    found.errors = _reasons(seen, lambda name, what: name == "skipped" or what == "errors")
    found.counts, found.buckets = _counts(sums, [row.name for row in found.stages])
    found.limit, found.verdict = judge(found)
    return found


def _consumer(seen: Seen, facts: Facts) -> Summary:
    sums = seen.counted.sums
    mine = {what: n for (name, what), n in sums.items() if name == LOADER}
    reader = {what: n for (name, what), n in sums.items() if name == READER}
    batches, samples = int(mine.get("batches", 0)), int(mine.get("samples", 0))
    wait, step = mine.get("wait seconds", 0.0), mine.get("step seconds", 0.0)
    making, idle = reader.get("busy seconds", 0.0), reader.get("waiting seconds", 0.0)
    wall = max((wait + step) / facts.ranks, 1e-9)
    after = max(1, batches - len(seen.first))
    begun = batches > max(4, 2 * len(seen.first))  # the first of a pass says nothing of the others: it is told apart
    steady = max(0.0, wait - sum(seen.first)) if begun else wait
    counted = samples * (after / batches if begun else 1)
    found = Summary(
        batches=batches,
        samples=samples,
        wait_seconds=wait,
        step_seconds=step,
        wait_share=steady / max(steady + step, 1e-9),
        wait_p50=seen.waits.quantile(0.5),
        wait_p95=seen.waits.quantile(0.95),
        wait_p99=seen.waits.quantile(0.99),
        first_batch_seconds=[round(each, 4) for each in seen.first],
        rate=counted / max((steady + step) / facts.ranks, 1e-9),
        consumer_rate=samples * facts.ranks / step if step > 1e-6 else None,
        readers=facts.readers,
        workers=facts.workers,
        threads=facts.threads,
        ranks=facts.ranks,
        cores=facts.cores,
        background=facts.background,
        making_seconds=making,
        idle_seconds=idle if facts.background else 0.0,
        timed_share=min(1.0, reader.get("own seconds", 0.0) / making) if making else 0.0,
        queue_fill=mine.get("lay ready seconds", 0.0) / wall if facts.background else 0.0,
        queue_size=_queue_size(facts),
        ready_share=mine.get("ready", 0) / after,
        remote=facts.remote,
    )
    found.made = reader.get("samples in", 0) * samples / max(batches, 1) or samples
    if making:
        found.capacity = found.made / making * (facts.readers if facts.background else 1)
    return found


def _queue_size(facts: Facts) -> int:
    if facts.device:
        return facts.prefetch
    return max(facts.prefetch, facts.threads) * max(1, facts.workers) if facts.background else 0


def _on_device(found: Summary, seen: Seen, facts: Facts) -> None:
    """What decoding and copying took, and the share of the time that the busier of the two threads had to do."""
    times = {what: n for (name, what), n in seen.counted.sums.items() if name == DEVICE}
    opening, cutting = times.get("open seconds", 0.0), times.get("cut seconds", 0.0)
    found.device, found.device_wait_seconds = facts.device, times.get("waiting seconds", 0.0)
    found.device_decode_seconds, found.device_copy_seconds = opening + cutting, times.get("copy seconds", 0.0)
    whole = max(found.wait_seconds + found.step_seconds, 1e-9)
    found.device_share = min(1.0, max(opening, cutting + found.device_copy_seconds) / whole)


class _Times:
    """How the seconds of items that were timed tell those of all. Waits for the network are known of every item,
    timed or not: only what is left is scaled up.
    """

    def __init__(self, sums: Counts, found: Summary) -> None:
        self._waited, self._timed_waits = (sums.get((READER, what), 0.0) for what in (NETWORK, NETWORK_TIMED))
        timed = found.timed_share * found.making_seconds - self._timed_waits
        self.scale = max(0.0, found.making_seconds - self._waited) / timed if timed > 1e-9 else 0.0

    def of(self, seconds: float) -> float:
        """All seconds of what waits for the network, too."""
        if seconds == 0 and not self._waited:
            return 0.0
        return max(0.0, seconds - self._timed_waits) * self.scale + self._waited


def _stages(seen: Seen, facts: Facts, found: Summary) -> list[StageRow]:
    """Reading, and then the stages in their order; behind them those that only a part of a mixture has."""
    sums, times = seen.counted.sums, _Times(seen.counted.sums, found)
    scale = times.scale
    known = {each.name: each for each in facts.stages}
    there = [name for name, what in sums if what == "samples out" and name not in (READER, READING)]
    names = [READING, *known, *sorted(set(there) - set(known))]
    rows = []
    for name in names:
        of = {what: sums.get((name, what), 0) for what in SUMS}
        if not any(of.values()):
            continue
        stage = known.get(name, StageFacts(name))
        row = StageRow(
            name,
            int(of["samples in"]),
            int(of["samples out"]),
            times.of(of["own seconds"]) if name == READING else of["own seconds"] * scale,
            of["waiting seconds"] * scale if name == READING else times.of(of["waiting seconds"]),
            of["busy seconds"] * scale,
            of["cpu seconds"] * scale,
            stage.threads,
            stage.can_thread,
            stage.python,
            stage.foreign,
        )
        row.share = min(1.0, row.own_seconds / max(found.making_seconds, 1e-9))
        if stage.threads and row.busy_seconds:
            row.utilisation = min(1.0, row.busy_seconds / max(stage.threads * found.making_seconds, 1e-9))
        _slow_calls(row, seen)
        rows.append(row)
    return rows


def _slow_calls(row: StageRow, seen: Seen) -> None:
    """How long its calls take, and which share of the time those have that take several times as long as the others."""
    every_took = seen.counted.took
    took = every_took.get((row.name, "calls")) or every_took.get((row.name, "own"))
    if took is None:
        return
    times = took.durations
    row.p50, row.p99 = times.quantile(0.5), times.quantile(0.99)
    row.slowest = [(slow.seconds, slow.key) for slow in took.slowest]
    for often in _SLOW:
        number, seconds, every = times.above(often * row.p50)
        if seconds > _MATTERS * every:
            break
    row.slow_calls, row.slow_share = number / max(1, times.number), seconds / max(every, 1e-9)
    others = (every - seconds) / max(1, times.number - number)
    row.slow_times = seconds / max(1, number) / max(others, 1e-9)


def _reasons(seen: Seen, wanted: Callable[[str, str], bool]) -> list[dict[str, Any]]:
    sums = seen.counted.sums
    parted = {name for (name, what), n in sums.items() if n and what.startswith("dropped because ")}
    found = [
        {"stage": name, "reason": what, "samples": int(n), "examples": seen.counted.examples.get((name, what), [])}
        for (name, what), n in sums.items()
        if n and wanted(name, what) and not (what == "dropped" and name in parted)  # the sum of its parts
    ]
    return sorted(found, key=lambda each: (-int(str(each["samples"])), str(each["stage"])))


def _counts(sums: Counts, stages: Sequence[str]) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """What else was counted, and the buckets."""
    others: defaultdict[str, dict[str, float]] = defaultdict(dict)
    buckets: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (name, what), n in sums.items():
        if name.startswith(BUCKET):
            buckets[name.removeprefix(BUCKET)][what] = n
        elif name in (LOADER, READER, DISK, DEVICE, DEVICE_LOOP) or (name in stages and what in (*SUMS, WAIT)):
            continue
        else:
            others[name][what] = n
    return dict(others), dict(buckets)
