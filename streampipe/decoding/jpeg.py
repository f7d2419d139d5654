"""JPEG: decoded by libjpeg-turbo at the smallest sufficient scale where that is safe, else by Pillow.

The fast codec is given a scale and a buffer of the size that this scale needs. It ignores the scale for kinds of JPEG
that cannot be scaled, and then writes past the buffer. So the fast path is for what is known to be right alone:
baseline, extended and progressive Huffman coding, 8 bits, 1 or 3 components, as the header says, which is read here by
the codec's own rules (any other reading could be led to another header than the codec's). Pillow decodes the rest.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from struct import Struct

import numpy as np
import simplejpeg

from streampipe.decoding.codec import Data, ImageHeader, Pixels, Wanted
from streampipe.decoding.exif import orientation_of
from streampipe.decoding.jpeg_damage import ACCEPTED, END, cleaned, judge
from streampipe.decoding.pillow import decode_pillow
from streampipe.decoding.segments import FRAMES, SCAN, Segment, segments, without_exif
from streampipe.errors import DecodeError

_HUFFMAN = frozenset((0xC0, 0xC1, 0xC2))
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF))
_SAYING = FRAMES | {0xE1, 0xE2, SCAN}  # segments that a header is read from
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_SCALES = (1, 2, 4, 8)  # eighths: those at which the codec is fast
_KEPT = 1 << 26  # bytes of a thread's buffer that it keeps
_FRAME = Struct(">BHHB")  # of a frame header: precision, height, width, components
_local = threading.local()


@dataclass(frozen=True)
class JpegHeader(ImageHeader):
    """What a JPEG's frame header says besides."""

    frame: int = 0xC0
    components: int = 3
    has_profile: bool = False

    @property
    def is_fast(self) -> bool:
        """Whether the fast codec may have it."""
        return len(self.scales) > 1


class Jpeg:
    """JPEG files, and those of MPO, whose first image is a JPEG."""

    name = "jpeg"
    extensions = frozenset(("jpg", "jpeg", "jpe", "jfif"))

    def recognises(self, head: bytes) -> bool:
        """Start of image, and a marker."""
        return head[:3] == b"\xff\xd8\xff"

    def header(self, data: Data) -> JpegHeader:
        """By walking the markers up to the first scan: a tenth of the time of opening it."""
        exif, xmp, frame, profile = [], None, None, False
        for each in segments(data, _SAYING):
            marker, start, end = each
            if marker == SCAN:
                if frame is not None:
                    kind, precision, height, width, components = frame
                    fast = kind in _HUFFMAN and precision == 8 and components in (1, 3)
                    turned = orientation_of(b"".join(exif), xmp) if exif or xmp else 1
                    scales = _SCALES if fast else (8,)
                    return JpegHeader("JPEG", height, width, turned, scales, kind, components, profile)
            elif marker == 0xE2:
                profile = profile or bytes(data[start : start + len(_ICC)]) == _ICC
            elif marker == 0xE1:
                body = bytes(data[start:end])
                if body.startswith(_EXIF):
                    exif.append(body[len(_EXIF) :])  # a long block goes on in the next segment
                elif body.startswith(_XMP):
                    xmp = body[len(_XMP) :]
            else:
                frame = _frame(data, each)
        raise DecodeError(f"the JPEG image of {len(data)} bytes has a damaged header, or ends in it")

    def memory(self, header: ImageHeader, eighths: int) -> int:
        """Pixels at the scale; progressive files keep all coefficients, whatever the scale. Pillow needs two copies."""
        assert isinstance(header, JpegHeader)
        pixels = header.stored_width * header.stored_height
        rows, columns = header.scaled(eighths)
        coefficients = 2 * header.components * pixels if header.frame in _PROGRESSIVE else 0
        return coefficients + (3 * rows * columns if header.is_fast else 15 * pixels)

    def decode(self, data: Data, header: ImageHeader, wanted: Wanted) -> Pixels:
        """See ``Codec``."""
        assert isinstance(header, JpegHeader)
        if not header.is_fast:
            return self._by_pillow(data, header, wanted)
        profile = profile_in(data) if wanted.icc == "srgb" and header.has_profile else None
        try:
            return Pixels(_decode(data, header, wanted), None, profile)
        except ValueError as error:
            return self._doubtful(data, header, wanted, profile, str(error))

    def _doubtful(self, data: Data, header: JpegHeader, wanted: Wanted, profile: bytes | None, problem: str) -> Pixels:
        """The codec found something wrong: it is damage, unless it is in what no pixel depends on."""
        clean = cleaned(data)
        found = judge(clean, lambda whole: _decode(whole, header, wanted))
        if found.damage and wanted.damaged != "accept":
            raise _damaged(data, found.damage)
        try:
            values = _decode(found.data, header, wanted, strict=False)
        except ValueError:  # it is not decoded at all: Pillow, without a warning, has the last word
            return self._by_pillow(data, header, wanted, judged=True)
        return Pixels(values, None, profile, (ACCEPTED,) if found.damage else ())

    def _by_pillow(self, data: Data, header: JpegHeader, wanted: Wanted, judged: bool = False) -> Pixels:
        """Pillow drops the codec's warnings, so the fast codec is asked for them, at full scale, where it can."""
        notes: tuple[str, ...] = ()
        if not judged and header.frame not in _LOSSLESS and header.components in (1, 3, 4):
            space = {1: "GRAY", 3: "RGB", 4: "CMYK"}[header.components]
            found = judge(bytes(data), lambda whole: simplejpeg.decode_jpeg(whole, space), fatal_is_damage=False)
            if found.damage:
                data = bytes(data) + END  # or Pillow waits for more
                found = judge(cleaned(data[: -len(END)]), lambda whole: simplejpeg.decode_jpeg(whole, space))
            if found.damage and wanted.damaged != "accept":
                raise _damaged(data, found.damage)
            notes = (ACCEPTED,) if found.damage else ()
        pixels = decode_pillow("jpeg", without_exif(data), wanted)
        return pixels._replace(notes=pixels.notes + notes)


def profile_in(data: Data) -> bytes | None:
    """The ICC profile of a JPEG; its parts are numbered. None if there is none, or a part is missing."""
    parts: dict[int, bytes] = {}
    count = 0
    for each in segments(data):
        if each.marker == 0xE2 and bytes(data[each.start : each.start + len(_ICC)]) == _ICC and each.size > 14:
            number, count = data[each.start + 12], data[each.start + 13]
            parts[number] = bytes(data[each.start + 14 : each.end])
    return b"".join(parts[i] for i in sorted(parts)) if parts and sorted(parts) == list(range(1, count + 1)) else None


def _frame(data: Data, each: Segment) -> tuple[int, int, int, int, int] | None:
    """Of a frame header its marker, and precision, height, width and components; None where it says no size."""
    if each.size < _FRAME.size:
        return None
    precision, height, width, components = _FRAME.unpack_from(data, each.start)
    return (each.marker, precision, height, width, components) if height and width else None


def _decode(data: Data, header: JpegHeader, wanted: Wanted, strict: bool = True) -> np.ndarray:
    """The pixels at a scale.

    Raises ValueError where the codec finds anything wrong, or gives what was not asked for.
    """
    rows, columns = header.scaled(wanted.eighths)
    grey = wanted.labels and header.components == 1
    shape = (rows, columns, 1 if grey else 3)
    pixels: np.ndarray = simplejpeg.decode_jpeg(
        data,
        "GRAY" if grey else "RGB",
        min_height=rows,
        min_width=columns,
        buffer=_buffer(rows * columns * shape[2]),
        strict=strict,
    )
    if pixels.shape != shape:
        raise ValueError(f"the codec gave {pixels.shape} where {shape} was asked for")
    return pixels


def _buffer(size: int) -> np.ndarray:
    """This thread's own memory to decode into: fresh memory for every image costs a page fault every 4 kB."""
    held: np.ndarray | None = getattr(_local, "buffer", None)
    if held is None or held.nbytes < size:
        held = np.empty(size, np.uint8)
        if size <= _KEPT:
            _local.buffer = held
    return held[:size]


def _damaged(data: Data, problem: str) -> DecodeError:
    return DecodeError(
        f"the JPEG image of {len(data)} bytes is damaged, so a part of its pixels is wrong or missing ({problem}); "
        f"decode(damaged='accept') takes it as it is and counts it"
    )
