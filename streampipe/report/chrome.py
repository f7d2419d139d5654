"""A trace file for Perfetto (ui.perfetto.dev) and chrome://tracing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from streampipe.observe import Span


def chrome_trace(spans: Sequence[Span]) -> str:
    """The spans as JSON in the Trace Event Format: complete events in microseconds, a process for each worker.

    >>> json.loads(chrome_trace([Span("worker 0", "MainThread", "decode", 5.0, 0.25, 0.25, "0001")]))["traceEvents"][-1]
    {'ph': 'X', 'name': 'decode', 'pid': 0, 'tid': 0, 'ts': 0.0, 'dur': 250000.0, 'args': {'key': '0001'}}
    """
    start = min((span.began for span in spans), default=0.0)
    processes: dict[str, int] = {}
    threads: dict[tuple[str, str], int] = {}
    events: list[dict[str, Any]] = []
    for span in spans:
        pid = processes.setdefault(span.process, len(processes))
        tid = threads.setdefault((span.process, span.thread), len(threads))
        event = {"ph": "X", "name": span.name, "pid": pid, "tid": tid}
        event |= {"ts": round(1e6 * (span.began - start), 1), "dur": round(1e6 * span.seconds, 1)}
        events.append(event | ({"args": {"key": span.key}} if span.key else {}))
    names = [_named("process_name", pid, 0, name) for name, pid in processes.items()]
    names += [_named("thread_name", processes[process], tid, name) for (process, name), tid in threads.items()]
    return json.dumps({"traceEvents": names + events, "displayTimeUnit": "ms"})


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}
