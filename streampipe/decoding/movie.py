"""Videos by content: which fields are some, and what their headers say. Nothing is decoded; no package is needed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

from streampipe.decoding import animation, isobmff, matroska
from streampipe.decoding.codec import HEAD, Data
from streampipe.decoding.container import VideoHeader
from streampipe.decoding.extensions import SOUNDS, UNSAFE, VIDEOS, extension_of
from streampipe.decoding.fields import ALL_IMAGES, KNOWN, is_mask, main_image
from streampipe.errors import DecodeError

CONTAINERS: dict[ModuleType, str] = {isobmff: "mp4", matroska: "matroska", animation: "gif"}
"""What reads headers, and what FFmpeg calls the format. Whatever else FFmpeg reads is not given to it."""


_NO_VIDEOS = KNOWN | UNSAFE | SOUNDS | {"gz"}
PICTURES = ALL_IMAGES | VIDEOS
"""Extensions of what a sample of a folder is of: an image or a video."""


def probe_video(data: Data) -> VideoHeader:
    """Size, frames, duration and rotation of a video, by its container: MP4, QuickTime, Matroska, WebM or GIF.

    Raises:
        DecodeError: the bytes are no such video, its headers are damaged, or its end is missing.
    """
    kind = container_of(data)
    if kind is None:
        raise DecodeError(
            f"{len(data)} bytes that begin {bytes(data[:8])!r} are no video of a known container (MP4, QuickTime, "
            f"Matroska, WebM, GIF)"
        )
    try:
        found: VideoHeader = kind.header(data)
    except (IndexError, ValueError, OverflowError, struct.error) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"the header of the {CONTAINERS[kind]} video is damaged ({error})") from error
    return found


def container_of(data: Data) -> ModuleType | None:
    """The module that reads a video's header; None where its first bytes are those of no video."""
    head = bytes(data[:HEAD])
    return next((each for each in CONTAINERS if each.recognises(head)), None)


def is_video_field(name: str, data: object) -> bool:
    """Whether a field is a video: by the end of its name, or, where that says nothing, by its content. A GIF is one if
    it has more than one frame.

    >>> is_video_field("mp4", b""), is_video_field("depth.webm", b""), is_video_field("jpg", b"")
    (True, True, False)
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        return False
    said = says_video(name)
    if said is not None:
        return said
    kind = container_of(data)
    if kind is not animation:
        return kind is not None
    try:
        return animation.header(data).frames > 1
    except DecodeError:
        return False  # it is a damaged image, then


@lru_cache(1024)
def says_video(name: str) -> bool | None:
    """Whether a name says that a field is a video; None: its content does."""
    extension = extension_of(name)
    if extension in VIDEOS:
        return True
    return False if extension != "gif" and extension in _NO_VIDEOS else None


def main_video(names: Iterable[str]) -> str:
    """Of a sample's videos the one that the others (depths, edges, masks) belong to: ``video``, or else the first whose
    name is a mere extension, or else the first that is no mask.

    >>> main_video(["depth.mp4", "mp4"]), main_video(["mask.mp4", "a.mp4"])
    ('mp4', 'a.mp4')
    """

    def rank(name: str) -> int:
        if name.partition(".")[0] == "video":
            return 0
        return 1 if "." not in name else 3 if is_mask(name) else 2

    return min(names, key=rank)


def main_picture(names: Iterable[str]) -> str:
    """Of the fields of a sample, by name, its main video, or, without one, its main image.

    >>> main_picture(["txt", "jpg", "mp4"]), main_picture(["mask.png", "jpg"])
    ('mp4', 'jpg')
    """
    return _main_picture(tuple(names))


@lru_cache(1024)
def _main_picture(names: tuple[str, ...]) -> str:
    pictures = [name for name in names if extension_of(name) in PICTURES]
    if len(pictures) == 1:
        return pictures[0]
    videos = [name for name in pictures if extension_of(name) in VIDEOS]
    return main_video(videos) if videos else main_image(pictures)


def videos_in(sample: Mapping[str, Any], gifs: bool = True) -> list[str]:
    """The fields of a sample that are videos. Without ``gifs``, animations are images, as they are without clips."""
    found = [name for name, data in sample.items() if not name.startswith("__") and is_video_field(name, data)]
    return found if gifs else [name for name in found if extension_of(name) != "gif"]
