"""Aspect-ratio buckets: the sizes that images are brought to, and which of them an image of a given shape goes to.

Pure arithmetic over columns of widths and heights. Specs name sizes as (width, height), as the published lists do;
samples and batches as (height, width), as tensors do.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import log
from typing import NamedTuple

import numpy as np

from streampipe.errors import ConfigError
from streampipe.index.stated import MOST_SIDE

Size = tuple[int, int]

PIXART_ONLY = ((832, 1152), (896, 1088), (960, 1024), (1024, 960), (1088, 896), (1152, 832), (1344, 704))
CAMERA = ((1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1))  # and their transposes
MISSTATED = "json sizes that are not the image's"
"""Under what samples are counted of which the json states another size than the header of their image."""
_TIE = 1e-9


class Buckets:
    """A set of sizes, ordered by aspect ratio. Frozen and picklable; equal when the sizes and ``max_ar`` are.

    Args:
        sizes: (width, height) of each, in place of the rule below.
        base: without ``sizes``: the edge of the square bucket; every bucket has at most its area (default 1024).
        step: widths and heights are multiples of it (default 64).
        min, max: the shortest and longest side (default: half and twice ``base``).
        max_ar: samples that are more than so many times longer than they are wide (or wider than long) are dropped, and
            counted; by default none is.

    The rule is that of NovelAI and kohya: for each width the largest height within the area, its transpose, and the
    square (github.com/NovelAI/novelai-aspect-ratio-bucketing).

    Raises:
        ConfigError: there is no size, two have the same aspect ratio (then no sample could tell them apart), or
            ``sizes`` comes with ``base``, ``step``, ``min`` or ``max``.

    >>> Buckets(base=512, step=128, min=256, max=1024).sizes
    ((256, 1024), (256, 896), (256, 768), (384, 640), (512, 512), (640, 384), (768, 256), (896, 256), (1024, 256))
    >>> len(Buckets().sizes)
    33
    """

    __slots__ = ("_between", "max_ar", "sizes", "text")

    sizes: tuple[Size, ...]
    max_ar: float | None
    text: str
    _between: list[float]  # the log aspect ratios in the middle between neighbours

    def __init__(
        self,
        sizes: Iterable[Size] | None = None,
        *,
        base: int | None = None,
        step: int | None = None,
        min: int | None = None,
        max: int | None = None,
        max_ar: float | None = None,
    ) -> None:
        rule = {"base": base, "step": step, "min": min, "max": max}
        given = [f"{name}={value}" for name, value in rule.items() if value is not None]
        if sizes is not None and given:
            raise ConfigError(f"buckets are given by sizes or by a rule, not both: leave out {', '.join(given)}")
        if max_ar is not None and not max_ar >= 1:
            raise ConfigError(f"max_ar is how many times the longer side may be the shorter, 1 or more, not {max_ar}")
        if sizes is None:
            base, step = base or 1024, step or 64
            found = generate(base, step, min or base // 2, max or base * 2)
            text = f"base={base}, step={step}, min={min or base // 2}, max={max or base * 2}"
        else:
            found = [(int(w), int(h)) for w, h in sizes]
            text = ""
        ordered = _in_order(found)
        set_once = object.__setattr__
        set_once(self, "sizes", ordered)
        ratios = log_ratios(ordered)
        set_once(self, "_between", ((ratios[:-1] + ratios[1:]) / 2).tolist())
        set_once(self, "max_ar", None if max_ar is None else float(max_ar))
        limit = "" if max_ar is None else f", max_ar={float(max_ar):g}"
        set_once(self, "text", f"Buckets({text or _digest(ordered)}{limit})")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Buckets are frozen: make new ones instead of changing {name}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.sizes, self.max_ar, self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Buckets) and (self.sizes, self.max_ar) == (other.sizes, other.max_ar)

    def __hash__(self) -> int:
        return hash((self.sizes, self.max_ar))

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        return self.text

    def assign(self, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
        """The number of the bucket that is nearest by log aspect ratio, for each image; -1 beyond ``max_ar``.

        Transposed images go to transposed buckets, where these exist. An aspect ratio exactly between two buckets goes
        to the one that is nearer to the square; this is decided in integers, so it is the same on every machine.

        Args:
            widths, heights: columns of pixels, all above 0.

        >>> buckets = Buckets([(512, 1024), (1024, 1024), (1024, 512)], max_ar=4)
        >>> buckets.assign(np.array([700, 30, 99]), np.array([700, 22, 9]))
        array([ 1,  1, -1])
        """
        w, h = widths.astype(np.int64), heights.astype(np.int64)
        mine = np.log(w) - np.log(h)
        found = np.searchsorted(self._between, mine)
        near = found != np.searchsorted(self._between, mine - _TIE)
        near |= found != np.searchsorted(self._between, mine + _TIE)
        for i in np.flatnonzero(near):  # so near to the middle between two that rounding could decide
            found[i] = self._exactly(int(w[i]), int(h[i]))
        if self.max_ar is not None:
            found[np.maximum(w, h) > self.max_ar * np.minimum(w, h)] = -1
        return found

    def of(self, width: int, height: int) -> int:
        """The same for one image.

        >>> Buckets([(512, 1024), (1024, 1024), (1024, 512)]).of(800, 600)
        1
        """
        if self.max_ar is not None and max(width, height) > self.max_ar * min(width, height):
            return -1
        mine = log(width) - log(height)
        found = bisect_left(self._between, mine)
        sure = found == bisect_left(self._between, mine - _TIE) == bisect_left(self._between, mine + _TIE)
        return found if sure else self._exactly(width, height)

    def _exactly(self, w: int, h: int) -> int:
        """The same for one image in whole numbers: w/h against the geometric mean of neighbouring buckets."""
        number = 0
        for (w1, h1), (w2, h2) in pairwise(self.sizes):
            mine, middle = w * w * h1 * h2, h * h * w1 * w2
            if mine > middle or (mine == middle and w < h):  # a tie of upright images is decided towards the square
                number += 1
        return number


class Leftover(NamedTuple):
    """Neighbours in aspect ratio that share a batch: of ``bucket`` the ``first``-th to last left-over sample."""

    bucket: int
    first: int
    samples: int


class Merged(NamedTuple):
    """A batch of leftovers, at the size of bucket ``target``."""

    target: int
    pieces: tuple[Leftover, ...]

    @property
    def samples(self) -> int:
        """How many there are in it."""
        return sum(piece.samples for piece in self.pieces)


def merge(buckets: Buckets, left: Sequence[int], batch: Sequence[int]) -> list[Merged]:
    """Batches for the samples that full batches leave over: ``left[b]`` of bucket b, ``batch[b]`` to a batch of it.

    The leftovers stand sorted by their buckets' aspect ratio. From the front so many are taken as the best bucket has
    in a batch; best is the one at which the least of them is cut away. All batches but the last are full.

    >>> merge(Buckets([(1, 2), (1, 1), (2, 1)]), [1, 0, 3], [4, 4, 4])
    [Merged(target=2, pieces=(Leftover(bucket=0, first=0, samples=1), Leftover(bucket=2, first=0, samples=3)))]
    """
    cut = cut_between(buckets.sizes)
    kinds = np.repeat(np.arange(len(left)), left)
    merged: list[Merged] = []
    at, given = 0, [0] * len(left)
    while at < len(kinds):
        costs = [cut[kinds[at : at + size], target].mean() for target, size in enumerate(batch)]
        target = int(np.argmin(costs))
        mine = kinds[at : at + batch[target]]
        at += len(mine)
        pieces = []
        for bucket, count in zip(*np.unique(mine, return_counts=True), strict=True):
            pieces.append(Leftover(int(bucket), given[bucket], int(count)))
            given[bucket] += int(count)
        merged.append(Merged(target, tuple(pieces)))
    return merged


def batch_sizes(buckets: Buckets, size: int | Mapping[Size, int] | None, pixels: int | None) -> tuple[int, ...]:
    """Samples in a batch of each bucket: the same for all, by (width, height), or as many as a pixel budget allows.

    Raises:
        ConfigError: a bucket has no size, or it is below 1.

    >>> batch_sizes(Buckets([(512, 1024), (1024, 1024)]), None, 4 * 1024 * 1024)
    (8, 4)
    """
    if pixels is not None:
        if pixels < 1:
            raise ConfigError(f"batch takes a budget of 1 or more pixels, not {pixels}")
        return tuple(max(1, pixels // (w * h)) for w, h in buckets.sizes)
    if not isinstance(size, Mapping):
        if size is not None and size < 1:
            raise ConfigError(f"batch takes a size of 1 or more samples, not {size}")
        return (size or 1,) * len(buckets)
    lacking = [f"({w}, {h})" for w, h in buckets.sizes if (w, h) not in size]
    strange = [str(each) for each in size if each not in buckets.sizes]
    if lacking or strange:
        what = (
            f"no size for {', '.join(lacking)}" if lacking else f"sizes for {', '.join(strange)}, which are no bucket"
        )
        raise ConfigError(f"batch has {what}: give one for each (width, height) of the buckets, or pixels=")
    if least := [f"({w}, {h})" for (w, h), n in size.items() if not (isinstance(n, int) and n >= 1)]:
        raise ConfigError(f"batch takes 1 or more samples of each bucket, unlike for {', '.join(least)}")
    return tuple(size[each] for each in buckets.sizes)


def make(spec: str | Buckets | Iterable[Size]) -> Buckets:
    """Buckets from a name (``sdxl``, ``sd15``, ``pixart``, ``photo``), from a list of (width, height), or as they are.

    ``sdxl``: the 33 of 512..2048 in steps of 64 with at most 1024 x 1024 pixels. ``sd15``: the 17 of 256..1024 with at
    most 512 x 512. ``pixart``: PixArt's 40. ``photo``: eleven aspect ratios of cameras and screens at about 1024 x
    1024, sides divisible by 16; as diffusers makes them.

    Raises:
        ConfigError: nothing has that name.
    """
    if isinstance(spec, Buckets):
        return spec
    if not isinstance(spec, str):
        return Buckets(spec)
    if spec not in PRESETS:
        raise ConfigError(f"there are no buckets {spec!r}: choose one of {', '.join(PRESETS)}, or give sp.Buckets(...)")
    return PRESETS[spec]


def generate(base: int, step: int, least: int, most: int) -> list[Size]:
    """The sizes of the rule in ``Buckets``."""
    if base < 1 or step < 1 or least < 1 or base % step or least > base or most < base:
        raise ConfigError(
            f"buckets need min <= base <= max and a base that is a multiple of step, not base={base}, step={step}, "
            f"min={least}, max={most}"
        )
    found = {(base, base)}
    for width in range(-(-least // step) * step, most + 1, step):
        height = min(most, base * base // width) // step * step
        if height >= least:
            found |= {(width, height), (height, width)}
    return sorted(found)


def cameras(base: int, step: int) -> list[Size]:
    """Sizes of the aspect ratios in ``CAMERA`` and their transposes, about as large as ``base`` squared."""
    found = set()
    for across, down in CAMERA:
        height = base / (across / down) ** 0.5
        width = height * across / down
        size = round(width / step) * step, round(height / step) * step
        found |= {size, size[::-1]}
    return sorted(found)


def log_ratios(sizes: Sequence[Size]) -> np.ndarray:
    """log(width / height) of each; that of a transpose is exactly the negative."""
    w, h = np.array(sizes, np.float64).T
    return np.asarray(np.log(w) - np.log(h))


def cut(ratios: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of an image with a log aspect ratio that is cut away when it is scaled to cover another one."""
    return np.asarray(-np.expm1(-np.abs(ratios - others)))


def cut_between(sizes: Sequence[Size]) -> np.ndarray:
    """The share that is cut off bucket i (row) to bring it to bucket j (column)."""
    ratios = log_ratios(sizes)
    return cut(ratios[:, None], ratios[None, :])


def _in_order(sizes: Sequence[Size]) -> tuple[Size, ...]:
    if not sizes or any(not (0 < w < MOST_SIDE and 0 < h < MOST_SIDE) for w, h in sizes):
        raise ConfigError(f"buckets are one or more sizes (width, height) in pixels, not {list(sizes)[:5]}")
    ordered = sorted(set(sizes), key=lambda size: (size[0] / size[1], size))
    for (w1, h1), (w2, h2) in pairwise(ordered):
        if w1 * h2 == w2 * h1:
            raise ConfigError(
                f"buckets {w1}x{h1} and {w2}x{h2} have the same aspect ratio, so no sample can tell them apart: keep "
                f"one, and stream each resolution by itself"
            )
    return tuple(ordered)


def _digest(sizes: tuple[Size, ...]) -> str:
    """Sizes in few words that no other set has."""
    if len(sizes) <= 2:
        return repr(list(sizes))
    (w1, h1), (w2, h2) = sizes[0], sizes[-1]
    return f"{len(sizes)} from {w1}x{h1} to {w2}x{h2}, crc32 {zlib.crc32(repr(sizes).encode()):08x}"


def _rebuild(sizes: tuple[Size, ...], max_ar: float | None, text: str) -> Buckets:
    made = Buckets(sizes, max_ar=max_ar)
    object.__setattr__(made, "text", text)
    return made


PRESETS = {
    "sdxl": Buckets(base=1024),
    "sd15": Buckets(base=512),
    "pixart": Buckets([*Buckets(base=1024).sizes, *PIXART_ONLY]),
    "photo": Buckets(cameras(1024, 16)),
}
