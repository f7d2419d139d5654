"""webdataset's words over a pipeline, for code that is moved over step by step: tuples, ``to_tuple``, ``with_epoch``.

``WebDataset(urls, shardshuffle=100).decode("torchrgb").to_tuple("jpg", "cls").batched(16)`` runs as it was written. It
is a ``Pipeline`` with webdataset's methods beside its own, so each stage may be replaced by its counterpart in turn;
``docs/webdataset.md`` has them side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from streampipe.combine import mix
from streampipe.context import FILLED_IN, Run
from streampipe.decoding import is_image_field
from streampipe.errors import ConfigError
from streampipe.pipeline import Pipeline
from streampipe.spelling import no_name
from streampipe.stages.fields import find
from streampipe.stages.stage import stage
from streampipe.stream import stream

__all__ = ["RandomMix", "WebDataset", "WebLoader", "map_tuple", "to_tuple"]

_DECODED = {
    "torch": ("tensor", True),
    "torchrgb": ("tensor", True),
    "torchrgb8": ("tensor", False),
    "rgb": ("numpy", True),
    "rgb8": ("numpy", False),
    "pil": ("pil", False),
    "pilrgb": ("pil", False),
}
"""webdataset's names of image decoders: the output here, and whether it is scaled to 0 to 1."""


@stage(rows="each", state="nothing", takes="samples")
def to_tuple(samples: Iterable[dict[str, Any]], fields: Sequence[str], *, run: Run = FILLED_IN) -> Iterator[Any]:
    """Each sample as a tuple of the named fields, ``"jpg;png"`` being the first that is there.

    >>> list(to_tuple(fields=("jpg;png", "cls"))([{"__key__": "a", "png": 1, "cls": 2}]))
    [(1, 2)]
    """
    for sample in samples:
        yield tuple(sample[find(sample, field, run.stage)] for field in fields)


@stage(rows="each", state="nothing")
def map_tuple(items: Iterable[Any], functions: Sequence[Callable[[Any], Any] | None]) -> Iterator[Any]:
    """Each tuple with a function over each of its entries; None, or none at all, leaves an entry as it is.

    >>> list(map_tuple(functions=(str.upper, None))([("a", 1)]))
    [('A', 1)]
    """
    for item in items:
        changed = [fn(each) if fn is not None else each for fn, each in zip(functions, item, strict=False)]
        yield (*changed, *item[len(functions) :])


class WebDataset(Pipeline):
    """A pipeline that is made and extended as ``wds.WebDataset`` is.

    Args:
        urls: as for ``sp.stream``.
        shardshuffle: shards in a new order every epoch; a number is taken for True.
        resampled: an endless stream; give it a length by ``with_epoch``. Shards are not drawn with replacement: each
            comes once in every epoch.
        seed, options: as for ``sp.stream``.
    """

    def __init__(
        self,
        urls: Any,
        *,
        shardshuffle: bool | int | None = False,
        resampled: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if isinstance(urls, Pipeline):
            options |= {"shardshuffle": shardshuffle, "resampled": resampled, "seed": seed}
            if given := [name for name, value in options.items() if value]:
                raise ConfigError(f"WebDataset: {given[0]}= is of the pipeline that is given: say it there")
            made = urls
        else:
            epochs = None if resampled else options.pop("epochs", 1)
            made = stream(urls, seed=seed, epochs=epochs, shuffle=bool(shardshuffle), **options)
        spec = made.spec
        super().__init__(spec.source, spec.chain, seed=spec.seed, epochs=spec.epochs, policy=spec.policy)
        self._world, self._parents = made._world, made._parents
        self.steps: int | None = made.steps if isinstance(made, WebDataset) else None

    def _changed(self, **parts: Any) -> WebDataset:
        """As ``Pipeline`` does it; what it gives has webdataset's methods too."""
        made = WebDataset(super()._changed(**parts))
        made.steps = self.steps
        return made

    def to_tuple(self, *fields: str) -> Any:
        """Tuples of fields: ``to_tuple("jpg;png", "cls")``, or the names in one text, with spaces between."""
        names = fields[0].split() if len(fields) == 1 else list(fields)
        return self.apply(to_tuple(fields=tuple(names)))

    def map_tuple(self, *functions: Callable[[Any], Any] | None) -> Any:
        """A function over each entry of every tuple."""
        return self.apply(map_tuple(functions=functions))

    def map_dict(self, **functions: Callable[[Any], Any]) -> Any:
        """A function over each of the named fields."""
        made: Any = self
        for field, function in functions.items():
            made = made.map(function, field)
        return made

    def decode(self, *names: Any, **options: Any) -> Any:
        """As ``Pipeline.decode``, or by webdataset's names: ``decode("pil")``, ``decode("torchrgb")``.

        Raises:
            ConfigError: webdataset has a name or function that has no counterpart here.
        """
        if not any(isinstance(name, str) or callable(name) for name in names):
            return super().decode(*names, **options)
        if len(names) != 1 or not isinstance(names[0], str) or names[0] not in _DECODED:
            raise ConfigError(
                f"WebDataset.decode takes one name of {', '.join(map(repr, _DECODED))}, not {names!r:.80}: functions "
                f"by ending are decode(decoders={{'png': fn}}) here, and other images map(fn, 'field') behind it"
            )
        output, scaled = _DECODED[names[0]]
        made = super().decode(output=output, **options)
        return made.map(_scaled) if scaled else made

    def batched(self, size: int, collation_fn: Callable[[Any], Any] | None = None, partial: bool = True) -> Any:
        """Batches of ``size`` samples; tuples become a tuple of tensors and lists."""
        return self.batch(size, collate=collation_fn, tail="short" if partial else "drop")

    def unbatched(self) -> Any:
        """Batches as samples again."""
        return self.unbatch()

    def with_epoch(self, nsamples: int) -> Any:
        """A pass is so many items on each rank, and the next one goes on where it stopped.

        ``loader()`` takes it as ``steps_per_epoch``, so behind ``batched`` it counts batches, as webdataset's does.
        """
        made = self._changed(epochs=None)
        made.steps = nsamples
        return made

    def __iter__(self) -> Iterator[Any]:
        if self.steps is not None and self.spec.epochs is None:
            raise ConfigError(
                f"with_epoch({self.steps}) is of passes of WebLoader(dataset, num_workers=n) or dataset.loader(), and "
                f"this plain pass would have no end: use one of them, or leave with_epoch out"
            )
        return super().__iter__()

    def slice(self, *bounds: int) -> Any:
        """Samples ``[start, stop)`` of every epoch."""
        start, stop = (0, *bounds) if len(bounds) == 1 else bounds
        return self.skip(start).take(stop - start)

    def loader(self, *args: Any, **options: Any) -> Any:
        """As ``Pipeline.loader``, with the steps that ``with_epoch`` said."""
        if self.steps is not None:
            options.setdefault("steps_per_epoch", self.steps)
        return super().loader(*args, **options)


def WebLoader(pipe: Pipeline, *, batch_size: None = None, num_workers: int = 0, **options: Any) -> Any:
    """``wds.WebLoader(dataset, batch_size=None, num_workers=n)``: what ``pipe.loader`` gives."""
    if batch_size is not None:
        raise ConfigError("WebLoader: batch_size=None, and batched(n) in the pipeline: its batches are planned")
    return pipe.loader(num_workers=num_workers, **options)


def RandomMix(datasets: Sequence[Pipeline], probs: Sequence[float] | None = None) -> WebDataset:
    """``wds.RandomMix``: samples of several datasets by their shares, which are exact here; ``sp.mix`` has more."""
    weights = [1.0] * len(datasets) if probs is None else list(probs)
    return WebDataset(mix(list(datasets), weights))


def _scaled(sample: Any) -> Any:
    """Images as floats from 0 to 1, also under names that say nothing; arrays of other fields stay."""
    return {name: _as_floats(each) if is_image_field(name, b"\xff\xd8\xff") else each for name, each in sample.items()}


def _as_floats(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype == torch.uint8:
        return value.float() / 255
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return value.astype(np.float32) / 255
    return value


def __getattr__(name: str) -> Any:
    raise no_name(name, __all__, __name__)
