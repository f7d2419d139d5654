"""A drop-in for ``Text2ImageDataset``, the data class of diffusers' train_lcm_distill_sdxl_wds.py.

Same constructor, same properties, same batches: ``for image, text, orig_size, crop_coords in data.train_dataloader``.
In the script, replace the class by ``from sdxl_dataset import Text2ImageDataset``; nothing else changes. What does:

- each image is seen once an epoch, by one process and worker, where the script draws shards at random on each of them;
- the same seed gives the same batches; ``train_dataloader.state_dict()`` and ``load_state_dict()`` go on in an epoch;
- sizes and coordinates are (height, width) and (top, left), as SDXL was trained; the script passes (width, height);
- EXIF orientation is applied, damage is an error that names shard and key, and a filter that keeps nothing says why.
"""

from __future__ import annotations

import math
from typing import Any

import torch

import streampipe as sp

Coordinates = list[torch.Tensor]
"""Two tensors of shape (batch,): heights and widths, or tops and lefts."""


class Text2ImageDataset:
    """Batches of images (float32 in [-1, 1], batch x 3 x resolution x resolution), captions, original sizes and crops.

    Args:
        train_shards_path_or_url: shards, as ``sp.stream`` takes them; several joined by ``::`` or in a list.
        num_train_examples: how many samples the script counts as an epoch.
        per_gpu_batch_size, global_batch_size, num_workers, pin_memory, persistent_workers: as in the script.
        resolution: the edge of the square that images are scaled to cover and cropped to, at random.
        shuffle_buffer_size: the window of the shuffle.
        use_fix_crop_and_size: report every image as uncropped and of the training resolution.
        min_size, max_pwatermark: the script's filter. A sample that lacks one of them is dropped.
        seed: of order and crops.
    """

    def __init__(
        self,
        train_shards_path_or_url: str | list[str],
        num_train_examples: int,
        per_gpu_batch_size: int,
        global_batch_size: int,
        num_workers: int,
        resolution: int = 1024,
        shuffle_buffer_size: int = 1000,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        use_fix_crop_and_size: bool = False,
        *,
        min_size: int = 960,
        max_pwatermark: float = 0.5,
        seed: int = 0,
        **stream_options: Any,
    ) -> None:
        condition = f"original_width >= {min_size} and original_height >= {min_size} and watermark <= {max_pwatermark}"
        self._train_dataset = (
            sp.stream(train_shards_path_or_url, seed=seed, shuffle=shuffle_buffer_size, epochs=None, **stream_options)
            .where(condition)
            .rename(image="jpg;png;jpeg;webp")
            .caption(keys=("text", "txt", "caption"), into="text")
            .decode(resolution, crop="random", interpolation="bilinear", original_size="json")
            .batch(per_gpu_batch_size, tail="drop")
            .map(Tuples(resolution if use_fix_crop_and_size else None))
        )
        # The script counts in whole batches of each worker; so many steps are an epoch here too.
        each_worker = math.ceil(num_train_examples / (global_batch_size * max(1, num_workers)))
        batches = each_worker * max(1, num_workers)
        self._train_dataloader = self._train_dataset.loader(
            num_workers, steps_per_epoch=batches, pin_memory=pin_memory, persistent_workers=persistent_workers
        )
        self._train_dataloader.num_batches = batches  # type: ignore[attr-defined]
        self._train_dataloader.num_samples = batches * global_batch_size  # type: ignore[attr-defined]

    @property
    def train_dataset(self) -> sp.Pipeline:
        """The pipeline."""
        return self._train_dataset

    @property
    def train_dataloader(self) -> sp.Loader:
        """The loader, with ``num_batches`` and ``num_samples`` of an epoch."""
        return self._train_dataloader


class Tuples:
    """From a batch of streampipe to the tuple that the script unpacks."""

    def __init__(self, fixed: int | None) -> None:
        self.fixed = fixed

    def __call__(self, batch: dict[str, Any]) -> tuple[torch.Tensor, list[str], Coordinates, Coordinates]:
        images = batch["image"].float().div_(127.5).sub_(1)
        ids = batch["time_ids"].clone()  # batch x 6: original size, crop, target size
        if self.fixed is not None:
            ids[:, :2], ids[:, 2:4] = self.fixed, 0
        return images, batch["text"], list(ids[:, :2].T.contiguous()), list(ids[:, 2:4].T.contiguous())
