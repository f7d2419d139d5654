"""PNG: its header by walking the chunks, its pixels by Pillow or imagecodecs, and what Pillow gets wrong of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from streampipe.decoding.codec import Data, ImageHeader, Pixels, Wanted
from streampipe.decoding.exif import orientation_of
from streampipe.decoding.fast import decode_fast
from streampipe.decoding.icc import array_to_srgb
from streampipe.decoding.pillow import damaged, load_pillow, open_pillow, pillow_memory
from streampipe.errors import DecodeError

_START = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_LONGEST = 1 << 20
"""Bytes of a text: more is not looked into."""
_RGB = 2


class Png:
    """PNG files, and the first frame of animated ones."""

    name = "png"
    extensions = frozenset(("png", "apng"))

    def recognises(self, head: bytes) -> bool:
        """Its signature."""
        return head[:8] == _START

    def header(self, data: Data) -> ImageHeader:
        """By walking the chunks: Pillow decodes all pixels to find an EXIF chunk behind them."""
        start = bytes(data[:33])
        width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
        if len(start) < 33 or start[12:16] != b"IHDR" or not width or not height:
            raise DecodeError(f"the PNG image of {len(data)} bytes has a damaged header")
        exif = raw = xmp = None
        for kind, at, end in _chunks(data):
            if kind == b"eXIf":
                exif = bytes(data[at:end])
            elif kind in _TEXTS and end - at <= _LONGEST:
                name, text = _text(kind, bytes(data[at:end]))
                raw = _unhex(text) if name == b"Raw profile type exif" else raw
                xmp = text if name == b"XML:com.adobe.xmp" else xmp
        return ImageHeader("PNG", height, width, orientation_of(exif or raw, xmp))

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """Pillow's image of four bytes a pixel, that of the result and of its alpha."""
        return pillow_memory(header, 9)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        depth, colour = data[24], data[25]
        if depth == 8 and colour == _RGB and not data[28] and not wanted.labels and _is_plain(data, wanted.icc):
            fast = decode_fast(self.name, data, header)
            if fast is not None:
                return Pixels(fast)
        with open_pillow(self.name, data) as image:
            clear = image.info.get("transparency")
            if isinstance(clear, int) and depth < 8 and not colour:  # Pillow scales the pixels, but not this value
                image.info["transparency"] = clear if depth == 1 else clear * 255 // ((1 << depth) - 1)
            exact = depth == 16 and colour == _RGB and isinstance(clear, tuple)
            if exact:
                del image.info["transparency"]
            pixels = load_pillow(self.name, image, data, wanted)
        if not exact:
            return pixels
        background = (0, 0, 0) if wanted.labels else wanted.background
        return _without(pixels, self._equal(data, clear), background)

    def _equal(self, data: Data, colour: tuple[int, int, int]) -> np.ndarray:
        """Where pixels of 16 bits have a colour.

        Pillow gives their high bytes; read the other way round, the low ones.
        """
        halves = []
        for mode in ("RGB;16B", "RGB;16L"):
            with open_pillow(self.name, data) as image:
                try:
                    image.tile = [tile._replace(args=mode) for tile in image.tile]
                    image.load()
                    halves.append(np.asarray(image))
                except Exception as error:
                    raise damaged(self.name, data, error) from error
        high, low = np.array([each >> 8 for each in colour]), np.array([each & 255 for each in colour])
        return np.asarray(((halves[0] == high) & (halves[1] == low)).all(-1))


def _is_plain(data: Data, icc: str) -> bool:
    """Whether a file of colours has one frame, nothing transparent, and no profile that is asked for."""
    odd = {b"tRNS", b"acTL"} | ({b"iCCP"} if icc == "srgb" else set())
    return odd.isdisjoint(kind for kind, _, _ in _chunks(data))


def _without(pixels: Pixels, clear: np.ndarray, background: tuple[int, int, int]) -> Pixels:
    values, notes = pixels.values, pixels.notes
    if pixels.profile is not None:  # the background has the right colour already
        values, more = array_to_srgb(values, pixels.profile)
        notes += more
    values[clear] = background
    return Pixels(values, np.where(clear, 0, 255).astype(np.uint8)[..., None], None, notes)


def _chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk behind the header; pixels are passed over."""
    at = 33
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield bytes(data[at + 4 : at + 8]), at + 8, min(at + 8 + size, len(data))
        at += 12 + size


def _text(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Name and text of a text chunk; no text where it is damaged or too long."""
    name, _, text = body.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = text[:1] == b"\1"
        text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        text = text[1:]
    if packed:
        try:
            text = zlib.decompressobj().decompress(text, _LONGEST)
        except zlib.error:
            text = b""
    return name, text


def _unhex(text: bytes) -> bytes | None:
    """The bytes of ImageMagick's raw profiles: a name, a length, and hexadecimal digits; None if they are not that."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None
