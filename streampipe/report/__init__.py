"""What a loader did and where the time went: as text, JSON, a page, a trace file, metrics, and one sentence."""

from streampipe.report.chrome import chrome_trace
from streampipe.report.metrics import metrics
from streampipe.report.page import page
from streampipe.report.seen import Seen, merged, on_device
from streampipe.report.summarize import summarize
from streampipe.report.summary import Facts, StageFacts, Summary
from streampipe.report.text import render, table

__all__ = [
    "Facts",
    "Seen",
    "StageFacts",
    "Summary",
    "chrome_trace",
    "merged",
    "metrics",
    "on_device",
    "page",
    "render",
    "summarize",
    "table",
]
