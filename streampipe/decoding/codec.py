"""What a codec is: a small protocol. Everything above it (geometry, limits, records, batches) is the same for all.

A codec reads one format. It knows the bytes that its files begin with, reads their size from the header, and decodes
them to pixels, at smaller scales too if it can. It must refuse what it cannot read with ``DecodeError`` and nothing
else. ``streampipe.testing.check_codec`` tells whether one is right.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

Data = bytes | bytearray | memoryview
Colour = tuple[int, int, int]
HEAD = 256
"""How many of a file's first bytes a codec may look at to recognise it."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file's header says: its format, its size as stored, and how it must be turned (EXIF orientation, 1 to 8).

    ``scales``: those at which the codec can decode it, in eighths, ascending; 8 is full scale and always among them.
    """

    format: str
    stored_height: int
    stored_width: int
    orientation: int = 1
    scales: tuple[int, ...] = (8,)

    @property
    def stored(self) -> tuple[int, int]:
        """(height, width) as stored."""
        return self.stored_height, self.stored_width

    @property
    def height(self) -> int:
        """As shown: after orientation."""
        return self.stored_width if self.orientation > 4 else self.stored_height

    @property
    def width(self) -> int:
        """As shown: after orientation."""
        return self.stored_height if self.orientation > 4 else self.stored_width

    def scaled(self, eighths: int) -> tuple[int, int]:
        """(height, width) as stored, at a scale: rounded up."""
        return -(-self.stored_height * eighths // 8), -(-self.stored_width * eighths // 8)


@dataclass(frozen=True)
class Wanted:
    """How an image is to be decoded.

    Args:
        eighths: the scale, one of the header's.
        background: the colour (red, green, blue) behind transparent pixels; black behind those of labels.
        labels: the pixels are labels: greys stay one channel, and their values as they are stored.
        icc: ``"srgb"``: colours are those that the file's ICC profile means, in sRGB; ``"ignore"``: as they are stored.
        damaged: ``"error"``: an image that is not whole is refused; ``"accept"``: what can be decoded is, with a note.
    """

    eighths: int = 8
    background: Colour = (255, 255, 255)
    labels: bool = False
    icc: str = "ignore"
    damaged: str = "error"


class Pixels(NamedTuple):
    """A decoded image as stored, before orientation.

    Args:
        values: height x width x 3, uint8; of labels height x width x 1 or 3, uint8 or (more than 8 bits) int32. It is
            read before the same thread decodes another image, and may be overwritten then.
        alpha: height x width x 1, uint8, where the image has transparency.
        profile: the ICC profile that ``values`` are still to be brought to sRGB from.
        notes: what is to be counted about it.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Codec(Protocol):
    """One image format. Picklable, without state; its methods are called from many threads at once."""

    @property
    def name(self) -> str:
        """What ``decode(formats=)`` calls it: lower case, as in ``"tiff"``."""

    @property
    def extensions(self) -> Set[str]:
        """Last parts of the names of fields that hold it, lower case, without a dot."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with these bytes (at most ``HEAD``) is of this format."""

    def header(self, data: Data) -> ImageHeader:
        """Size and orientation; no pixel is decoded. Raises ``DecodeError``."""

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """Bytes that ``decode`` takes at most, its result included."""

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """The pixels of the first frame. Raises ``DecodeError``."""
