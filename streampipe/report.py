"""What happened, as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

Counts = Mapping[tuple[str, str], float]
BUCKET = "bucket "
"""How the names of buckets begin: "bucket 832x1216", height x width."""
_COLUMNS = ("calls", "seconds")


def render(counts: Counts) -> str:
    """The counts as text: a line for the loader, a line a name, and the share of each step spent waiting for data.

    >>> print(render({("step", "calls"): 2, ("step", "seconds"): 0.5, ("step", "step seconds"): 0.5,
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
    step = sum(whats.get("step seconds", 0) for whats in by_name.values())
    waited = (loader or {}).get("wait seconds", 0)
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
    """
    total = sum(whats.get("samples", 0) for whats in buckets.values())
    lines = []
    for name, whats in sorted(buckets.items(), key=lambda item: _shape(item[0])):
        samples = whats.get("samples", 0)
        parts = [f"{whats.get('batches', 0):.0f} batches, {samples:.0f} samples ({samples / max(1, total):.1%})"]
        parts.append(f"{whats.get('cut', 0) / max(1, samples):.1%} of each cut away")
        if "left out" in whats:
            parts.append(f"{whats['left out']:.0f} left out")
        lines.append(f"{name + ' (height x width)':<42}{', '.join(parts)}".replace("%", " %"))
    return lines


def _shape(name: str) -> float:
    height, _, width = name.removeprefix(BUCKET).partition("x")
    return int(width) / int(height)


def _line(whats: Mapping[str, float]) -> str:
    parts = []
    if "calls" in whats:
        parts.append(f"{whats['calls']:.0f} calls")
    if "seconds" in whats:
        parts.append(f"{whats['seconds']:.2f} s")
        if whats.get("calls"):
            parts.append(f"{1e3 * whats['seconds'] / whats['calls']:.2f} ms each")
    for what, amount in sorted(whats.items()):
        if what not in ("calls", "seconds", "step seconds"):
            parts.append(f"{amount:.10g} {what}")
    return ", ".join(parts)
