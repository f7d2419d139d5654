"""Where a picture is cut and how it is turned: pure arithmetic, decided once, before any pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

_SCALES = (1, 2, 4, 8)  # eighths: the scales at which a JPEG codec is fast
_TURNS = {  # orientation: (swap axes, then flip left-right, flip top-bottom)
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Cut:
    """A box of the stored image, and what becomes of it.

    ``left`` and ``top`` are whole pixels, also after scaling by ``eighths``/8; ``width`` and ``height`` need not be.
    ``out_height`` and ``out_width`` are before turning: the resized box is then turned by ``orientation``.
    """

    left: int
    top: int
    width: float
    height: float
    out_height: int
    out_width: int
    eighths: int
    orientation: int

    @property
    def scaled(self) -> tuple[int, int, float, float]:
        """(left, top, width, height) in the image decoded at ``eighths``/8."""
        k = self.eighths
        return self.left * k // 8, self.top * k // 8, self.width * k / 8, self.height * k / 8


def turns(orientation: int) -> tuple[bool, bool, bool]:
    """How an EXIF orientation turns a stored image: (swap axes, then flip left-right, flip top-bottom)."""
    return _TURNS[orientation]


def cover(
    stored_width: int,
    stored_height: int,
    orientation: int,
    size: tuple[int, int],
    position: tuple[float, float] = (0.5, 0.5),
    margin: float | None = None,
) -> Cut:
    """The largest box of the shown image with the target's shape, at ``position`` (x, y in [0, 1]; 0.5 is the centre).

    Args:
        stored_width, stored_height: the image as stored, in pixels.
        orientation: EXIF, 1 to 8.
        size: (height, width) to reach.
        position: where the box stands in the room that is left.
        margin: the scaled box stays at least so many times larger than the target; None: no scaling while decoding.

    >>> cover(1600, 1000, 1, (500, 500), margin=1.0)
    Cut(left=300, top=0, width=1000.0, height=1000.0, out_height=500, out_width=500, eighths=4, orientation=1)
    """
    swap, flip_x, flip_y = turns(orientation)
    shown_w, shown_h = (stored_height, stored_width) if swap else (stored_width, stored_height)
    out_h, out_w = size
    zoom = max(out_w / shown_w, out_h / shown_h)
    width, height = min(float(shown_w), out_w / zoom), min(float(shown_h), out_h / zoom)
    left, top = (shown_w - width) * position[0], (shown_h - height) * position[1]
    if flip_x:
        left = shown_w - left - width
    if flip_y:
        top = shown_h - top - height
    if swap:
        left, top, width, height, out_w, out_h = top, left, height, width, out_h, out_w
    eighths = 8
    if margin is not None:
        enough = max(margin * out_w / width, margin * out_h / height) * 8
        eighths = next((k for k in _SCALES if k >= enough), 8)
    step = 8 // eighths
    return Cut(
        _snap(left, width, stored_width, step),
        _snap(top, height, stored_height, step),
        width,
        height,
        out_h,
        out_w,
        eighths,
        orientation,
    )


def whole(stored_width: int, stored_height: int, orientation: int) -> Cut:
    """The whole image at its own size."""
    return Cut(0, 0, stored_width, stored_height, stored_height, stored_width, 8, orientation)


def _snap(start: float, length: float, total: int, step: int) -> int:
    """The multiple of ``step`` next to ``start`` at which the box still fits."""
    return max(0, min(round(start / step), floor((total - length) / step))) * step


def extent(start: int, length: float, total: int) -> int:
    """Pixels from ``start`` that a box of a length touches; a hair over a whole number does not count as one more."""
    return min(max(1, ceil(length - 1e-6)), total - start)
