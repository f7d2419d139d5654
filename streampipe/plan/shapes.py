"""Sets of sizes for aspect-ratio buckets: the published lists, and the rules that make one.

Sizes are (height, width), in pixels, and stand in the order of their aspect ratios, from tall to wide.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from streampipe.errors import ConfigError
from streampipe.index.stated import MOST_SIDE

Size = tuple[int, int]

_PUBLISHED_ONLY = ((1152, 832), (1088, 896), (1024, 960), (960, 1024), (896, 1088), (832, 1152), (704, 1344))
_CAMERA = ((1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1))  # and their transposes


def generate(base: int, step: int, least: int, most: int) -> list[Size]:
    """The rule of NovelAI and kohya: for each width the largest height within the area, its transpose, and the square.

    >>> generate(512, 128, 256, 512)
    [(256, 512), (384, 512), (512, 256), (512, 384), (512, 512)]
    """
    check_rule(base, step, least, most)
    found = {(base, base)}
    for width in range(-(-least // step) * step, most + 1, step):
        height = min(most, base * base // width) // step * step
        if height >= least:
            found |= {(height, width), (width, height)}
    return sorted(found)


def every(base: int, step: int, least: int, most: int) -> list[Size]:
    """Every size in steps that has at most ``base`` x ``base`` pixels: what images that are never enlarged come to.

    >>> every(4, 2, 2, 8)
    [(2, 2), (2, 4), (2, 6), (2, 8), (4, 2), (4, 4), (6, 2), (8, 2)]
    """
    check_rule(base, step, least, most)
    edges = range(-(-least // step) * step, most + 1, step)
    return [(height, width) for height in edges for width in edges if height * width <= base * base]


def cameras(base: int, step: int) -> list[Size]:
    """Sizes of the aspect ratios of cameras and screens and their transposes, about as large as ``base`` squared."""
    found = set()
    for across, down in _CAMERA:
        height = base / (across / down) ** 0.5
        width = height * across / down
        size = round(height / step) * step, round(width / step) * step
        found |= {size, size[::-1]}
    return sorted(found)


class NoUpscale(NamedTuple):
    """The size of an image's bucket where none may be enlarged, as sd-scripts find it (``bucket_no_upscale``)."""

    base: int
    step: int
    most: int

    def __call__(self, h: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights and widths of the buckets, for columns of heights and widths."""
        ratio, area = w / h, float(self.base * self.base)
        wide = np.sqrt(area * ratio)
        high = area / wide
        most = np.maximum(h, w) > self.most  # longer than any bucket: as long as the longest, in its shape
        shrunk = np.minimum(1.0, self.most / np.maximum(np.maximum(wide, high), 1))
        wide, high = wide * shrunk, high * shrunk
        by_width = self._steps(wide)
        by_height = self._steps(high)
        other_h, other_w = self._steps(by_width / ratio), self._steps(by_height * ratio)
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.abs(by_width / other_h - ratio) < np.abs(other_w / by_height - ratio)
        new_w = np.where(first, by_width, np.floor(by_height * ratio + 0.5))
        new_h = np.where(first, np.floor(by_width / ratio + 0.5), by_height)
        large = (w * h > area) | most
        w, h = np.where(large, np.minimum(new_w, w), w), np.where(large, np.minimum(new_h, h), h)
        return (h - h % self.step).astype(np.int64), (w - w % self.step).astype(np.int64)

    def _steps(self, edges: np.ndarray) -> np.ndarray:
        whole = np.floor(edges + 0.5)
        return np.asarray(whole - whole % self.step)


def check_rule(base: int, step: int, least: int, most: int) -> None:
    """Refuse numbers that no rule can work with."""
    if base < 1 or step < 1 or least < 1 or base % step or least > base or most < base:
        raise ConfigError(
            f"buckets need min <= base <= max and a base that is a multiple of step, not base={base}, step={step}, "
            f"min={least}, max={most}"
        )


def in_order(sizes: list[Size], same_ratios: bool = False) -> tuple[Size, ...]:
    """The sizes from tall to wide. ``same_ratios``: several may have the same aspect ratio, the smallest first."""
    if not sizes or any(not (0 < h < MOST_SIDE and 0 < w < MOST_SIDE) for h, w in sizes):
        raise ConfigError(f"buckets are one or more sizes (height, width) in pixels, not {list(sizes)[:5]}")
    ordered = sorted(set(sizes), key=lambda size: (size[1] / size[0], size[1], size[0]))
    for (h1, w1), (h2, w2) in pairwise(ordered):
        if w1 * h2 == w2 * h1 and not same_ratios:
            raise ConfigError(
                f"buckets {h1}x{w1} and {h2}x{w2} (height x width) have the same aspect ratio, so no sample can tell "
                f"them apart: keep one of them; or say sp.Buckets(base=(512, 1024)) for the largest area that an image "
                f"fills; or give sp.mix a part for each resolution"
            )
    return tuple(ordered)


SETS: dict[str, list[Size]] = {
    "sdxl": generate(1024, 64, 512, 2048),
    "sd15": generate(512, 64, 256, 1024),
    "sdxl-published": [*generate(1024, 64, 512, 2048), *_PUBLISHED_ONLY],
    "pixart": [*generate(1024, 64, 512, 2048), *_PUBLISHED_ONLY],
    "photo": cameras(1024, 16),
}
"""``sdxl``: the 33 of 512..2048 in steps of 64 with at most 1024 x 1024 pixels. ``sd15``: the 17 of 256..1024 with at
most 512 x 512. ``sdxl-published``: the 40 of the SDXL report (Podell et al., 2023, appendix I), which are those of the
rule and seven more; PixArt uses the same (``pixart``). ``photo``: eleven aspect ratios of cameras and screens at about
1024 x 1024, sides divisible by 16; as diffusers makes them."""
