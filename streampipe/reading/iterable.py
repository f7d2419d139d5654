"""Any iterable as a source of samples: it can only be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from streampipe.context import Position, Run
from streampipe.errors import ConfigError, StageError, StreampipeError
from streampipe.reading.protocol import Samples


class IterableSamples(Samples):
    """A list, a dataset of another library, or a function that gives an iterator.

    Raises:
        ConfigError: it can be iterated only once.
    """

    def __init__(self, samples: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        if not callable(samples) and (isinstance(samples, Iterator) or not isinstance(samples, Iterable)):
            raise ConfigError(
                f"from_iterable needs something that can be iterated once an epoch, not {type(samples).__name__}: "
                f"give a list, an IterableDataset, or a function that returns an iterator"
            )
        self.samples = samples

    def __call__(self, run: Run, epoch: int, views: bool = False, at: Sequence[Any] = ()) -> Iterator[Any]:
        """One epoch of one consumer. It leaves no marks, so there is no place to go on from but the beginning."""
        samples = self.samples() if callable(self.samples) else self.samples
        divide = hasattr(samples, "__len__") and hasattr(samples, "__getitem__")
        consumer = run.consumer
        for number, sample in enumerate(_named(samples)):
            if divide and number % consumer.total != consumer.number:
                continue
            if isinstance(sample, dict) and "__key__" in sample:
                fields = {name: value for name, value in sample.items() if name not in ("__key__", "__url__")}
                given = {name: sample[name] for name in ("__key__", "__url__") if name in sample}
                sample = {**given, "__position__": Position(epoch, 0, number), **fields}
            yield sample

    def identity(self) -> list[Any]:
        """What was given, where that says what it holds."""
        known = isinstance(self.samples, (list, tuple)) or callable(self.samples)
        return [repr(self), self.samples if known else ""]

    def __repr__(self) -> str:
        return f"from_iterable({type(self.samples).__name__})"


def _named(samples: Iterable[Any]) -> Iterator[Any]:
    """The samples; an error of the iterable itself says that it is one."""
    try:
        yield from samples
    except StreampipeError:
        raise
    except Exception as error:
        raise StageError(f"the iterable that from_iterable was given raised {type(error).__name__}: {error}") from error
