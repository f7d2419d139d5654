"""PNG and WebP by imagecodecs, where that is installed (``pip install 'streampipe[fast]'``): the same pixels, sooner.

Only the plain case is taken: colours of 8 bits, nothing transparent, no profile to apply, one frame. What imagecodecs
refuses is read by Pillow, which says what is wrong; so an image that is an error stays one, with the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from streampipe.decoding.codec import Data, ImageHeader

Read = Callable[[Any], np.ndarray]


@lru_cache(2)
def _reader(name: str) -> Read | None:
    """imagecodecs' function for a format; None where the package, or that part of it, is not there."""
    try:
        import imagecodecs

        codec = getattr(imagecodecs, name.upper())
        return getattr(imagecodecs, f"{name}_decode") if codec.available else None
    except (ImportError, AttributeError):
        return None


def decode_fast(name: str, data: Data, header: ImageHeader) -> np.ndarray | None:
    """Height x width x 3, uint8; None where Pillow is to read the image."""
    read = _reader(name)
    if read is None:
        return None
    try:
        found = read(data)
    except Exception:  # Pillow says what is wrong with it, or reads it nevertheless
        return None
    return found if found.dtype == np.uint8 and found.shape == (*header.stored, 3) else None
