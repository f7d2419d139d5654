"""Where a picture is cut, how large it becomes and how it is turned: pure arithmetic, before any pixel is decoded.

``decide`` makes the one decision for all images of a sample: a box of the picture as shown, in whole pixels, and a
flip. ``Geometry.cut`` says what that means for one file, with its own stored size and EXIF orientation.

The box begins and ends on whole pixels of the scale at which a JPEG codec will decode. So it stays on whole pixels when
an orientation or a flip turns it, and an image that was decoded at full scale before has the same box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import NamedTuple

MARGIN = 1.5
"""How many times larger than the target a JPEG decoded at a smaller scale must stay. Chosen by measurement: see
docs/performance.md."""

_SCALES = (1, 2, 4, 8)  # eighths: the scales at which a JPEG codec is fast

Size = tuple[int, int]
"""(height, width), in pixels."""


class Turn(NamedTuple):
    """How a stored image becomes the one that is shown: the axes swapped, then flipped left-right, top-bottom."""

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False


_TURNS = {  # by EXIF orientation
    1: Turn(False, False, False),
    2: Turn(False, True, False),
    3: Turn(False, True, True),
    4: Turn(False, False, True),
    5: Turn(True, False, False),
    6: Turn(True, True, False),
    7: Turn(True, True, True),
    8: Turn(True, False, True),
}


@dataclass(frozen=True)
class Cut:
    """A box of a stored image, and what becomes of it.

    The box need not lie on whole pixels. ``out_height`` and ``out_width`` are before turning.
    """

    left: float
    top: float
    width: float
    height: float
    out_height: int
    out_width: int
    eighths: int = 8
    turn: Turn = _TURNS[1]

    @property
    def scaled(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) in the image decoded at ``eighths``/8."""
        k = self.eighths
        return self.left * k / 8, self.top * k / 8, self.width * k / 8, self.height * k / 8

    @property
    def at_full_scale(self) -> Cut:
        """The same for an image that is decoded at full scale."""
        return self if self.eighths == 8 else replace(self, eighths=8)


@dataclass(frozen=True)
class Geometry:
    """How a picture is brought to ``target``: the box of it that is resized, and whether the result is flipped.

    Sizes are (height, width). ``size`` and the box are those of the picture as shown, after EXIF orientation.
    """

    size: Size
    target: Size
    top: int
    left: int
    height: int
    width: int
    flipped: bool = False

    @property
    def resized(self) -> Size:
        """The whole picture's size, once it is scaled to cover the target."""
        return resized(self.size, self.target)

    @property
    def crop_top_left(self) -> tuple[int, int]:
        """(top, left) of the result in the picture that was resized and, if so, flipped.

        That is what SDXL is conditioned on (Podell et al., "SDXL", 2023, section 2.2), and where diffusers' training
        script takes it from: it flips, and then crops.
        """
        zoom, (room_y, room_x) = zoom_of(self.size, self.target), self._room
        # By the box's middle: its edges are moved to whole pixels by up to half of one, its middle by half of that.
        top = round((self.top + self.height / 2) * zoom - self.target[0] / 2)
        left = round((self.left + self.width / 2) * zoom - self.target[1] / 2)
        top, left = max(0, min(top, room_y)), max(0, min(left, room_x))
        return top, (room_x - left if self.flipped else left)

    @property
    def _room(self) -> Size:
        return self.resized[0] - self.target[0], self.resized[1] - self.target[1]

    def cut(self, stored_width: int, stored_height: int, orientation: int = 1, margin: float | None = None) -> Cut:
        """The box in a stored image that shows the same picture, of whatever resolution.

        ``margin``: decode at the smallest scale at which the box is still so many times the target; None: full scale.
        """
        turn = _TURNS[orientation]
        shown_h, shown_w = (stored_width, stored_height) if turn.swap else (stored_height, stored_width)
        top, height = self.top * shown_h / self.size[0], self.height * shown_h / self.size[0]
        left, width = self.left * shown_w / self.size[1], self.width * shown_w / self.size[1]
        out_h, out_w = self.target
        if turn.flip_x:
            left = shown_w - left - width
        if turn.flip_y:
            top = shown_h - top - height
        if turn.swap:
            left, top, width, height, out_w, out_h = top, left, height, width, out_h, out_w
        if self.flipped:
            turn = turn._replace(flip_x=not turn.flip_x)
        return Cut(left, top, width, height, out_h, out_w, _eighths((height, width), (out_h, out_w), margin), turn)


def decide(
    size: Size,
    target: Size,
    position: tuple[float, float] = (0.5, 0.5),
    flipped: bool = False,
    margin: float | None = MARGIN,
) -> Geometry:
    """The largest box of a picture with the target's shape, at ``position`` ((top, left), each in [0, 1]).

    Args:
        size: of the picture as shown.
        target: the size to reach. The box has its shape to within a pixel of the scale that ``margin`` allows.
        position: where the box stands in the room that is left; 0.5 is the centre. In the picture before a flip.
        flipped: whether the result is mirrored left to right.
        margin: see ``MARGIN``; None: the box may begin on any pixel.

    >>> decide((1000, 1600), (500, 500), margin=1.0)
    Geometry(size=(1000, 1600), target=(500, 500), top=0, left=300, height=1000, width=1000, flipped=False)
    >>> _.resized, _.crop_top_left
    ((500, 800), (0, 150))
    """
    zoom = zoom_of(size, target)
    wanted = [edge / zoom for edge in target]
    step = 8 // _eighths((wanted[0], wanted[1]), target, margin)
    (top, height), (left, width) = (
        _place(whole, part, at, step) for whole, part, at in zip(size, wanted, position, strict=True)
    )
    return Geometry(size, target, top, left, height, width, flipped)


def zoom_of(size: Size, target: Size) -> float:
    """How many times larger a picture must become to cover the target."""
    return max(target[0] / size[0], target[1] / size[1])


def resized(size: Size, target: Size) -> Size:
    """The size of a picture that is scaled to cover the target."""
    zoom = zoom_of(size, target)
    return max(target[0], round(size[0] * zoom)), max(target[1], round(size[1] * zoom))


def whole(stored_width: int, stored_height: int, orientation: int = 1) -> Cut:
    """The whole image at its own size."""
    return Cut(0, 0, stored_width, stored_height, stored_height, stored_width, turn=_TURNS[orientation])


def extent(start: int, end: float, total: int) -> int:
    """Pixels from ``start`` that a box touches; a hair over a whole number does not count as one more."""
    return min(max(1, ceil(end - 1e-6) - start), total - start)


def _place(whole: int, part: float, at: float, step: int) -> tuple[int, int]:
    """Start and length of a box in multiples of ``step``, its length as near to ``part`` as there is room for."""
    length = max(1, round(part / step)) * step
    if length > whole or part > whole - 1e-6:
        return 0, whole
    return min(round((whole - length) * at / step), floor((whole - length) / step)) * step, length


def _eighths(box: tuple[float, float], out: Size, margin: float | None) -> int:
    """The smallest scale, in eighths, at which a box is still ``margin`` times its target."""
    if margin is None:
        return 8
    enough = margin * max(out[0] / box[0], out[1] / box[1]) * 8
    return next((k for k in _SCALES if k >= enough - 1e-9), 8)
