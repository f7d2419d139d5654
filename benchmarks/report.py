"""What all.py found, as tables of Markdown and as a plot."""

from __future__ import annotations

import html
from typing import Any


def markdown(found: dict[str, list[Any]], facts: dict[str, Any], kilobytes: tuple[int, ...], format: str) -> str:
    load = f"load {facts['load before']:.1f} before, {facts['load after']:.1f} after"
    head = f"{facts['when']}, {facts['cores']} cores, Python {facts['python']}, torch {facts['torch']}, "
    parts = [f"{head}{load}, {facts['minutes']} minutes.\n"]
    if "photos, 2" in found:
        parts.append(f"Photos ({format}, 768 pixels at most) to 512 x 512, batches of 32:\n")
        parts.append(_photos(found.get("photos, 1", []), found["photos, 2"]))
    if "bytes" in found:
        parts.append("Bytes, CPU us a sample (in brackets: how many times that webdataset takes):\n")
        parts.append(_bytes(found["bytes"], kilobytes))
    return "\n".join(parts)


def _photos(one: list[Any], two: list[Any]) -> str:
    rows: dict[tuple[str, str], dict[int, Any]] = {}
    for each in one + two:
        rows.setdefault((each.who, each.way), {})[each.cores] = each
    head = "| loader | how | one core: images/s | CPU ms an image | two cores: images/s | CPU ms an image |\n"
    lines = [head + "|---|---|---|---|---|---|"]
    for (who, way), cells in sorted(rows.items(), key=_fastest):
        problems = {each.problem for each in cells.values() if each.problem}
        facts = [cell for cores in (1, 2) for cell in _cells(cells.get(cores))]
        note = f" ({'; '.join(sorted(problems))})" if problems else ""
        lines.append(f"| {who} | {way}{_odd(cells)}{note} | " + " | ".join(facts) + " |")
    return "\n".join(lines) + "\n"


def _cells(each: Any) -> list[str]:
    if each is None or not each.turns:
        return ["", ""]
    return [f"{1 / each.median('seconds'):.0f}", f"{each.median('cpu') * 1e3:.2f}"]


def _odd(cells: dict[int, Any]) -> str:
    """What is not as everybody else's."""
    types = {turn["batch"] for each in cells.values() for turn in each.turns.get(0, [])} - {"uint8"}
    return f", {', '.join(sorted(types))}" if types else ""


def _fastest(row: tuple[Any, dict[int, Any]]) -> float:
    found = [each.median("seconds") for each in row[1].values() if each.turns]
    return min(found) if found else float("inf")


def _bytes(every: list[Any], kilobytes: tuple[int, ...]) -> str:
    base = next((each for each in every if each.who == "webdataset"), None)
    lines = ["| loader | how | " + " | ".join(f"{size} kB" for size in kilobytes) + " |"]
    lines.append("|---|---|" + "---|" * len(kilobytes))
    for each in sorted(every, key=lambda each: each.median("cpu", len(kilobytes) // 2) or float("inf")):
        cells = []
        for which in range(len(kilobytes)):
            mine, theirs = each.median("cpu", which), base.median("cpu", which) if base else None
            times = f" ({theirs / mine:.1f})" if mine and theirs else ""
            cells.append(f"{mine * 1e6:.1f}{times}" if mine else "")
        note = f" ({each.problem})" if each.problem else ""
        lines.append(f"| {each.who} | {each.way}{note} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(found: dict[str, list[Any]]) -> str:
    """Bars: images a second on one core and on two, samples of bytes a second of CPU; SVG by hand: it needs nothing."""
    panels = []
    if "photos, 2" in found:
        one, two = (
            {(each.who, each.way): 1 / each.median("seconds") for each in found.get(what, []) if each.turns}
            for what in ("photos, 1", "photos, 2")
        )
        names = sorted(one.keys() | two.keys(), key=lambda name: -max(one.get(name, 0), two.get(name, 0)))
        rows = [(name, [two.get(name, 0), one.get(name, 0)]) for name in names]
        panels.append(("photos to 512 x 512, images a second (dark: two cores, light: one)", rows))
    if "bytes" in found:
        every = [each for each in found["bytes"] if each.turns]
        middle = len(every[0].turns) // 2 if every else 0
        rows = [((each.who, each.way), [1 / each.median("cpu", middle) / 1000]) for each in every]
        panels.append(("bytes, samples of 40 kB: thousands a second of CPU", sorted(rows, key=lambda row: -row[1][0])))
    return _svg(panels)


def _svg(panels: list[tuple[str, list[tuple[tuple[str, str], list[float]]]]]) -> str:
    parts, y, left, width = [], 10, 300, 420
    for title, rows in panels:
        y += 20
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{html.escape(title)}</text>')
        y += 10
        most = max((max(values) for _, values in rows), default=1) or 1
        for (who, way), values in rows:
            colours = ("#1f5f8b", "#a9cbe0") if who == "streampipe" else ("#666", "#ccc")
            parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{html.escape(f"{who}, {way}")}</text>')
            for at, value in enumerate(values):
                high = 16 // len(values)
                long = value / most * width
                parts.append(
                    f'<rect x="{left}" y="{y + at * high}" width="{long:.1f}" height="{high}" fill="{colours[at]}"/>'
                )
            parts.append(f'<text x="{left + max(values) / most * width + 6:.1f}" y="{y + 12}">{max(values):.0f}</text>')
            y += 20
    style = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12"'
    wide, high = left + width + 60, y + 10
    back = f"<title>{html.escape('; '.join(title for title, _ in panels))}</title>"
    back += f'<rect width="{wide}" height="{high}" fill="white"/>'
    return f'<svg {style} viewBox="0 0 {wide} {high}">{back}{"".join(parts)}</svg>\n'
