"""Tiny videos for tests, encoded on the spot. Frame i of a video is grey of a level that says i."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

CODECS = {"mp4": "libx264", "mov": "mpeg4", "webm": "libvpx-vp9", "matroska": "libx264", "gif": "gif"}
STEP = 6


def need_av():
    """PyAV, or the test is skipped."""
    return pytest.importorskip("av")


def video(
    frames: int = 30,
    fps: int = 10,
    size: tuple[int, int] = (32, 48),
    *,
    format: str = "mp4",
    gop: int = 8,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    audio: bool = False,
    options: dict[str, str] | None = None,
    marked: bool = False,
) -> bytes:
    """A video file.

    Args:
        size: (height, width) as stored.
        gop: frames between keyframes.
        times: when each frame is shown, in milliseconds, where that is not even.
        rotation: counter-clockwise, as it is written into the header.
        audio: with a tone that becomes louder with time.
        options: of the container.
        marked: the left half of every frame is dark.
    """
    av = need_av()
    file = io.BytesIO()
    with av.open(file, "w", format=format, options=options or {}) as container:
        stream = container.add_stream(CODECS[format], rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "rgb8" if format == "gif" else "yuv420p"
        stream.codec_context.gop_size = gop
        base = Fraction(1, 1000) if times else Fraction(1, fps)
        stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        for i in range(frames):
            pixels = np.full((*size, 3), level(i), np.uint8)
            if marked:
                pixels[:, : size[1] // 2] = 0
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[i] if times else i, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _tone(av, container, sound, frames / fps)
    return file.getvalue()


def _tone(av, container, stream, seconds: float) -> None:
    time = np.arange(int(seconds * 16000)) / 16000
    wave = (np.sin(2 * np.pi * 440 * time) * time / seconds * 0.8).astype(np.float32)
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def level(number: int) -> int:
    """The grey of a frame."""
    return 20 + STEP * number


def numbers(clip) -> list[int]:
    """Which frames a decoded clip (frames x 3 x height x width) shows, by the grey in their right half."""
    right = clip[..., clip.shape[-1] * 3 // 4].float().mean(dim=(1, 2))
    return [round((float(each) - 20) / STEP) for each in right]
