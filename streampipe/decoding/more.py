"""Formats that must be asked for: BMP, TIFF and JPEG 2000 by Pillow; HEIC and JPEG XL by its plugins in extra packages.

Sizes are read here without the packages, so indexes and buckets know them, and no C library is reached for that.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from streampipe.decoding.boxes import boxes, brands, heif_size
from streampipe.decoding.codec import Data, ImageHeader, Pixels, Wanted
from streampipe.decoding.pillow import decode_pillow, load_pillow, open_pillow, pillow_header, pillow_memory
from streampipe.errors import DecodeError

_HEIC = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"))
_CONTAINERS = frozenset((b"mif1", b"msf1", b"miaf"))
_TURNS = {n: Image.Transpose(turn) for n, turn in {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.items()}
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class Bmp:
    """Windows bitmaps."""

    name = "bmp"
    extensions = frozenset(("bmp", "dib"))

    def recognises(self, head: bytes) -> bool:
        """Two letters, and a header of a known length."""
        return head[:2] == b"BM" and len(head) >= 18 and int.from_bytes(head[14:18], "little") in range(12, 125)

    def header(self, data: Data) -> ImageHeader:
        """By Pillow, in Python."""
        return pillow_header(self.name, data)

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """Pillow's image and the result."""
        return pillow_memory(header, 9)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        return decode_pillow(self.name, data, wanted)


class Tiff:
    """The first page of TIFF files."""

    name = "tiff"
    extensions = frozenset(("tif", "tiff"))

    def recognises(self, head: bytes) -> bool:
        """The order of bytes, and 42, or 43 in large files."""
        return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

    def header(self, data: Data) -> ImageHeader:
        """By Pillow, in Python. It turns the image itself when it decodes it."""
        with open_pillow(self.name, data) as image:
            tags = image.tag_v2
            size = int(tags[257]), int(tags[256])  # what Pillow's own size means has changed between its versions
            return ImageHeader("TIFF", *(size[::-1] if tags.get(0x0112) in (5, 6, 7, 8) else size))

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """libtiff's strips, Pillow's image (turned), the result and its alpha."""
        return pillow_memory(header, 16)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        return decode_pillow(self.name, data, wanted)


class Jpeg2000:
    """JPEG 2000, in its container or as a bare stream."""

    name = "jpeg2000"
    extensions = frozenset(("jp2", "j2k", "jpx", "j2c", "jpf"))

    def recognises(self, head: bytes) -> bool:
        """The container's signature, or the stream's."""
        return head[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51"

    def header(self, data: Data) -> ImageHeader:
        """By Pillow, in Python."""
        return pillow_header(self.name, data)

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """OpenJPEG's components of 32 bits, Pillow's image, the result and its alpha."""
        return pillow_memory(header, 32)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        return decode_pillow(self.name, data, wanted)


class Heic:
    """HEIC (HEIF with HEVC), as telephones take photos: by pillow-heif."""

    name = "heic"
    extensions = frozenset(("heic", "heif", "hif"))

    def recognises(self, head: bytes) -> bool:
        """By its brands."""
        found = brands(head)
        return bool(found) and (found[0] in _HEIC or (found[0] in _CONTAINERS and not _HEIC.isdisjoint(found)))

    def header(self, data: Data) -> ImageHeader:
        """From the file's boxes. The codec turns the image itself."""
        try:
            size = heif_size(data)
        except IndexError:  # it ends in the middle
            size = None
        if size is None or not all(size):
            raise DecodeError(f"the HEIC image of {len(data)} bytes has a damaged header")
        return ImageHeader("HEIC", *size)

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """libheif's planes and RGB (turned), Pillow's image, the result and its alpha."""
        return pillow_memory(header, 24)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        return decode_pillow(self.name, data, wanted)


class JpegXl:
    """JPEG XL, in its container or as a bare stream: by pillow-jxl-plugin."""

    name = "jxl"
    extensions = frozenset(("jxl",))

    def recognises(self, head: bytes) -> bool:
        """The container's signature, or the stream's."""
        return head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n" or head[:2] == b"\xff\x0a"

    def header(self, data: Data) -> ImageHeader:
        """From the stream's first bits: the plugin decodes all pixels when it opens a file.

        libjxl turns them itself.
        """
        height, width, orientation = _jxl(data)
        return ImageHeader("JXL", *((width, height) if orientation > 4 else (height, width)))

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """libjxl's planes of floats, its RGB, Pillow's image, the result and its alpha."""
        return pillow_memory(header, 40)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        with open_pillow(self.name, data) as image:
            pixels = load_pillow(self.name, image, data, wanted)
            kept_as_jpeg = bool(getattr(image, "jpeg", False))  # the plugin gives it as it was stored
        orientation = _jxl(data)[2]
        if not kept_as_jpeg or orientation == 1:
            return pixels
        turned = Image.fromarray(pixels.values.squeeze()).transpose(_TURNS[orientation])
        return pixels._replace(values=np.array(turned).reshape(turned.height, turned.width, -1))


def _jxl(data: Data) -> tuple[int, int, int]:
    """Height, width and orientation of a JPEG XL stream. (ISO/IEC 18181-1, annex D)"""
    bits = _Bits(_stream(data))
    bits.take(16)  # the signature
    small = bits.take(1)
    height = (bits.take(5) + 1) * 8 if small else bits.size()
    ratio = bits.take(3)
    if ratio:
        across, down = _RATIOS[ratio - 1]
        width = height * across // down
    else:
        width = (bits.take(5) + 1) * 8 if small else bits.size()
    plain = bits.take(1)
    orientation = 1 + bits.take(3) if not plain and bits.take(1) else 1
    return height, width, orientation


def _stream(data: Data) -> bytes:
    """The first bytes of the stream, out of its container if it is in one."""
    if bytes(data[:2]) == b"\xff\x0a":
        return bytes(data[:32])
    for kind, at, end in boxes(data, 0, len(data)):
        if kind in (b"jxlc", b"jxlp"):
            start = at + (4 if kind == b"jxlp" else 0)
            return bytes(data[start : min(end, start + 32)])
    return b""


class _Bits:
    """Numbers out of bytes, lowest bits first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next so many bits."""
        if count > self._left:
            raise DecodeError("the JXL image has a damaged header")
        found = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._left -= count
        return found

    def size(self) -> int:
        """An edge: one of four lengths of number."""
        return 1 + self.take((9, 13, 18, 30)[self.take(2)])
