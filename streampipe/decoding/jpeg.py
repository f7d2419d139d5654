"""The fast path: a JPEG decoded at the smallest sufficient scale, then one resize of the wanted box."""

from __future__ import annotations

import threading

import numpy as np
import simplejpeg
import torch

from streampipe.decoding.geometry import Cut
from streampipe.decoding.header import ImageHeader
from streampipe.decoding.resize import resize

_local = threading.local()


def decode_jpeg(
    data: bytes | memoryview, header: ImageHeader, cut: Cut, interpolation: str, out: torch.Tensor | None
) -> torch.Tensor:
    """The cut of a JPEG. Raises ValueError where the codec finds anything wrong; Pillow then has the last word."""
    rows = -(-header.stored_height * cut.eighths // 8)
    columns = -(-header.stored_width * cut.eighths // 8)
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=rows, min_width=columns, buffer=_buffer(rows * columns * 3))
    if pixels.shape[:2] != (rows, columns):
        raise ValueError(f"the codec gave {pixels.shape[:2]} where {(rows, columns)} was asked for")
    return resize(pixels, cut, interpolation, out)


def _buffer(size: int) -> np.ndarray:
    """This thread's own memory to decode into: fresh memory for every image costs a page fault every 4 kB."""
    held: np.ndarray | None = getattr(_local, "buffer", None)
    if held is None or held.nbytes < size:
        held = _local.buffer = np.empty(size, np.uint8)
    return held[:size]
