"""Where a picture is cut, how large it becomes and how it is turned: pure arithmetic, before any pixel is decoded.

``decide`` makes the one decision for all images of a sample: a box of the picture as shown, in whole pixels, and a
flip. ``Geometry.cut`` says what that means for one file, with its own stored size and EXIF orientation.

The box begins and ends on whole pixels of the scale at which a JPEG codec will decode. So it stays on whole pixels when
an orientation or a flip turns it, and an image that was decoded at full scale before has the same box.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

from streampipe.errors import ConfigError

MARGIN = 1.5
"""How many times larger than the target a JPEG decoded at a smaller scale must stay. Chosen by measurement: see
docs/performance.md."""

_SCALES = (1, 2, 4, 8)  # eighths: the scales at which a JPEG codec is fast

Size = tuple[int, int]
"""(height, width), in pixels."""


@dataclass(frozen=True)
class Area:
    """A size by how many pixels it has: the shape is each image's own. For images that are not batched by shape, as the
    references of editing models are.

    Args:
        pixels: about how many.
        multiple: height and width are multiples of it.

    >>> Area(1024 * 1024).of((1500, 3000))
    (720, 1456)
    """

    pixels: int
    multiple: int = 16

    def __post_init__(self) -> None:
        if not (isinstance(self.pixels, int) and isinstance(self.multiple, int) and self.pixels >= 1 <= self.multiple):
            raise ConfigError(f"an area has 1 or more pixels and a multiple of 1 or more, unlike {self}")

    def of(self, size: Size) -> Size:
        """The (height, width) for an image of this size."""
        height = (self.pixels * size[0] / size[1]) ** 0.5
        edges = (height, height * size[1] / size[0])
        rows, columns = (max(1, round(edge / self.multiple)) * self.multiple for edge in edges)
        return rows, columns


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


class Cut(NamedTuple):
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
    canvas: Size | None = None  # what the result, once turned, is put in the middle of

    @property
    def shown(self) -> Size:
        """The result's size once it is turned."""
        return (self.out_width, self.out_height) if self.turn.swap else (self.out_height, self.out_width)

    @property
    def result(self) -> Size:
        """The size of what is delivered."""
        return self.canvas or self.shown

    @property
    def scaled(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) in the image decoded at ``eighths``/8."""
        k = self.eighths
        return self.left * k / 8, self.top * k / 8, self.width * k / 8, self.height * k / 8

    @property
    def at_full_scale(self) -> Cut:
        """The same for an image that is decoded at full scale."""
        return self if self.eighths == 8 else self._replace(eighths=8)


class Geometry(NamedTuple):
    """How a picture is brought to ``target``: the box of it that is resized, and whether the result is flipped.

    Sizes are (height, width). ``size`` and the box are those of the picture as shown, after EXIF orientation.

    Args:
        share: of the largest box there is, so much is taken of each edge.
        rounding: how the resized picture's edges come from fractions: ``"round"``, or ``"truncate"`` as in diffusers.
        canvas: the size of what the result stands in the middle of, where it does not fill it.
    """

    size: Size
    target: Size
    top: int
    left: int
    height: int
    width: int
    flipped: bool = False
    share: float = 1.0
    rounding: str = "round"
    canvas: Size | None = None

    @property
    def result(self) -> Size:
        """The size of what is delivered."""
        return self.canvas or self.target

    @property
    def resized(self) -> Size:
        """The whole picture's size, once it is scaled to cover the target."""
        return resized(self.size, self.target, self.rounding, self.share)

    @property
    def crop_top_left(self) -> tuple[int, int]:
        """(top, left) of the result in the picture that was resized and, if so, flipped.

        That is what SDXL is conditioned on (Podell et al., "SDXL", 2023, section 2.2), and where diffusers' training
        script takes it from: it flips, and then crops.
        """
        if self.canvas is not None:  # the picture begins inside of it
            return -((self.canvas[0] - self.target[0]) // 2), -((self.canvas[1] - self.target[1]) // 2)
        rows, columns = self.resized
        zoom = zoom_of(self.size, self.target) / self.share
        top, _ = self._offset(self.top, self.height, 0, rows, zoom)
        left, central = self._offset(self.left, self.width, 1, columns, zoom)
        if self.flipped and not central:
            left = columns - self.target[1] - left
        return top, left

    def _offset(self, start: int, length: int, axis: int, whole: int, zoom: float) -> tuple[int, bool]:
        """By the box's middle: its edges are moved to whole pixels by up to half of one, its middle by half of that.

        Second, whether it is that of a crop from the middle as diffusers' script has it: room / 2, mirrored or not.
        """
        room = whole - self.target[axis]
        if self.rounding == "truncate":
            beside = abs(start + length / 2 - self.size[axis] / 2)
            if beside <= 0.5 or beside * zoom <= 0.34 or not room:  # but for what whole pixels allow
                return round(room / 2), True
        return max(0, min(round((start + length / 2) * zoom - self.target[axis] / 2), room)), False

    def cut(self, stored: Size, orientation: int = 1, margin: float | None = None) -> Cut:
        """The box in a stored image that shows the same picture, of whatever resolution.

        ``margin``: decode at the smallest scale at which the box is still so many times the target; None: full scale.
        """
        turn = _TURNS[orientation]
        shown_h, shown_w = stored[::-1] if turn.swap else stored
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
        eighths = _eighths((height, width), (out_h, out_w), margin)
        return Cut(left, top, width, height, out_h, out_w, eighths, turn, self.canvas)


def decide(
    size: Size,
    target: Size,
    position: tuple[float, float] = (0.5, 0.5),
    flipped: bool = False,
    margin: float | None = MARGIN,
    *,
    share: float = 1.0,
    rounding: str = "round",
) -> Geometry:
    """The largest box of a picture with the target's shape, at ``position`` ((top, left), each in [0, 1]).

    Args:
        size: of the picture as shown.
        target: the size to reach. The box has its shape to within a pixel of the scale that ``margin`` allows.
        position: where the box stands in the room that is left; 0.5 is the centre. In the picture before a flip.
        flipped: whether the result is mirrored left to right.
        margin: see ``MARGIN``; None: the box may begin on any pixel.
        share, rounding: see ``Geometry``.

    >>> found = decide((1000, 1600), (500, 500), margin=1.0)
    >>> (found.top, found.left), (found.height, found.width)
    ((0, 300), (1000, 1000))
    >>> found.resized, found.crop_top_left
    ((500, 800), (0, 150))
    """
    zoom = zoom_of(size, target) / share
    rows, columns = target[0] / zoom, target[1] / zoom
    step = 8 // _eighths((rows, columns), target, margin)
    top, height = _place(size[0], rows, position[0], step)
    left, width = _place(size[1], columns, position[1], step)
    return Geometry(size, target, top, left, height, width, flipped, share, rounding)


def contained(size: Size, target: Size, flipped: bool = False, pad: bool = False, rounding: str = "round") -> Geometry:
    """The whole picture, as large as it is inside the target. ``pad``: in the middle of a canvas of the target's size.

    >>> contained((300, 600), (100, 100)).result, contained((300, 600), (100, 100), pad=True).crop_top_left
    ((50, 100), (-25, 0))
    """
    zoom = min(target[0] / size[0], target[1] / size[1])
    edges = (int(edge * zoom + 1e-9) if rounding == "truncate" else round(edge * zoom) for edge in size)
    height, width = (min(max(1, edge), most) for edge, most in zip(edges, target, strict=True))
    canvas = target if pad else None
    return Geometry(size, (height, width), 0, 0, *size, flipped, 1.0, rounding, canvas)


def zoom_of(size: Size, target: Size) -> float:
    """How many times larger a picture must become to cover the target."""
    return max(target[0] / size[0], target[1] / size[1])


def resized(size: Size, target: Size, rounding: str = "round", share: float = 1.0) -> Size:
    """The size of a picture that is scaled to cover the target, and 1 / ``share`` times more.

    >>> resized((1000, 1335), (512, 512)), resized((1000, 1335), (512, 512), "truncate")
    ((512, 684), (512, 683))
    """
    zoom = zoom_of(size, target) / share
    rows, columns = size[0] * zoom, size[1] * zoom
    if rounding == "truncate":
        return max(target[0], int(rows + 1e-9)), max(target[1], int(columns + 1e-9))
    return max(target[0], round(rows)), max(target[1], round(columns))


def whole(stored: Size, orientation: int = 1, flipped: bool = False) -> Cut:
    """The whole image at its own size."""
    turn = _TURNS[orientation]
    turn = turn._replace(flip_x=turn.flip_x != flipped)
    return Cut(0, 0, stored[1], stored[0], stored[0], stored[1], turn=turn)


def extent(start: int, end: float, total: int) -> int:
    """Pixels from ``start`` that a box touches; a hair over a whole number does not count as one more."""
    found, room = max(1, ceil(end - 1e-6) - start), total - start
    return found if found < room else room


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
    enough = margin * max(out[0] / box[0], out[1] / box[1]) * 8 - 1e-9
    for eighths in _SCALES:
        if eighths >= enough:
            return eighths
    return 8
