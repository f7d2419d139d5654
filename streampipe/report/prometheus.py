"""Reports for Prometheus, through its client library.

Strategy: a registry takes each name once, so it has one collector, which shows all loaders. One with the labels of
another takes its place, as after a restart, and one that is gone is shown no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary, WeakMethod

from streampipe.errors import ConfigError
from streampipe.report.summary import Summary

_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_OWN = ("stage", "reason")
_COUNTERS = {
    "samples": "samples given to the training loop",
    "batches": "batches given to the training loop",
    "wait_seconds": "seconds that the training loop waited for batches",
    "step_seconds": "seconds between batches",
    "disk_bytes": "bytes read from local files",
    "network_bytes": "bytes that came over the network",
    "requests": "requests made",
    "cache_hits": "shards found in the cache",
    "slots_filled": "slots of batches filled with a sample once more",
}
_GAUGES = {"wait_share": "share of a step that waits for data", "queue_fill": "batches that lie ready"}
_collectors: WeakKeyDictionary[Any, Collector] = WeakKeyDictionary()  # by registry


def show(look: Callable[[], Summary], labels: Mapping[str, object], registry: Any = None) -> None:
    """Let a registry, or the default one, ask for the numbers of a report, as long as who has it lives.

    Args:
        look: a method, of which only its object's life counts.

    Raises:
        ConfigError: prometheus_client is not installed; a label's name is none, or one that is used here.
    """
    for name in labels:
        if name in _OWN or not _LABEL.fullmatch(name):
            raise ConfigError(
                f"loader.prometheus: {name!r} is no label for a loader: a label is letters, digits and _, as in "
                f"loader='train', and {' and '.join(_OWN)} are taken"
            )
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        raise ConfigError("loader.prometheus() needs prometheus_client: pip install 'streampipe[prometheus]'") from None
    registry = REGISTRY if registry is None else registry
    collector = _collectors.get(registry)
    if collector is None:
        collector = Collector()
        registry.register(collector)
        _collectors[registry] = collector
    collector.add(_Shown(look, {name: str(value) for name, value in labels.items()}))


class _Shown:
    """A loader with its labels."""

    def __init__(self, look: Callable[[], Summary], labels: dict[str, str]) -> None:
        self.look = WeakMethod(look)
        self.labels = labels
        self._most: dict[str, float] = {}

    def never_less(self, stage: str, seconds: float) -> float:
        """The seconds of a stage. They are estimated from a part of the items, so they may fall, which Prometheus would
        take for a restart.
        """
        most = self._most[stage] = max(seconds, self._most.get(stage, 0.0))
        return most


class Collector:
    """What a registry of ``prometheus_client`` asks when it is scraped: nothing is computed before."""

    def __init__(self) -> None:
        self._shown: dict[tuple[tuple[str, str], ...], _Shown] = {}

    def add(self, shown: _Shown) -> None:
        """One more loader, or one in the place of another."""
        self._shown[tuple(sorted(shown.labels.items()))] = shown

    def collect(self) -> Iterator[Any]:
        """The metrics as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found = [(each, look()) for each in list(self._shown.values()) if (look := each.look()) is not None]
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"streampipe_{name}", text)
            for shown, summary in found:
                counter.add_sample(f"streampipe_{name}_total", shown.labels, getattr(summary, name))
            yield counter
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"streampipe_{name}", text)
            for shown, summary in found:
                gauge.add_sample(f"streampipe_{name}", shown.labels, getattr(summary, name))
            yield gauge
        stages = CounterMetricFamily("streampipe_stage_seconds", "own seconds of a stage")
        gone = CounterMetricFamily("streampipe_left_out", "samples dropped or skipped")
        for shown, summary in found:
            for row in summary.stages:
                labels = {**shown.labels, "stage": row.name}
                stages.add_sample(f"{stages.name}_total", labels, shown.never_less(row.name, row.own_seconds))
            for each in (*summary.drops, *summary.errors):
                labels = {**shown.labels, "stage": each["stage"], "reason": each["reason"]}
                gone.add_sample(f"{gone.name}_total", labels, each["samples"])
        yield stages
        yield gone
