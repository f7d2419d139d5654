"""A report as one HTML file that needs nothing else: no server, no network."""

from __future__ import annotations

from collections.abc import Sequence

from streampipe.observe import Span
from streampipe.report.html import filled
from streampipe.report.summary import Summary

_MOST = 20_000
"""Spans that a page shows: the longest ones."""


def page(found: Summary, spans: Sequence[Span]) -> str:
    """The page: the sentence, bars by stage, what was dropped, and, of a loader with ``trace=True``, the timeline."""
    shown = sorted(sorted(spans, key=lambda span: -span.seconds)[:_MOST], key=lambda span: span.began)
    start = shown[0].began if shown else 0.0
    rows = list(dict.fromkeys((span.process, span.thread) for span in shown))
    names = list(dict.fromkeys(span.name for span in shown))
    timeline = {
        "rows": [f"{process} · {thread}" if process != thread else process for process, thread in rows],
        "names": names,
        "left_out": len(spans) - len(shown),
        "spans": [
            [
                rows.index((span.process, span.thread)),
                names.index(span.name),
                round(span.began - start, 6),
                round(span.seconds, 6),
                span.key,
            ]
            for span in shown
        ],
    }
    return filled("streampipe.report", "page.html", {"report": found.as_dict(), "timeline": timeline})
