"""open_clip's training loop over a loader: what its ``get_wds_dataset`` gives, without webdataset.

``open_clip_train`` looks its data functions up when it is started, so one line puts this one in their place::

    import open_clip_train.data
    from open_clip_train.main import main
    from streampipe.compat.open_clip import get_wds_dataset

    open_clip_train.data.get_wds_dataset = get_wds_dataset
    main(sys.argv[1:])

A pipeline of your own goes into the same loop as ``DataInfo(pipe.loader(...), num_samples)``. Nothing here imports
open_clip.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
import torch

from streampipe.errors import ConfigError
from streampipe.loader import Loader
from streampipe.pipeline import Pipeline
from streampipe.policy import ErrorPolicy
from streampipe.stream import stream

_IMAGES = "jpg;png;jpeg;webp"
_POLICY = ErrorPolicy("skip", max_share=0.1, max_in_row=1000)
"""open_clip leaves out whatever fails; a dataset of which a tenth fails is an error here."""


class DataInfo:
    """A loader as open_clip's loop wants it: its ``dataloader`` says ``num_batches`` and ``num_samples``.

    Args:
        loader: what ``pipe.loader(...)`` gives; its batches are ``(images, texts)``, see ``Pairs``.
        num_samples: of an epoch, of all ranks together; the loop only prints it.

    Raises:
        ConfigError: the loader's passes have no length.

    >>> import streampipe as sp
    >>> samples = [{"image": n, "text": n} for n in range(8)]
    >>> pipe = sp.from_iterable(samples, epochs=None).batch(4).map(Pairs())
    >>> data = DataInfo(pipe.loader(steps_per_epoch=2), 8)
    >>> data.set_epoch(0)
    >>> data.dataloader.num_batches
    2
    >>> [texts.tolist() for images, texts in data.dataloader]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """

    def __init__(self, loader: Loader, num_samples: int) -> None:
        try:
            batches = len(loader)
        except TypeError as error:
            raise ConfigError(f"open_clip's loop must know the batches of an epoch: {error}") from error
        self.dataloader: Any = loader
        self.dataloader.num_batches = batches
        self.dataloader.num_samples = num_samples

    def set_epoch(self, epoch: int) -> None:
        """The next pass is the one of this epoch, also in a run that was resumed there."""
        self.dataloader.set_epoch(epoch)


class Pairs:
    """From a batch to ``(images, texts)``, which open_clip 3.3 and older unpack; behind ``batch``: ``map(Pairs())``."""

    def __init__(self, image: str = "image", text: str = "text") -> None:
        self.image, self.text = image, text

    def __call__(self, batch: dict[str, Any]) -> tuple[Any, Any]:
        return batch[self.image], batch[self.text]


def get_wds_dataset(
    args: Any,
    preprocess_img: Callable[[Any], torch.Tensor],
    is_train: bool,
    epoch: int = 0,
    floor: bool = False,
    tokenizer: Callable[[str], Any] | None = None,
    *,
    pairs: bool = True,
) -> DataInfo:
    """As open_clip's function of this name, by its arguments: shards in, ``DataInfo`` out.

    Each sample comes once in an epoch, on one rank and worker, in an order that depends on seed and epoch alone; ranks
    have equal steps. Training: ``args.train_num_samples`` are an epoch, else the number of samples that there are; the
    next epoch goes on in the stream. Random numbers of ``preprocess_img`` (torch's and Python's) follow from seed,
    epoch and key. A sample without image or caption, or that cannot be decoded, is skipped and counted.

    Args:
        args: open_clip's: ``train_data``, ``val_data``, ``train_num_samples``, ``val_num_samples``, ``batch_size``,
            ``workers``, ``seed``, ``rank``, ``world_size`` are read.
        preprocess_img: from a PIL image to a tensor.
        is_train: training data, of all ranks; else validation data, which the first rank has alone.
        epoch: the first one.
        floor: leave out what does not fill a batch of all ranks; otherwise the stream's next samples fill it.
        tokenizer: from a text to token ids, a row for each text.
        pairs: batches are ``(images, texts)``; False: dicts with ``image`` and ``text``, as later versions take them.

    Raises:
        ConfigError: ``train_data_upsampling_factors``; or nobody knows how many samples there are.
    """
    if getattr(args, "train_data_upsampling_factors", None) is not None and is_train:
        raise ConfigError(
            "train_data_upsampling_factors are not read here: make sp.mix([...], weights=...) of your datasets, and "
            "DataInfo(pipe.loader(...), num_samples) of it"
        )
    if tokenizer is None:
        raise ConfigError("get_wds_dataset needs a tokenizer: get_data(args, preprocess_fns, tokenizer=tokenizer)")
    shards = args.train_data if is_train else args.val_data
    pipe = stream(shards, seed=args.seed, shuffle=is_train, epochs=None if is_train else 1, on_error=_POLICY)
    pipe = pipe.rename(image=_IMAGES, text="txt").select("image", "text").decode(output="pil")
    pipe = pipe.map(_Seeded(preprocess_img), "image").map(_First(tokenizer), "text").batch(args.batch_size)
    pipe = pipe.map(Pairs()) if pairs else pipe
    workers: dict[str, Any] = {"num_workers": args.workers, "persistent_workers": args.workers > 0}
    if not is_train:
        loader = pipe.loader(**workers, rank=0, world_size=1, fixed_epoch=True)
        return DataInfo(loader, args.val_num_samples or len(loader) * args.batch_size)
    ranks = {"rank": args.rank, "world_size": args.world_size}
    steps = _steps(args, shards, floor)
    info = DataInfo(pipe.loader(**workers, **ranks, steps_per_epoch=steps), steps * args.batch_size * args.world_size)
    info.set_epoch(epoch)
    return info


def _steps(args: Any, shards: Any, floor: bool) -> int:
    """Batches of an epoch on each rank."""
    together = args.batch_size * args.world_size
    if args.train_num_samples is not None:
        steps = args.train_num_samples // together if floor else ceil(args.train_num_samples / together)
    else:
        counted: Pipeline = stream(shards, shuffle=True).batch(args.batch_size)
        tail = "drop" if floor else "short"
        try:
            steps = len(counted.loader(rank=args.rank, world_size=args.world_size, tail=tail))
        except TypeError as error:
            raise ConfigError(
                "nobody knows how many samples there are: give --train-num-samples, or count them once: "
                "streampipe index SHARDS"
            ) from error
    if not steps:
        raise ConfigError(f"there are fewer samples than a batch of all ranks ({together}): nothing would be trained")
    return int(steps)


class _Seeded:
    """``preprocess_img``, whose random numbers are the sample's own."""

    def __init__(self, function: Callable[[Any], torch.Tensor]) -> None:
        self.function = function

    def __call__(self, image: Any, rng: np.random.Generator) -> torch.Tensor:
        kept, seed = (torch.get_rng_state(), random.getstate()), int(rng.integers(1 << 63))
        try:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the devices' too
            random.seed(seed)
            return self.function(image)
        finally:
            torch.set_rng_state(kept[0])
            random.setstate(kept[1])


class _First:
    """The token ids of one text."""

    def __init__(self, tokenizer: Callable[[str], Any]) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> Any:
        return self.tokenizer(text)[0]
