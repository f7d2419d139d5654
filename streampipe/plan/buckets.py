"""Aspect-ratio buckets: the sizes that images are brought to, and which of them an image of a given shape goes to.

Pure arithmetic over columns of heights and widths. Sizes are (height, width), as those of tensors are.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import log
from typing import Any, NamedTuple

import numpy as np

from streampipe.errors import ConfigError
from streampipe.kinds import checked_class
from streampipe.plan.ratios import log_ratios
from streampipe.plan.shapes import SETS, NoUpscale, Size, every, generate, in_order
from streampipe.spelling import similar

MISSTATED = "json sizes that are not the image's"
"""Under what samples are counted of which the json states another size than the header of their image."""
_TIE = 1e-9


@checked_class
class Buckets:
    """A set of sizes, ordered by aspect ratio. Frozen and picklable; equal when all that decides about a sample is.

    Args:
        sizes: the name of a set (``"sdxl"``, ``"sd15"``, ``"sdxl-published"``, ``"pixart"``, ``"photo"``), or (height,
            width) of each, in place of the rule below.
        base: without ``sizes``: the edge of the square bucket; every bucket has at most its area (default 1024).
            Several, as in ``(512, 1024)``: a set of each in one; an image goes to the largest whose bucket it fills
            without being enlarged, or else to the smallest. (All images at each: see ``docs/mixing.md``.)
        step: heights and widths are multiples of it (default 64).
        min, max: the shortest and longest side (default: half and twice ``base``; with ``upscale=False`` ``step`` and
            four times ``base``).
        max_ar: samples that are more than so many times longer than they are wide (or wider than long) are dropped, and
            counted; by default none is.
        nearest: how near an aspect ratio is. ``"log"``: by its logarithm, so a transposed image goes to the transposed
            bucket; ``"ratio"``: by width / height itself, as sd-scripts do it (1.2 % of web images go elsewhere).
        frames: for clips of videos, the numbers of frames that they may have, as in ``(1, 17, 33)``: then every size is
            a bucket with each of them, and ``sizes`` are (height, width, frames). Behind ``clips`` leave it out.
        upscale: False: no image is enlarged. Every size in steps is a bucket then, and an image goes to its own, or, if
            it is larger than ``base`` squared, to that of its shape; as sd-scripts' ``bucket_no_upscale``. Images that
            are smaller than the smallest size are dropped, and counted.

    The rule is that of NovelAI and kohya: for each width the largest height within the area, its transpose, and the
    square (github.com/NovelAI/novelai-aspect-ratio-bucketing).

    Raises:
        ConfigError: there is no such set or no size, two have the same aspect ratio (then no sample could tell them
            apart), or ``sizes`` comes with ``base``, ``step``, ``min``, ``max`` or ``upscale``.

    >>> Buckets(base=512, step=128, min=256, max=1024).sizes
    ((1024, 256), (896, 256), (768, 256), (640, 384), (512, 512), (384, 640), (256, 768), (256, 896), (256, 1024))
    >>> len(Buckets().sizes), len(Buckets("sdxl-published"))
    (33, 40)
    >>> several = Buckets(base=(512, 1024))
    >>> [several.sizes[several.of(*size)] for size in ((600, 600), (1300, 1100), (300, 300), (1000, 700))]
    [(512, 512), (1088, 960), (512, 512), (576, 448)]
    >>> Buckets([(480, 832), (832, 480)], frames=(1, 17)).sizes
    ((832, 480, 1), (480, 832, 1), (832, 480, 17), (480, 832, 17))
    """

    __slots__ = ("_base", "_between", "_rule", "frames", "max_ar", "nearest", "sizes", "text")

    sizes: tuple[tuple[int, ...], ...]
    frames: tuple[int, ...] | None
    _base: tuple[Size, ...]  # without frames
    max_ar: float | None
    nearest: str
    text: str
    _between: list[float]  # the log aspect ratios in the middle between neighbours
    _rule: NoUpscale | Areas | None

    def __init__(
        self,
        sizes: str | Iterable[Size] | None = None,
        *,
        base: int | Sequence[int] | None = None,
        step: int | None = None,
        min: int | None = None,
        max: int | None = None,
        max_ar: float | None = None,
        nearest: str = "log",
        upscale: bool = True,
        frames: int | Iterable[int] | None = None,
    ) -> None:
        rule = {"base": base, "step": step, "min": min, "max": max, "upscale": None if upscale else False}
        given = [f"{name}={value}" for name, value in rule.items() if value is not None]
        if sizes is not None and given:
            raise ConfigError(f"buckets are given by sizes or by a rule, not both: leave out {', '.join(given)}")
        if any(each is not None and each < 1 for each in (step, min, max)):
            raise ConfigError(f"step, min and max of buckets are pixels, 1 or more, unlike {', '.join(given)}")
        if max_ar is not None and not max_ar >= 1:
            raise ConfigError(f"max_ar is how many times the longer side may be the shorter, 1 or more, not {max_ar}")
        if nearest not in ("log", "ratio"):
            raise ConfigError(f"nearest is 'log' or 'ratio', not {nearest!r}")
        chosen: NoUpscale | Areas | None = None
        if sizes is None and base is not None and not isinstance(base, int):
            chosen = _areas(base, step or 64, nearest, [each for each in given if each[:4] not in ("base", "step")])
            found = [size for each in chosen.sets for size in each._base]
            text = f"base={chosen.bases}, step={step or 64}"
        elif sizes is None:
            edge, step = base if isinstance(base, int) else 1024, step or 64
            least, most = min or (edge // 2 if upscale else step), max or edge * (2 if upscale else 4)
            found = generate(edge, step, least, most) if upscale else every(edge, step, least, most)
            text = f"base={edge}, step={step}, min={least}, max={most}"
            if not upscale:
                chosen, text = NoUpscale(edge, step, most), f"{text}, upscale=False"
        elif isinstance(sizes, str):
            if sizes not in SETS:
                near = similar(sizes, SETS)
                raise ConfigError(f"there are no buckets {sizes!r}: choose one of {', '.join(SETS)}{near}")
            found, text = SETS[sizes], _RULES.get(sizes, "")
        else:
            try:
                found, text = [(int(h), int(w)) for h, w in sizes], ""
            except (TypeError, ValueError):
                raise ConfigError(
                    f"buckets are a name ({', '.join(SETS)}) or a list of pairs of edges in pixels, not {sizes!r:.80}"
                ) from None
        self._set(in_order(found, chosen is not None), max_ar, nearest, chosen, text)
        if frames is not None:
            self._set_frames(frames)

    def _set_frames(self, frames: int | Iterable[int]) -> None:
        set_once = object.__setattr__
        given = [frames] if isinstance(frames, int) else list(frames) if isinstance(frames, Iterable) else []
        found = sorted(set(given)) if all(isinstance(each, int) and each > 0 for each in given) else []
        if not found:
            raise ConfigError(f"frames of buckets are numbers of frames, as in (1, 17, 33), not {frames!r:.80}")
        set_once(self, "frames", tuple(found))
        set_once(self, "sizes", tuple((*size, each) for each in found for size in self._base))
        set_once(self, "text", f"{self.text[:-1]}, frames={self.frames})")

    def with_frames(self, frames: Iterable[int]) -> Buckets:
        """The same sizes, each with these numbers of frames."""
        made = _rebuild(*(getattr(self, name) for name in self.__slots__))
        made._set_frames(frames)
        return made

    def _set(
        self, sizes: tuple[Size, ...], max_ar: float | None, nearest: str, rule: NoUpscale | Areas | None, text: str
    ) -> None:
        set_once = object.__setattr__
        set_once(self, "sizes", sizes)
        set_once(self, "_base", sizes)
        set_once(self, "frames", None)
        ratios = log_ratios(sizes)
        set_once(self, "_between", ((ratios[:-1] + ratios[1:]) / 2).tolist())
        set_once(self, "max_ar", None if max_ar is None else float(max_ar))
        set_once(self, "nearest", nearest)
        set_once(self, "_rule", rule)
        more = "" if max_ar is None else f", max_ar={float(max_ar):g}"
        more += "" if nearest == "log" else f", nearest={nearest!r}"
        set_once(self, "text", f"Buckets({text or _digest(sizes)}{more})")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Buckets are frozen: make new ones instead of changing {name}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, tuple(getattr(self, name) for name in self.__slots__)

    def _key(self) -> tuple[object, ...]:
        return self.sizes, self.max_ar, self.nearest, self._rule

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Buckets) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        return self.text

    @property
    def upscale(self) -> bool:
        """Whether an image may be enlarged to its bucket's size."""
        return not isinstance(self._rule, NoUpscale)

    @property
    def areas(self) -> dict[Size, int]:
        """The base of each size, where there are several; else nothing."""
        sets = list(zip(self._rule.bases, self._rule.sets, strict=True)) if isinstance(self._rule, Areas) else []
        return {size: base for base, each in reversed(sets) for size in each._base}

    @property
    def outside(self) -> str:
        """Why an image has no bucket, for counters."""
        small = "" if self.upscale else "smaller than every bucket, or "
        return f"{small}longer than max_ar{', or of another number of frames' if self.frames else ''}"

    def assign(self, heights: np.ndarray, widths: np.ndarray, frames: np.ndarray | None = None) -> np.ndarray:
        """The number of the bucket that is nearest by aspect ratio, for each image; -1 beyond ``max_ar``, or where it
        is smaller than every bucket and ``upscale=False``.

        Transposed images go to transposed buckets, where these exist. An aspect ratio exactly between two buckets goes
        to the one that is nearer to the square (with ``nearest="ratio"`` to the taller one); this is decided exactly,
        so it is the same on every machine.

        Args:
            heights, widths: columns of pixels, all above 0.
            frames: how many frames each has, where buckets have frames; 1 if not given.

        >>> buckets = Buckets([(1024, 512), (1024, 1024), (512, 1024)], max_ar=4)
        >>> buckets.assign(np.array([700, 22, 9]), np.array([700, 30, 99]))
        array([ 1,  1, -1])
        """
        h, w = heights.astype(np.int64), widths.astype(np.int64)
        if self._rule is not None:
            found = self._own(*self._rule(h, w))
        elif self.nearest == "ratio":
            found = self._by_ratio(h, w)
        else:
            mine = np.log(w) - np.log(h)
            found = np.searchsorted(self._between, mine)
            near = found != np.searchsorted(self._between, mine - _TIE)
            near |= found != np.searchsorted(self._between, mine + _TIE)
            for i in np.flatnonzero(near):  # so near to the middle between two that rounding could decide
                found[i] = self._exactly(int(h[i]), int(w[i]))
        if self.max_ar is not None:
            found[np.maximum(w, h) > self.max_ar * np.minimum(w, h)] = -1
        if self.frames is not None:
            lengths = np.array(self.frames)
            mine = np.ones(len(h), np.int64) if frames is None else frames
            at = np.searchsorted(lengths, mine).clip(0, len(lengths) - 1)
            found = np.where((found >= 0) & (lengths[at] == mine), found + at * len(self._base), -1)
        return found

    def of(self, height: int, width: int, frames: int = 1) -> int:
        """The same for one image, or one clip of so many frames.

        >>> Buckets([(1024, 512), (1024, 1024), (512, 1024)]).of(600, 800)
        1
        """
        if self.frames is not None:
            return int(self.assign(np.array([height]), np.array([width]), np.array([frames]))[0])
        if self._rule is not None or self.nearest == "ratio":
            return int(self.assign(np.array([height]), np.array([width]))[0])
        if self.max_ar is not None and max(width, height) > self.max_ar * min(width, height):
            return -1
        mine = log(width) - log(height)
        found = bisect_left(self._between, mine)
        sure = found == bisect_left(self._between, mine - _TIE) == bisect_left(self._between, mine + _TIE)
        return found if sure else self._exactly(height, width)

    def _exactly(self, h: int, w: int) -> int:
        """The same for one image in whole numbers: w/h against the geometric mean of neighbouring buckets."""
        number = 0
        for (h1, w1), (h2, w2) in pairwise(self._base):
            mine, middle = w * w * h1 * h2, h * h * w1 * w2
            if mine > middle or (mine == middle and w < h):  # a tie of upright images is decided towards the square
                number += 1
        return number

    def _by_ratio(self, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        """As sd-scripts: the least |width / height| apart, in doubles, the first of equals."""
        ratios = np.array([each[1] / each[0] for each in self._base])
        mine = w / h
        right = np.searchsorted(ratios, mine).clip(1, max(1, len(ratios) - 1))
        left = np.minimum(right - 1, len(ratios) - 1)
        right = np.minimum(right, len(ratios) - 1)
        return np.asarray(np.where(np.abs(ratios[left] - mine) <= np.abs(ratios[right] - mine), left, right))

    def _own(self, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The buckets of exactly these sizes; -1 where there is none."""
        number = {size: i for i, size in enumerate(self._base)}
        return np.array([number.get(size, -1) for size in zip(h.tolist(), w.tolist(), strict=True)], np.int64)


class Areas(NamedTuple):
    """Sets of buckets of several areas, the smallest first: an image goes to the largest that it fills."""

    bases: tuple[int, ...]
    sets: tuple[Buckets, ...]

    def __call__(self, h: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights and widths of the buckets, for columns of heights and widths."""
        found = np.zeros((len(h), 2), np.int64)
        for i, each in enumerate(self.sets):
            sizes = np.array(each._base)[each.assign(h, w)]
            fills = (h >= sizes[:, 0]) & (w >= sizes[:, 1])
            found = np.where((fills | (i == 0))[:, None], sizes, found)
        return found[:, 0], found[:, 1]


def _areas(bases: Any, step: int, nearest: str, others: Sequence[str]) -> Areas:
    """A set by the rule for each of several bases."""
    edges = sorted(set(bases)) if isinstance(bases, Iterable) and all(isinstance(each, int) for each in bases) else []
    if not edges or others:
        raise ConfigError(
            f"buckets of several areas are given by base=(512, 1024), say, and step alone, not base={bases!r:.80}"
            f"{', ' * bool(others)}{', '.join(others)}"
        )
    return Areas(tuple(edges), tuple(Buckets(base=each, step=step, nearest=nearest) for each in edges))


def make(spec: str | Buckets | Iterable[Size]) -> Buckets:
    """Buckets from the name of a set, from a list of (height, width), or as they are.

    Raises:
        ConfigError: nothing has that name.
    """
    return spec if isinstance(spec, Buckets) else Buckets(spec)


def name_of(size: tuple[int, ...]) -> str:
    """The name under which a bucket is counted: ``bucket HEIGHTxWIDTH``, or ``bucket HEIGHTxWIDTHxFRAMES``."""
    return f"bucket {'x'.join(map(str, size)) if type(size) is tuple else repr(size)}"


def _digest(sizes: tuple[Size, ...]) -> str:
    """Sizes in few words that no other set has."""
    if len(sizes) <= 2:
        return repr(list(sizes))
    (h1, w1), (h2, w2) = sizes[0], sizes[-1]
    return f"{len(sizes)} from {h1}x{w1} to {h2}x{w2} (height x width), crc32 {zlib.crc32(repr(sizes).encode()):08x}"


def _rebuild(*values: object) -> Buckets:
    made = object.__new__(Buckets)
    for name, value in zip(Buckets.__slots__, values, strict=True):
        object.__setattr__(made, name, value)
    return made


_RULES = {
    "sdxl": "base=1024, step=64, min=512, max=2048",
    "sd15": "base=512, step=64, min=256, max=1024",
}
