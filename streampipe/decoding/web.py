"""WebP, GIF and AVIF: pixels by Pillow, those of plain WebP by imagecodecs where it is installed."""

from __future__ import annotations

from collections.abc import Iterator

from streampipe.decoding.boxes import brands, without_exif
from streampipe.decoding.codec import Data, ImageHeader, Pixels, Wanted
from streampipe.decoding.exif import orientation_of
from streampipe.decoding.fast import decode_fast
from streampipe.decoding.pillow import decode_pillow, pillow_header, pillow_memory
from streampipe.errors import ConfigError, DecodeError

_AVIF = frozenset((b"avif", b"avis"))
_PROFILE, _ALPHA, _ANIMATION = 0x20, 0x10, 0x02  # of a file's flags
_CONTAINERS = frozenset((b"mif1", b"msf1", b"miaf"))


class Webp:
    """WebP files, and the first frame of animated ones."""

    name = "webp"
    extensions = frozenset(("webp",))

    def recognises(self, head: bytes) -> bool:
        """A RIFF file of that kind."""
        return head[:4] == b"RIFF" and head[8:12] == b"WEBP"

    def header(self, data: Data) -> ImageHeader:
        """By walking the chunks: Pillow allocates the whole picture when it opens it."""
        size = _webp_size(bytes(data[:30]))
        if size is None:
            raise DecodeError(f"the WEBP image of {len(data)} bytes has a damaged header")
        exif = xmp = None
        for kind, at, end in _chunks(data):
            if kind == b"EXIF":
                exif = exif or bytes(data[at:end])
            elif kind == b"XMP ":
                xmp = xmp or bytes(data[at:end])
        return ImageHeader("WEBP", *size, orientation_of(exif, xmp))

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """libwebp's two canvases, its frame, Pillow's image, the result and its alpha."""
        return pillow_memory(header, 24)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        if not wanted.labels and _is_plain_webp(data, wanted.icc):
            fast = decode_fast(self.name, data, header)
            if fast is not None:
                return Pixels(fast)
        return decode_pillow(self.name, data, wanted)


class Gif:
    """The first frame of GIF files."""

    name = "gif"
    extensions = frozenset(("gif",))

    def recognises(self, head: bytes) -> bool:
        """One of its two signatures."""
        return head[:6] in (b"GIF87a", b"GIF89a")

    def header(self, data: Data) -> ImageHeader:
        """By Pillow: a frame may be larger than the file says it is."""
        return pillow_header(self.name, data)

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """Pillow's palette image, the result and its alpha."""
        return pillow_memory(header, 8)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        return decode_pillow(self.name, data, wanted)


class Avif:
    """AVIF files, and the first frame of animated ones."""

    name = "avif"
    extensions = frozenset(("avif",))

    def recognises(self, head: bytes) -> bool:
        """By its brands: a file of a general one names its codec among those that it is compatible with."""
        found = brands(head)
        return bool(found) and (found[0] in _AVIF or (found[0] in _CONTAINERS and not _AVIF.isdisjoint(found)))

    def header(self, data: Data) -> ImageHeader:
        """By Pillow, which says how the file's own boxes turn it."""
        try:
            return pillow_header(self.name, data)
        except DecodeError:  # Pillow refuses a file for its EXIF
            return pillow_header(self.name, without_exif(data))

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """libavif's planes of up to 16 bits, its RGB, Pillow's image, the result and its alpha."""
        return pillow_memory(header, 24)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        try:
            return decode_pillow(self.name, data, wanted)
        except ConfigError:
            raise
        except DecodeError:
            return decode_pillow(self.name, without_exif(data), wanted)


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Height and width. (RFC 9649, 2.5 to 2.7)"""
    kind = head[12:16]
    if kind == b"VP8X" and len(head) >= 30:
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if kind == b"VP8L" and len(head) >= 25 and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 " and len(head) >= 30 and head[23:26] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return (height, width) if width and height else None
    return None


def _is_plain_webp(data: Data, icc: str) -> bool:
    """Whether a file has one frame, nothing transparent, and no profile that is asked for. (RFC 9649, 2.7)"""
    if bytes(data[12:16]) == b"VP8X":
        return not data[20] & (_ALPHA | _ANIMATION | (_PROFILE if icc == "srgb" else 0))
    return bytes(data[12:16]) == b"VP8 "


def _chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk of a RIFF file."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield bytes(data[at : at + 4]), at + 8, min(at + 8 + size, len(data))
        at += 8 + size + size % 2
