"""What a json member says of its image's size, against what the image says. Sizes are (height, width)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

STORED = (("height", "width"), ("h", "w"))
"""The names of a json's entries for the size of the stored image."""
ORIGINAL = (("original_height", "original_width"), ("HEIGHT", "WIDTH"))
"""The same for the size before the image was scaled."""
MOST_SIDE = 1 << 20
"""No image is wider or higher (Pillow and every codec stop before): below it, comparisons are exact in 64 bits."""


def whole(value: Any) -> int | None:
    """A side in pixels: a number above 0. Floats too, because pandas makes them of whole numbers where one is missing.

    >>> whole(512), whole(512.0), whole(512.5), whole("512"), whole(True), whole(float("nan"))
    (512, 512, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < MOST_SIDE:
        return None
    return int(value) if value == int(value) else None


def stated_size(facts: Any, names: Iterable[tuple[str, str]] = STORED) -> tuple[int, int] | None:
    """The (height, width) that a json states under the first pair of names that it has both of.

    >>> stated_size({"width": 640.0, "height": 480})
    (480, 640)
    """
    if isinstance(facts, Mapping):
        for height, width in names:
            found = whole(facts.get(height)), whole(facts.get(width))
            if found[0] is not None and found[1] is not None:
                return found[0], found[1]
    return None


def differs(stated: Any, shown: Any) -> Any:
    """Whether a stated (height, width) is another than the image's as shown, and not that of the image on its side.

    A json is written for the stored image, which EXIF may turn by a quarter. Numbers or numpy arrays.

    >>> differs((480, 640), (480, 640)), differs((480, 640), (640, 480)), differs((480, 640), (400, 640))
    (False, False, True)
    """
    (a, b), (h, w) = stated, shown
    return ((a != h) | (b != w)) & ((a != w) | (b != h))
