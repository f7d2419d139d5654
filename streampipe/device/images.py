"""A batch of deferred images becomes pixels on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from streampipe.decoding import DeferredBatch, DeferredImage
from streampipe.decoding.geometry import extent
from streampipe.decoding.resize import turn
from streampipe.device.codec import GpuCodec
from streampipe.errors import DecodeError

_KERNELS: dict[str, Any] = {
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,
}


@dataclass
class Opened:
    """A batch of which the GPU's codec has decoded what it takes: height x width x 3 each, at full scale."""

    batch: DeferredBatch
    images: dict[int, torch.Tensor]


class ImageMaker:
    """Makes the pixels of batches on one device, in two steps that may run beside each other, as a GPU decodes JPEGs by
    other engines than it computes with. On the CPU all is done by the CPU's codecs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._codec: GpuCodec | None = None  # made when the first batch needs it

    def open(self, batch: DeferredBatch, stream: torch.cuda.Stream | None) -> Opened:
        """Decodes what the GPU's codec takes, on ``stream``."""
        encoded = [index for index, image in enumerate(batch.plain) if image.made is None]
        if stream is None or not encoded:
            return Opened(batch, {})
        if self._codec is None:
            self._codec = GpuCodec(self._device)
        found = zip(encoded, self._codec.decode([batch.file(i) for i in encoded], stream), strict=True)
        return Opened(batch, {i: each for i, each in found if each is not None and _fits(each, batch.plain[i])})

    def finish(self, opened: Opened) -> tuple[torch.Tensor, dict[int, DecodeError]]:
        """The pixels, n x 3 x height x width, uint8, channels-last memory; and the rows that could not be made.

        It works on torch's current stream, which must be past the one that ``open`` was given.
        """
        batch = opened.batch
        shape = (len(batch), 3, *batch.plain[0].size)
        out = torch.empty(shape, dtype=torch.uint8, device=self._device, memory_format=torch.channels_last)
        if opened.images:
            levels = torch.empty(shape, device=self._device)
            for index, pixels in opened.images.items():
                resize(pixels, batch.plain[index], levels[index])
            out.copy_(levels.round_().clamp_(0, 255))  # once for all: small kernels cost more to start than to run
        failed: dict[int, DecodeError] = {}
        for index in range(len(batch)):
            if index not in opened.images:  # the CPU's codec has the last word
                try:
                    out[index].copy_(batch[index].pixels(), non_blocking=True)
                except DecodeError as error:
                    failed[index] = error
        return out, failed


def resize(pixels: torch.Tensor, image: DeferredImage, out: torch.Tensor) -> None:
    """An image that was decoded at full scale (height x width x 3), cut, turned and resized into ``out``: float32, 3 x
    height x width, levels that are to be rounded and clamped.

    It is what ``decoding.resize`` does on the CPU, whose kernels for uint8 round a little otherwise.
    """
    cut = image.cut
    if cut.canvas is not None:
        fill = torch.tensor(image.background, dtype=out.dtype, device=out.device)
        out.copy_(fill[:, None, None].expand(out.shape))
        rows, columns = cut.shown
        top, left = (out.shape[1] - rows) // 2, (out.shape[2] - columns) // 2
        out = out[:, top : top + rows, left : left + columns]
    top, left = int(cut.top), int(cut.left)
    rows, columns = (
        extent(top, cut.top + cut.height, pixels.shape[0]),
        extent(left, cut.left + cut.width, pixels.shape[1]),
    )
    box = turn(pixels[top : top + rows, left : left + columns].permute(2, 0, 1), cut.turn)
    if (rows, columns) == (cut.out_height, cut.out_width) == (cut.height, cut.width):
        out.copy_(box)
        return
    box = box.to(torch.float32, memory_format=torch.contiguous_format)
    scales = cut.out_height / cut.height, cut.out_width / cut.width
    scales = scales[::-1] if cut.turn.swap else scales
    target = (out.shape[1], out.shape[2])
    if out.is_contiguous():
        _KERNELS[image.interpolation].out(box[None], target, False, *scales, out=out[None])
    else:
        out.copy_(_KERNELS[image.interpolation](box[None], target, False, *scales)[0])


def _fits(pixels: torch.Tensor, image: DeferredImage) -> bool:
    """Whether the codec gave an image that the cut is of."""
    cut = image.cut
    if pixels.dim() != 3 or pixels.shape[2] != 3 or pixels.dtype != torch.uint8:
        return False
    return cut.top + cut.height <= pixels.shape[0] + 1e-6 and cut.left + cut.width <= pixels.shape[1] + 1e-6
