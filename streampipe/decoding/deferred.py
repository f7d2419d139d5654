"""Images whose pixels are made later, on a GPU: their bytes, and what is to become of them.

Worker processes read headers and decide the geometry, which costs little; they hand the bytes over, a tenth of what the
pixels weigh. ``streampipe.device`` makes the pixels. Without a GPU ``pixels()`` does, by the codecs of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from streampipe.decoding.codec import Colour, Data
from streampipe.decoding.geometry import Cut
from streampipe.decoding.icc import conversion
from streampipe.decoding.image import EncodedImage
from streampipe.decoding.jpeg import JpegHeader, profile_in
from streampipe.errors import DecodeError

INTERPOLATIONS = ("bicubic", "bilinear")
"""Those that a GPU has."""
_ANY = 1 << 62
_END = b"\xff\xd9"
_TAIL = 64  # bytes behind the end marker that may be padding

Bytes = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]


@dataclass(frozen=True)
class DeferredImage:
    """One image, 3 x height x width once its pixels are made.

    Args:
        name: of the sample and its field, for errors.
        data: the file; empty where the pixels are there already.
        cut: the box of it, at full scale, and what becomes of that.
        made: the pixels, of an image that the GPU's codec does not take.
    """

    name: str
    data: bytes
    cut: Cut
    interpolation: str = "bicubic"
    background: Colour = (255, 255, 255)
    made: torch.Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pixels."""
        return self.cut.result

    def pixels(self) -> torch.Tensor:
        """The pixels, by the CPU's codecs: uint8, 3 x height x width.

        Raises:
            DecodeError: the bytes are damaged.
        """
        if self.made is not None:
            return self.made
        try:
            image = EncodedImage(self.data, max_pixels=_ANY)  # whoever deferred it has judged its size
            return image.decode(self.cut, interpolation=self.interpolation, background=self.background)[0]
        except DecodeError as error:
            raise DecodeError(f"{self.name}: {error}") from error


class DeferredBatch(Sequence[DeferredImage]):
    """The images of a batch: their bytes in one tensor, which a worker hands over without a copy."""

    def __init__(self, data: torch.Tensor, ends: Sequence[int], images: Sequence[DeferredImage]) -> None:
        self.data = data
        self.ends = tuple(ends)
        self._images = tuple(images)  # without their bytes

    @classmethod
    def of(cls, images: Sequence[DeferredImage], empty: Bytes) -> DeferredBatch:
        """A batch of images; ``empty(shape, dtype)`` gives memory for their bytes."""
        ends = np.cumsum([len(each.data) for each in images]).tolist()
        data = empty((ends[-1],), torch.uint8)
        room = data.numpy().data
        for each, end in zip(images, ends, strict=True):
            room[end - len(each.data) : end] = each.data
        return cls(data, ends, [replace(each, data=b"") for each in images])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> DeferredImage:  # type: ignore[override]  # no slices
        image = self._images[index]
        return image if image.made is not None else replace(image, data=self.file(index).tobytes())

    def __iter__(self) -> Iterator[DeferredImage]:
        return (self[index] for index in range(len(self)))

    @property
    def plain(self) -> tuple[DeferredImage, ...]:
        """The images without their bytes."""
        return self._images

    def file(self, index: int) -> np.ndarray:
        """The bytes of an image, as a view."""
        index = range(len(self))[index]
        found: np.ndarray = self.data.numpy()[self.ends[index - 1] if index else 0 : self.ends[index]]
        return found

    def pin_memory(self, device: object = None) -> DeferredBatch:
        """Itself: a codec copies the bytes, not torch."""
        return self

    def __repr__(self) -> str:
        return f"<{len(self)} images, {len(self.data)} bytes, to be decoded by sp.to_device(loader, 'cuda')>"


def deferrable(image: EncodedImage, data: Data, cut: Cut, interpolation: str, icc: str) -> bool:
    """Whether a GPU's codec makes the same of an image as the CPU's do.

    That is a JPEG of the usual kinds, whole as far as its end says, in sRGB or taken for it, cut at whole pixels.
    """
    header = image.header
    if not isinstance(header, JpegHeader) or not header.is_fast or interpolation not in INTERPOLATIONS:
        return False
    if _END not in bytes(data[-_TAIL:]):
        return False
    if cut.left % 1 or cut.top % 1 or cut.eighths != 8:
        return False
    if icc == "srgb" and header.has_profile:
        profile = profile_in(data)
        return profile is None or conversion(profile, "RGB") is None
    return True
