"""A report as flat numbers, for TensorBoard, wandb and the like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from streampipe.errors import ConfigError
from streampipe.report.summary import Summary

Logger = Callable[[Mapping[str, float], int], Any]
"""What is called with metrics and the number of the step, as ``wandb.log`` is."""


class HasScalars(Protocol):
    """TensorBoard's ``SummaryWriter``, as far as it is looked at."""

    def add_scalar(self, tag: str, value: float, step: int) -> None: ...


def metrics(found: Summary) -> dict[str, float]:
    """Numbers by name, all beginning with ``data/``. Shares are from 0 to 1, times in seconds.

    >>> metrics(Summary(batches=3, rate=12.5))["data/samples_per_second"]
    12.5
    """
    numbers = {
        "data/samples_per_second": found.rate,
        "data/wait_share": found.wait_share,
        "data/wait_p50": found.wait_p50,
        "data/wait_p95": found.wait_p95,
        "data/wait_p99": found.wait_p99,
        "data/queue_fill": found.queue_fill,
        "data/samples": float(found.samples),
        "data/dropped": float(sum(each["samples"] for each in found.drops)),
        "data/skipped": float(sum(each["samples"] for each in found.errors)),
        "data/disk_bytes": float(found.disk_bytes),
        "data/network_bytes": float(found.network_bytes),
        "data/requests": float(found.requests),
    }
    for row in found.stages:
        numbers[f"data/stage/{row.name}/share"] = row.share
    return numbers


def logger_of(target: Logger | HasScalars) -> Logger:
    """Something to call with metrics and a step: it itself, or what hands them to its ``add_scalar``.

    Raises:
        ConfigError: it is neither.
    """
    scalar = getattr(target, "add_scalar", None)
    if scalar is not None:

        def log(numbers: Mapping[str, float], step: int) -> None:
            for name, value in numbers.items():
                scalar(name, value, step)

        return log
    if callable(target):
        return target
    raise ConfigError(
        f"loader(callbacks=) takes functions of (metrics, step), as wandb.log is, or writers with add_scalar, as "
        f"TensorBoard's, not {type(target).__name__}"
    )
