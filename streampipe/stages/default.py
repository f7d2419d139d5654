"""``default``: fields that some samples lack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, Sample, blame
from streampipe.counters import counters
from streampipe.errors import ConfigError, StreampipeError
from streampipe.stages.stage import stage


def _checked(fields: Mapping[str, Any]) -> None:
    if not fields:
        raise ConfigError("default: name the fields that may be missing, as in default(weight=1.0)")
    for name in fields:
        if not name or name.startswith("__"):
            raise ConfigError(f"default: {name!r} is metadata, which samples bring along; name a field")


@stage(rows="each", state="nothing", views=True, check=_checked)
def default(samples: Iterable[Sample], fields: Mapping[str, Any], *, run: Run = FILLED_IN) -> Iterator[Sample]:
    """Each sample with the fields that it lacks, so that all can share a batch: ``default(weight=1.0, txt="")``.

    A value is given as it is, the same object to every sample. A function is given the sample, and returns the value:
    a mask of the image's shape, so that ``batch`` can stack them, which it cannot with None. What is there stays, even
    None. How many samples lacked a field is counted.

    Raises:
        StageError: a function raised; or skipped, if ``on_error`` says so.

    >>> white = lambda sample: [255] * len(sample["image"])
    >>> list(default(fields={"mask": white})([{"image": [1, 2]}, {"image": [3], "mask": [0]}]))
    [{'image': [1, 2], 'mask': [255, 255]}, {'image': [3], 'mask': [0]}]
    """
    for sample in samples:
        missing = [name for name in fields if name not in sample]
        if missing:
            try:
                made = {name: fields[name](sample) if callable(fields[name]) else fields[name] for name in missing}
            except Exception as error:
                run.policy.failed(_placed(error, run, sample), run.stage)
                continue
            sample = {**sample, **made}
            for name in missing:
                counters.add(run.stage, f"{name} filled in")
        run.policy.passed(run.stage)
        yield sample


def _placed(error: Exception, run: Run, sample: Sample) -> StreampipeError:
    """The error with its place."""
    placed = blame(error, run.stage, sample)
    if placed is not error:
        placed.__cause__ = error
    return placed
