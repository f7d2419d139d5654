"""Facts: what a condition may ask of a sample, by name. An index holds them as columns; a single sample has them too.

``key``, ``width`` and ``height`` of the main image as shown (after EXIF orientation), or else of the main video; what
the header of that says (``video.frames``, ``video.duration`` and so on: ``VIDEO``); and the scalars of the json member:
those at its top under their own names (as ``json.NAME`` where that is a column of the index itself), those in objects
inside it as ``object.NAME``. Of other images ``control.image.height`` and ``ref.0.image.width``; of a field of
conditions what it cost and how many tokens it has (``text.tokens``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from streampipe.decoding import conditioning
from streampipe.decoding.codec import ImageHeader
from streampipe.decoding.codecs import BUILT_IN, DEFAULT
from streampipe.decoding.fields import is_image_field, leads, main_image, says_image
from streampipe.decoding.image import probe
from streampipe.decoding.movie import main_video, probe_video, says_video, videos_in
from streampipe.decoding.several import apart, place_of
from streampipe.decoding.text import decode_json
from streampipe.errors import DecodeError

OWN = ("key", "offset", "size", "crc32", "fields", "width", "height")
"""The columns that every index has."""
VIDEO = ("frames", "duration", "fps", "height", "width", "rotation", "audio")
VIDEO_COLUMNS = frozenset(f"video.{name}" for name in VIDEO)
"""What is known of a sample's main video, by its header: ``video.frames`` is 0 where that is damaged."""
EDGES = ("image.height", "image.width")
"""How columns with the sizes of other images than the main one end, as ``control.image.height``; 0: it is damaged."""
_DEEPEST = 8
_LONGEST = 1 << 15  # characters of a text that is a fact


CLIP_FRAMES = "clip.frames"
"""What is known of a clip besides: how many frames it has. No index has it; what cuts clips adds it."""


def column_name(name: str) -> str:
    """The column of a scalar at the top of a json member.

    >>> column_name("width"), column_name("aesthetic")
    ('json.width', 'aesthetic')
    """
    return f"json.{name}" if name in OWN else name


def scalars_of(data: bytes | memoryview | Mapping[str, Any]) -> dict[str, Any]:
    """The scalars of a json member by column; nothing if it is damaged or no object (decoding will say so).

    >>> scalars_of(b'{"n": 1, "width": 2, "list": [3], "meta": {"score": 0.5, "none": null}}')
    {'n': 1, 'json.width': 2, 'meta.score': 0.5}
    """
    value: Any = data
    if not isinstance(data, Mapping):
        try:
            value = decode_json(data)
        except DecodeError:
            return {}
    if not isinstance(value, Mapping):
        return {}
    found = {column_name(name): each for name, each in value.items() if name and is_scalar(each)}
    for name, each in _nested(value, "", _DEEPEST):
        found.setdefault(name, each)
    return {_whole(name): _whole(each) for name, each in found.items()}


def _nested(value: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """The scalars of the objects in an object, by dotted names."""
    for name, each in value.items():
        if isinstance(each, Mapping) and name and depth:
            inside = f"{path}{name}."
            yield from ((inside + inner, v) for inner, v in each.items() if inner and is_scalar(v))
            yield from _nested(each, inside, depth - 1)


def _whole(value: Any) -> Any:
    """A value; a text with ``?`` for halves of character pairs, which json may hold and no column can."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


def is_scalar(value: object) -> bool:
    """Whether a value can stand in a column: a truth value, a number of at most 64 bits, or a text that is no book."""
    if isinstance(value, str):
        return len(value) <= _LONGEST
    return isinstance(value, (bool, int, float)) and not (isinstance(value, int) and abs(value) >= 1 << 63)


def facts_of(sample: Mapping[str, Any], sizes: bool = True) -> dict[str, Any]:
    """What an index would hold of a sample; and the scalars among its fields, which a stage in front put there.

    Without ``sizes`` no image header is read.

    >>> facts_of({"__key__": "a", "json": b'{"n": 1, "m": {"x": 2}}', "score": 0.5})
    {'n': 1, 'm.x': 2, 'score': 0.5, 'key': 'a', 'width': None, 'height': None}
    """
    facts = scalars_of(sample["json"]) if isinstance(sample.get("json"), (bytes, memoryview, Mapping)) else {}
    facts |= costs_of(sample)
    for name, value in sample.items():
        if not name.startswith("__"):
            alone = isinstance(value, np.generic) or (getattr(value, "ndim", None) == 0 and hasattr(value, "item"))
            plain = value.item() if alone else value
            if is_scalar(plain):
                facts[name] = plain
    if "__clip__" in sample:
        facts[CLIP_FRAMES] = sample["__clip__"].frames
    (width, height), video = pictured(sample, image_header(sample)) if sizes else ((None, None), {})
    facts |= other_sizes(sample) if sizes else {}
    own = {"key": sample.get("__key__"), "width": width, "height": height}
    return {**facts, **video, **{name: v for name, v in own.items() if v is not None or name not in facts}}


def pictured(
    sample: Mapping[str, Any], header: ImageHeader | None
) -> tuple[tuple[int | None, int | None], dict[str, Any]]:
    """Width and height of a sample's main image, by its header, or without one of its main video; and the columns of
    the video.

    >>> pictured({"__key__": "a", "mp4": b"no video"}, None)
    ((None, None), {'video.frames': 0})
    """
    video = video_facts(sample)
    if header is None:
        return (video.get("video.width"), video.get("video.height")), video
    return (header.width, header.height), video


def video_facts(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What the header of a sample's main video says, by column; nothing where there is no video."""
    names = videos_in(sample)
    if not names:
        return {}
    try:
        header = probe_video(sample[main_video(names)])
    except DecodeError:  # decoding will say so
        return {"video.frames": 0}
    height, width = header.size
    known = (header.frames, header.duration, header.fps, height, width, header.rotation, header.audio)
    return {f"video.{name}": value for name, value in zip(VIDEO, known, strict=True)}


def costs_of(sample: Mapping[str, Any]) -> dict[str, int | float]:
    """What the fields of conditions of a sample cost, by column; see ``streampipe.decoding.conditioning``."""
    found: dict[str, int | float] = {}
    for name, value in sorted(sample.items()):
        if name.endswith(".safetensors") and isinstance(value, (bytes, memoryview)):
            found |= conditioning.cost_of(name, value)
    return found


def image_size(sample: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Width and height of a sample's main image, as shown; None where there is none, a decoded or a damaged one."""
    header = image_header(sample)
    return (None, None) if header is None else (header.width, header.height)


def image_header(sample: Mapping[str, Any]) -> ImageHeader | None:
    """What the header of a sample's main image says; None where there is none, a decoded or a damaged one."""
    images = _images(sample)
    return _probed(images[_main(images)]) if images else None


def seen_in(
    sample: Mapping[str, Any],
) -> tuple[ImageHeader | None, tuple[int | None, int | None], dict[str, Any], dict[str, int]]:
    """Of a sample as a shard has it ``image_header``, width and height (``pictured``), the columns of its video and of
    its conditions, and those of its other images.
    """
    main = _only_image(tuple(sample))
    if main is not None and isinstance(sample[main], (bytes, bytearray, memoryview)):
        header = _probed(sample[main])
        return header, (None, None) if header is None else (header.width, header.height), {}, {}
    header, others = images_in(sample)
    size, video = pictured(sample, header)
    return header, size, {**costs_of(sample), **video}, others


@lru_cache(1024)
def _only_image(names: tuple[str, ...]) -> str | None:
    """The one image of samples with these fields, where names alone say of each that it is an image or is none, and no
    video and no conditions either: nearly always. None where contents are to be looked at.
    """
    images = [name for name in names if is_image_field(name, b"", DEFAULT)]
    said = all(says_image(name) is not None and says_video(name) is False for name in names)
    plain = said and not any(name.endswith(".safetensors") or name.startswith("__") for name in names)
    return images[0] if plain and len(images) == 1 and leads(images[0]) else None


def images_in(sample: Mapping[str, bytes]) -> tuple[ImageHeader | None, dict[str, int]]:
    """Of a sample as a shard has it ``image_header`` and ``other_sizes``."""
    images = _images(sample)
    if not images:
        return None, {}
    main = _main(images)
    return _probed(images[main]), _sizes(images, main)


def other_sizes(sample: Mapping[str, Any]) -> dict[str, int]:
    """The heights and widths of a sample's other images by column.

    >>> other_sizes({"__key__": "a", "jpg": b"no image", "ref.0.jpg": b"nor this"})
    {'ref.0.image.height': 0, 'ref.0.image.width': 0}
    """
    images = _images(apart(sample))
    return _sizes(images, _main(images)) if images else {}


def _main(images: Mapping[str, Any]) -> str:
    return next(iter(images)) if len(images) == 1 else main_image(images)


def _sizes(images: Mapping[str, Any], main: str) -> dict[str, int]:
    """The heights and widths of all images but the main one."""
    found: dict[str, int] = {}
    for name in sorted(images) if len(images) > 1 else ():  # as they stand in a shard
        if name != main:
            header = _probed(images[name])
            size = (0, 0) if header is None else (header.height, header.width)
            found |= {f"{place_of(name)}.{edge}": n for edge, n in zip(EDGES, size, strict=True)}
    return found


def _images(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The images of a sample that are not decoded yet."""
    encoded: dict[str, Any] = {
        name: value
        for name, value in sample.items()
        if isinstance(value, (bytes, bytearray, memoryview)) and not name.startswith("__")
    }
    images = {name: data for name, data in encoded.items() if is_image_field(name, data, DEFAULT)}
    if any(map(leads, images)):
        return images
    every = {name: data for name, data in encoded.items() if is_image_field(name, data, BUILT_IN)}
    return images if images and main_image(every) in images else every


def _probed(data: Any) -> ImageHeader | None:
    try:
        return probe(data)
    except DecodeError:
        return None
