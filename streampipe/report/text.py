"""A report as text: the sentence, the consumer's times, a line a stage, what was dropped and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from streampipe.observe.tally import SUMS
from streampipe.report.summary import StageRow, Summary
from streampipe.report.verdict import readers

Counts = Mapping[tuple[str, str], float]
BUCKET = "bucket "
"""How the names of buckets begin: "bucket 832x1216", height x width."""
_WIDTH = 42


def table(found: Summary) -> str:
    """The report of a loader."""
    if not found.batches and not found.counts:
        return "nothing was counted yet"
    lines = [found.verdict, ""]
    lines += _consumer(found)
    lines += _stages(found)
    lines += _bytes(found)
    lines += histogram({BUCKET + name: whats for name, whats in found.buckets.items()})
    if found.slots_filled:
        lines.append(_row("slots filled", f"{found.slots_filled:,} with another sample of the batch once more"))
    for each in (*found.errors, *found.drops):
        examples = f" ({', '.join(str(e) for e in each['examples'][:3])})" if each["examples"] else ""
        lines.append(_row(each["stage"], f"{each['samples']:,} {each['reason']}{examples}"))
    told = {(each["stage"], each["reason"]) for each in (*found.errors, *found.drops)}
    told |= {(each["stage"], "dropped") for each in found.drops}  # the sum of those
    for name, whats in sorted(found.counts.items()):
        left = {what: n for what, n in whats.items() if (name, what) not in told}
        if left:
            lines.append(_row(name, _line(left)))
    return "\n".join(lines)


def _row(name: str, text: str) -> str:
    return f"{name:<{_WIDTH}}{text}"


def _consumer(found: Summary) -> list[str]:
    ms = [f"{name} {1e3 * getattr(found, f'wait_{name}'):.1f}" for name in ("p50", "p95", "p99")]
    first = f", the first after {found.first_batch_seconds[-1]:.2f} s" if found.first_batch_seconds else ""
    lines = [
        _row("loader", f"{found.batches:,} batches, {found.samples:,} samples, {found.rate:,.1f} samples/s{first}"),
        _row(
            "waiting for data",
            f"{100 * found.wait_share:.1f} % of each step ({found.wait_seconds:.2f} s waiting, "
            f"{found.step_seconds:.2f} s in the step); {', '.join(ms)} ms",
        ),
    ]
    if found.background:
        idle = found.idle_seconds / max(found.idle_seconds + found.making_seconds, 1e-9)
        ready = f"{100 * found.ready_share:.0f} % ready"
        lines.append(_row("readers", f"{readers(found)}, idle {100 * idle:.0f} % of the time"))
        lines.append(_row("queue", f"{found.queue_fill:.1f} of {found.queue_size} batches, {ready}"))
    if found.device:
        decoding, copying = found.device_decode_seconds, found.device_copy_seconds
        waiting = f"{found.device_wait_seconds:.2f} s waiting for the loader"
        lines.append(_row(f"on {found.device}", f"{decoding:.2f} s decoding, {copying:.2f} s copying, {waiting}"))
    return lines


def _stages(found: Summary) -> list[str]:
    if not found.stages:
        return []
    lines = [f"{'stage':<26}{'in':>10}{'out':>10}{'own s':>10}{'share':>8}{'waiting s':>11}{'threads':>9}  calls"]
    for row in found.stages:
        threads = f"{row.threads}" if row.threads else "-"
        lines.append(
            f"{row.name[:25]:<26}{row.samples_in:>10,}{row.samples_out:>10,}{row.own_seconds:>10.2f}"
            f"{100 * row.share:>6.0f} %{row.waiting_seconds:>11.2f}{threads:>9}  {_calls(row)}".rstrip()
        )
    if found.other_seconds > 0.001:
        share = 100 * found.other_seconds / max(found.making_seconds, 1e-9)
        lines.append(f"{'other (plan, hand-over)':<26}{'':>20}{found.other_seconds:>10.2f}{share:>6.0f} %")
    return lines


def _calls(row: StageRow) -> str:
    parts = []
    if row.utilisation is not None:
        parts.append(f"threads busy {100 * row.utilisation:.0f} %")
    if row.p50:
        parts.append(f"p50 {1e3 * row.p50:.2f}, p99 {1e3 * row.p99:.2f} ms")
    if row.slowest and row.p99 > 4 * row.p50:
        parts.append(f"slowest {row.slowest[0][1]!r}, {1e3 * row.slowest[0][0]:.0f} ms")
    return ", ".join(parts)


def _bytes(found: Summary) -> list[str]:
    lines = []
    if found.disk_bytes:
        lines.append(_row("disk", f"{found.disk_bytes:,} bytes read in {found.disk_seconds:.2f} s"))
    if found.network_bytes:
        wait = f", {found.network_wait_seconds:.2f} s waited for" if found.network_wait_seconds else ""
        lines.append(_row("network", f"{found.network_bytes:,} bytes in {found.requests:,} requests{wait}"))
    if found.cache_hits or found.cache_downloads:
        lines.append(_row("cache", f"{found.cache_hits:,} hits, {found.cache_downloads:,} downloads"))
    return lines


def render(counts: Counts) -> str:
    """The sum of a process as text: a line for the loaders, a line a name, and the share of each step spent waiting.

    >>> print(render({("step", "calls"): 2, ("step", "seconds"): 0.5, ("loader", "step seconds"): 0.5,
    ...               ("loader", "batches"): 2, ("loader", "samples"): 8, ("loader", "wait seconds"): 0.5}))
    loader                                    2 batches, 8 samples, 0.50 s waited for
    step                                      2 calls, 0.50 s, 250.00 ms each
    waiting for data: 50.0 % of each step (0.50 s waiting, 0.50 s in the step)
    """
    if not counts:
        return "nothing was counted yet"
    by_name: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (name, what), amount in counts.items():
        by_name[name][what] = amount
    lines = []
    loader = by_name.pop("loader", None)
    if loader is not None:
        lines.append(
            f"{'loader':<42}{loader.get('batches', 0):.0f} batches, {loader.get('samples', 0):.0f} samples, "
            f"{loader.get('wait seconds', 0):.2f} s waited for"
        )
    lines += histogram({name: by_name.pop(name) for name in sorted(by_name) if name.startswith(BUCKET)})
    lines += [f"{name:<42}{_line(whats)}" for name, whats in sorted(by_name.items())]
    waited, step = (loader or {}).get("wait seconds", 0), (loader or {}).get("step seconds", 0)
    marked = sum(whats.get("step seconds", 0) for whats in by_name.values())  # by sp.timed(step=True)
    step = marked or step
    if step:
        lines.append(
            f"waiting for data: {waited / (waited + step):.1%} of each step "
            f"({waited:.2f} s waiting, {step:.2f} s in the step)".replace("%", " %")
        )
    return "\n".join(lines)


def histogram(buckets: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line for each bucket, by its size: batches, samples, what was cut off its images, what was left out.

    >>> print(*histogram({"bucket 8x16": {"batches": 2, "samples": 5, "cut": 0.5}}), sep="\\n")
    bucket 8x16 (height x width)              2 batches, 5 samples (100.0 %), 10.0 % of each cut away

    A bucket of clips has a number of frames, too:

    >>> print(*histogram({"bucket 8x16x17": {"batches": 1, "samples": 4}}))
    bucket 8x16x17 (height x width x frames)  1 batches, 4 samples (100.0 %), 0.0 % of each cut away
    """
    total = sum(whats.get("samples", 0) for whats in buckets.values())
    lines = []
    for name, whats in sorted(buckets.items(), key=lambda item: _shape(item[0])):
        samples = whats.get("samples", 0)
        parts = [f"{whats.get('batches', 0):.0f} batches, {samples:.0f} samples ({samples / max(1, total):.1%})"]
        parts.append(f"{whats.get('cut', 0) / max(1, samples):.1%} of each cut away")
        if "left out" in whats:
            parts.append(f"{whats['left out']:.0f} left out")
        sides = "height x width x frames" if len(_numbers(name)) == 3 else "height x width"
        lines.append(f"{f'{name} ({sides})':<42}{', '.join(parts)}".replace("%", " %"))
    return lines


def _shape(name: str) -> tuple[int, float]:
    """Frames, then width to height."""
    height, width, *frames = _numbers(name)
    return (frames[0] if frames else 1), width / height


def _numbers(name: str) -> list[int]:
    """Of a compound bucket, those of the target."""
    return [int(number) for number in name.removeprefix(BUCKET).partition(" ")[0].split("x")]


def _line(whats: Mapping[str, float]) -> str:
    parts = []
    if "calls" in whats:
        parts.append(f"{whats['calls']:.0f} calls")
    if "seconds" in whats:
        parts.append(f"{whats['seconds']:.2f} s")
        if whats.get("calls"):
            parts.append(f"{1e3 * whats['seconds'] / whats['calls']:.2f} ms each")
    for what, amount in sorted(whats.items()):
        if what in SUMS and "seconds" in what:
            parts.append(f"{amount:.2f} {what}")
        elif what not in ("calls", "seconds", "step seconds"):
            parts.append(f"{amount:.10g} {what}")
    return ", ".join(parts)
