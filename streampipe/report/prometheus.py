"""A report for Prometheus, through its client library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streampipe.errors import ConfigError
from streampipe.report.summary import Summary


def show(look: Callable[[], Summary], labels: Mapping[str, str], registry: Any = None) -> None:
    """Let a registry, or the default one, ask for the numbers of a report."""
    collector = Collector(look, labels)
    if registry is None:
        from prometheus_client import REGISTRY as registry
    registry.register(collector)


class Collector:
    """What a registry of ``prometheus_client`` asks when it is scraped: nothing is computed before.

    Raises:
        ConfigError: prometheus_client is not installed.
    """

    def __init__(self, look: Callable[[], Summary], labels: Mapping[str, str]) -> None:
        try:
            from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        except ImportError:
            raise ConfigError(
                "loader.prometheus() needs prometheus_client: pip install 'streampipe[prometheus]'"
            ) from None
        self._counter, self._gauge = CounterMetricFamily, GaugeMetricFamily
        self._look = look
        self._names, self._values = list(labels), list(labels.values())

    def collect(self) -> Iterator[Any]:
        """The metrics as they are now."""
        found = self._look()
        for name, text, value in (
            ("samples", "samples given to the training loop", found.samples),
            ("batches", "batches given to the training loop", found.batches),
            ("wait_seconds", "seconds that the training loop waited for batches", found.wait_seconds),
            ("step_seconds", "seconds between batches", found.step_seconds),
            ("disk_bytes", "bytes read from local files", found.disk_bytes),
            ("network_bytes", "bytes that came over the network", found.network_bytes),
            ("requests", "requests made", found.requests),
            ("cache_hits", "shards found in the cache", found.cache_hits),
            ("slots_filled", "slots of batches filled with a sample once more", found.slots_filled),
        ):
            yield self._one(self._counter(f"streampipe_{name}", text, labels=self._names), [], value)
        for name, text, value in (
            ("wait_share", "share of a step that waits for data", found.wait_share),
            ("queue_fill", "batches that lie ready", found.queue_fill),
        ):
            yield self._one(self._gauge(f"streampipe_{name}", text, labels=self._names), [], value)
        stages = self._counter("streampipe_stage_seconds", "own seconds of a stage", labels=[*self._names, "stage"])
        for row in found.stages:
            self._one(stages, [row.name], row.own_seconds)
        yield stages
        gone = self._counter(
            "streampipe_left_out", "samples dropped or skipped", labels=[*self._names, "stage", "reason"]
        )
        for each in (*found.drops, *found.errors):
            self._one(gone, [each["stage"], each["reason"]], each["samples"])
        yield gone

    def _one(self, family: Any, labels: list[str], value: float) -> Any:
        family.add_metric([*self._values, *labels], value)
        return family
