"""Fields to values: images by their content, everything else by the last part of the field's name.

Only formats that cannot run code are here. The others are refused, and a user who trusts the data registers a decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from streampipe.decoding.arrays import UNREAD, npy, npz, safetensors
from streampipe.decoding.codec import HEAD, Codec
from streampipe.decoding.codecs import DEFAULT, OPTIONAL, codecs_of, recognise
from streampipe.decoding.extensions import JSONS, NUMBERS, TEXTS, UNSAFE
from streampipe.decoding.extensions import extension_of as _extension
from streampipe.decoding.image import decode_image
from streampipe.decoding.inflate import MAX_INFLATED, unwrapped
from streampipe.decoding.text import decode_json, decode_text
from streampipe.errors import ConfigError, DecodeError, UnsafeFormat

IMAGES = frozenset().union(*(each.extensions for each in DEFAULT))
"""Extensions of the image formats that are always decoded."""
_ASKED_FOR = {extension: each for each in OPTIONAL for extension in each.extensions}
ASKED_FOR = frozenset(_ASKED_FOR)
"""Those of the formats that are decoded where ``decode(formats=)`` names them."""
ALL_IMAGES = IMAGES | ASKED_FOR
MASKS = frozenset(("mask", "masklabel", "seg"))
RENAMED = frozenset(("image", "control", "mask"))
"""Names without an extension under which images go behind ``rename``: bytes there that are no image are damage."""
Decoder = Callable[[bytes], Any]


def is_image_field(name: str, data: bytes | memoryview, codecs: Iterable[Codec] = DEFAULT) -> bool:
    """Whether a field will become an image: by its name, or by its content where the name says nothing.

    ``codecs``: those that are used, see ``codecs_of``.

    >>> start = b"\\xff\\xd8\\xff"
    >>> is_image_field("jpg", b""), is_image_field("picture", start), is_image_field("txt", start)
    (True, True, False)
    >>> is_image_field("image", b""), is_image_field("picture", b"")
    (True, False)
    """
    known = says_image(name, codecs)
    return known if known is not None else recognise(data, codecs) is not None


def says_image(name: str, codecs: Iterable[Codec] = DEFAULT) -> bool | None:
    """Whether a name says that a field is an image; None: it says nothing."""
    known = _says_image(name)
    if known or codecs is DEFAULT:
        return known
    return any(_extension(name) in each.extensions for each in codecs) or known


@lru_cache(1024)
def _says_image(name: str) -> bool | None:
    extension = _extension(name)
    if extension in IMAGES or extension == "image" or name in RENAMED:
        return True
    return False if extension in _DECODERS or extension in UNSAFE or extension == "gz" else None


@lru_cache(1024)
def is_mask(name: str) -> bool:
    """Whether a field's name says that its pixels are labels, of which no mean can be taken: ``mask``, ``seg.png``."""
    return not MASKS.isdisjoint(name.lower().split("."))


def main_image(names: Iterable[str]) -> str:
    """Of a sample's images the one that the others (control images, masks) belong to.

    ``image``, or else the first whose name is a mere extension (of a format that is always decoded, or else of one that
    must be asked for), or else the first that is no mask.

    >>> main_image(["cond.png", "jpg", "mask.png"]), main_image(["control", "image"]), main_image(["seg.png"])
    ('jpg', 'image', 'seg.png')
    >>> main_image(["cond.png", "jxl"])
    'jxl'
    """

    def rank(name: str) -> int:
        if leads(name):
            return 1 if name in IMAGES else 0
        return 2 if name in ASKED_FOR else 4 if is_mask(name) else 3

    return min(names, key=rank)


def leads(name: str) -> bool:
    """Whether an image of that name is its sample's main image, whatever others there are in other formats."""
    return name in IMAGES or name.partition(".")[0] == "image"


def decode_field(
    name: str,
    data: bytes | memoryview,
    *,
    decoders: Mapping[str, Decoder] | None = None,
    **image_options: Any,
) -> Any:
    """The value of a field. Names may have several parts (``seg.png``, ``txt.gz``): the last one counts, after ``.gz``.

    ``decoders`` (by whole name or extension) come first. A field of an unknown kind stays bytes. ``image_options`` are
    those of ``decode_image``.

    Raises:
        DecodeError: the bytes are not what the name says; or an image in a format that ``formats`` does not name.
        UnsafeFormat: pickles and the like.

    >>> decode_field("txt", b"a cat"), decode_field("json", b'{"n": 1}'), decode_field("cls", b"7\\n")
    ('a cat', {'n': 1}, 7)
    """
    extension = _extension(name)
    own = decoders and (decoders.get(name) or decoders.get(extension))
    if own:
        return own(bytes(data))
    if is_image_field(name, data, codecs_of(image_options.get("formats", ()))):
        return decode_image(data, labels=is_mask(name), **image_options)
    if extension == "gz":
        return decode_field(*unwrapped(name, data), decoders=decoders, **image_options)
    return decode_by_name(name, data)


def decode_by_name(name: str, data: bytes | memoryview, unread: bool = False) -> Any:
    """The value of a field that is neither an image nor compressed, by the last part of its name.

    With ``unread`` an array may stay in ``data`` (``arrays.Unread``).

    Raises:
        DecodeError, UnsafeFormat: as ``decode_field``.
    """
    extension = _extension(name)
    codec = _ASKED_FOR.get(extension)
    if codec is not None and codec.recognises(bytes(data[:HEAD])):
        raise DecodeError(
            f"{codec.name} images are decoded where they are asked for: decode(formats=({codec.name!r},)) takes it; or "
            f"leave the field out with drop({name!r})"
        )
    if extension in UNSAFE:
        raise UnsafeFormat(
            f"a .{extension} file can run code when it is read; if you trust this data, register a decoder: "
            f"decode(decoders={{{extension!r}: my_function}}), or leave the field out with select(...)"
        )
    decoder = _DECODERS.get(extension)
    if decoder is None:
        return bytes(data)
    try:
        if extension in UNREAD:
            return UNREAD[extension](data, unread)
        return decoder(bytes(data))
    except (ConfigError, UnsafeFormat, DecodeError):
        raise
    except Exception as error:
        raise DecodeError(f"{len(data)} bytes are no sound .{extension} ({type(error).__name__}: {error})") from error


def _number(data: bytes) -> int:
    return int(data.decode("ascii").strip())


def _msgpack(data: bytes) -> Any:
    try:
        import msgpack
    except ImportError:
        raise ConfigError("msgpack fields need one more package: pip install 'streampipe[msgpack]'") from None
    return msgpack.unpackb(data)


def _cbor(data: bytes) -> Any:
    try:
        import cbor2
    except ImportError:
        raise ConfigError("cbor fields need one more package: pip install 'streampipe[cbor]'") from None
    return cbor2.loads(data)


def _tenbin(data: bytes) -> list[np.ndarray]:
    from webdataset import tenbin

    return list(tenbin.decode_buffer(data))


_DECODERS: dict[str, Decoder] = {
    **dict.fromkeys(TEXTS, decode_text),
    **dict.fromkeys(JSONS, decode_json),
    **dict.fromkeys(NUMBERS, _number),
    "npy": npy,
    "npz": npz,
    **dict.fromkeys(("mp", "msg", "msgpack"), _msgpack),
    "cbor": _cbor,
    "safetensors": safetensors,
    **dict.fromkeys(("ten", "tb"), _tenbin),
}
KNOWN = IMAGES | frozenset(_DECODERS)
"""Extensions that say how a field is decoded."""


__all__ = [
    "IMAGES",
    "KNOWN",
    "MAX_INFLATED",
    "decode_by_name",
    "decode_field",
    "is_image_field",
    "is_mask",
    "main_image",
]
