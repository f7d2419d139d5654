"""One image, by content, straight to its size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from streampipe.counters import counters
from streampipe.decoding.budget import MEMORY, budget
from streampipe.decoding.codec import Codec, Data, ImageHeader, Pixels, Wanted
from streampipe.decoding.codecs import BUILT_IN, DEFAULT, Formats, codecs_of, recognise
from streampipe.decoding.geometry import MARGIN, Cut, Geometry, Size, decide, whole
from streampipe.decoding.icc import array_to_srgb
from streampipe.decoding.pillow import decode_pillow
from streampipe.decoding.resize import FILTERS, resize
from streampipe.errors import DecodeError

MAX_PIXELS = 64_000_000
_BLACK = (0, 0, 0)


def probe(data: Data) -> ImageHeader:
    """Format, size and orientation of an image of any built-in format, also of those that must be asked for to be
    decoded; no pixel is decoded.

    Raises:
        DecodeError: the bytes are no image of a known format, or its header is damaged.
    """
    codec = recognise(data, BUILT_IN)
    if codec is None:
        raise DecodeError(f"{len(data)} bytes that begin {bytes(data[:8])!r} are no image of a known format")
    return codec.header(data)


class EncodedImage:
    """An image of which the header has been read, and no pixel yet.

    Args:
        data: the file.
        max_pixels: larger images are refused.
        codecs: those that may have it, see ``codecs_of``.
        memory: bytes that all images which are decoded at this moment in this process may take together.

    Raises:
        DecodeError: damaged, of no allowed format, or larger than ``max_pixels``.
    """

    def __init__(
        self,
        data: Data,
        *,
        max_pixels: int = MAX_PIXELS,
        codecs: tuple[Codec, ...] = DEFAULT,
        memory: int = MEMORY,
    ) -> None:
        codec = recognise(data, codecs)
        if codec is None:
            raise DecodeError(_unknown(data, codecs))
        self.data = data
        self._codec = codec
        self._memory = memory
        self.header: ImageHeader = codec.header(data)
        self.size: Size = self.header.height, self.header.width
        """(height, width) as shown."""
        if self.size[0] * self.size[1] > max_pixels:
            raise DecodeError(
                f"the {self.header.format} image has {self.header.height} x {self.header.width} pixels (height x "
                f"width; at most {max_pixels} in all are allowed); raise max_pixels if it is meant"
            )

    def cut(self, geometry: Geometry | None, margin: float | None = MARGIN, flipped: bool = False) -> Cut:
        """What a geometry means for this file; None: the whole image as it is, or ``flipped``."""
        header = self.header
        if geometry is None:
            return whole(header.stored, header.orientation, flipped)
        cut = geometry.cut(header.stored, header.orientation, margin)
        return cut if cut.eighths in header.scales else cut.at_full_scale

    def decode(
        self,
        cut: Cut,
        *,
        interpolation: str = "bicubic",
        background: tuple[int, int, int] = (255, 255, 255),
        alpha: str | None = None,
        out: torch.Tensor | None = None,
        labels: bool = False,
        icc: str = "ignore",
        damaged: str = "error",
        fast: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The cut as uint8, 3 x height x width, into ``out`` if given; and with ``alpha``, an interpolation, the alpha
        channel by that, 1 x height x width: 255 where the image has none.

        ``labels``, ``icc``, ``damaged``: see ``Wanted``. Labels that are greys are 1 x height x width, of more than 8
        bits int32. ``fast=False``: by the reference, Pillow.
        """
        if not fast:
            cut = cut.at_full_scale
        background = _BLACK if labels else background
        wanted = Wanted(cut.eighths, background, labels, icc, damaged)
        with budget.take(self._codec.memory(self.header, cut.eighths), self._memory):
            pixels = self._pixels(wanted, fast)
            if pixels.profile is not None and cut.canvas is not None:  # what is around it has the right colour already
                converted, notes = array_to_srgb(pixels.values, pixels.profile)
                pixels = pixels._replace(values=converted, profile=None, notes=(*pixels.notes, *notes))
            values = resize(pixels.values, cut, interpolation, out, fast, background)
            mask = None
            if alpha is not None and pixels.alpha is not None:
                mask = resize(pixels.alpha, cut, alpha, None, fast)
            profile, notes = pixels.profile, pixels.notes
            del pixels  # before others may take its memory
        if profile is not None:
            notes += _convert(values, profile)
        for note in notes:
            counters.add("decode", note)
        if alpha is not None and mask is None:
            mask = resize(_opaque(cut), _plain(cut), "nearest")
        return values, mask

    def _pixels(self, wanted: Wanted, fast: bool) -> Pixels:
        pixels = self._codec.decode(self.data, self.header, wanted) if fast else self._by_reference(wanted)
        expected = self.header.scaled(wanted.eighths)
        for each in (pixels.values, pixels.alpha):
            if each is not None and each.shape[:2] != expected:
                raise DecodeError(
                    f"the {self.header.format} image says in its header that it is {expected[0]} x {expected[1]} "
                    f"(height x width), but its pixels are {each.shape[0]} x {each.shape[1]}"
                )
        return pixels

    def _by_reference(self, wanted: Wanted) -> Pixels:
        return decode_pillow(self._codec.name, self.data, wanted)


def decode_image(
    data: Data,
    *,
    size: tuple[int, int] | None = None,
    crop: tuple[float, float] = (0.5, 0.5),
    flip: bool = False,
    output: str = "tensor",
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
    margin: float | None = MARGIN,
    interpolation: str = "bicubic",
    formats: Formats = (),
    icc: str = "ignore",
    damaged: str = "error",
    labels: bool = False,
    memory: int = MEMORY,
    out: torch.Tensor | None = None,
    fast: bool = True,
) -> Any:
    """An image as uint8 tensor (3 x height x width, RGB, channels-last memory), or as numpy array or PIL image.

    With ``size`` (height, width) the image is scaled to cover it, cropped at ``crop`` ((top, left), each in [0, 1]; the
    centre by default) and, with ``flip``, mirrored. EXIF orientation is applied; the first frame of an animation is
    taken; 16 bits become 8; transparency is composited on ``background``. JPEGs take a fast path that decodes at a
    smaller scale; it agrees with the Pillow path (``fast=False``) to 40 dB PSNR or better on photos, and to 3 levels
    with ``margin=None``. ``out`` is where to write the pixels: uint8, 3 x height x width. ``formats``: see
    ``codecs_of``; ``memory``: see ``EncodedImage``; ``icc``, ``damaged``, ``labels``: see ``Wanted``.

    Raises:
        DecodeError: damaged, of no allowed format, or larger than ``max_pixels``; never a part of an image, unless
            ``damaged="accept"``.

    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (60, 40), (200, 0, 0)).save(file, "PNG")
    >>> decode_image(file.getvalue(), size=(8, 8))[:, 0, 0]
    tensor([200,   0,   0], dtype=torch.uint8)
    """
    image = EncodedImage(data, max_pixels=max_pixels, codecs=codecs_of(formats), memory=memory)
    geometry = None if size is None else decide(image.size, size, crop, flip, margin)
    found, _ = image.decode(
        image.cut(geometry, None if labels else margin),
        interpolation=interpolation,
        background=background,
        out=out,
        labels=labels,
        icc=icc,
        damaged=damaged,
        fast=fast,
    )
    return delivered(found, output)


def delivered(image: torch.Tensor, output: str) -> Any:
    """An image as ``"tensor"``, ``"numpy"`` (height x width x channels) or ``"pil"``."""
    if output == "tensor":
        return image
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return pixels if output == "numpy" else Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def fit_image(image: Any, geometry: Geometry | None, interpolation: str, flipped: bool = False) -> Any:
    """An image that was decoded at its own size, brought to a size; what it was it stays: tensor, numpy or PIL, in its
    own mode. Without a geometry it keeps its size, and is ``flipped`` if so.
    """
    size = size_of(image)
    cut = whole(size, flipped=flipped) if geometry is None else geometry.cut(size)
    if isinstance(image, Image.Image) and image.mode not in ("L", "RGB"):
        return _fit_pillow(image, cut, interpolation)
    fitted = resize(pixels_of(image), cut, interpolation)
    if isinstance(image, torch.Tensor):
        return fitted
    if isinstance(image, Image.Image):
        return delivered(fitted, "pil")
    made = delivered(fitted, "numpy").astype(image.dtype)
    return made.reshape(*made.shape[:2], *image.shape[2:])


def _fit_pillow(image: Image.Image, cut: Cut, interpolation: str) -> Image.Image:
    """An image of any other mode, by Pillow: palettes and single bits take the nearest pixel."""
    found = Image.Resampling.NEAREST if image.mode in ("1", "P", "PA") else FILTERS[interpolation]
    box = (cut.left, cut.top, cut.left + cut.width, cut.top + cut.height)
    fitted = image.resize((cut.out_width, cut.out_height), found, box=box)
    if cut.turn.flip_x:
        fitted = fitted.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if cut.canvas is None:
        return fitted
    canvas = Image.new(image.mode, cut.canvas[::-1])
    if image.mode in ("P", "PA") and (palette := image.getpalette()):
        canvas.putpalette(palette)
    canvas.paste(fitted, ((canvas.width - fitted.width) // 2, (canvas.height - fitted.height) // 2))
    return canvas


def is_image(value: Any) -> bool:
    """Whether a value is a decoded image: a PIL image, a uint8 tensor (1, 3 or 4 x height x width) or array (height x
    width, or height x width x 1, 3 or 4); or labels of more than 8 bits: an int32 tensor (1 x height x width), or a
    uint16 or int32 array (height x width, or height x width x 1).
    """
    if isinstance(value, torch.Tensor):
        return value.dim() == 3 and value.shape[0] in {torch.uint8: (1, 3, 4), torch.int32: (1,)}.get(value.dtype, ())
    if isinstance(value, np.ndarray):
        channels = (1, 3, 4) if value.dtype == np.uint8 else (1,) if value.dtype in (np.uint16, np.int32) else ()
        return bool(channels) and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in channels))
    return isinstance(value, Image.Image)


def pixels_of(image: Any) -> np.ndarray:
    """A decoded image's pixels, height x width x channels, contiguous: torch's resize mixes up other layouts."""
    if isinstance(image, torch.Tensor):
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if isinstance(image, Image.Image):
        image = np.array(image)
    if image.dtype == np.uint16:
        image = image.astype(np.int32)
    return np.require(image.reshape(*image.shape[:2], -1), requirements=["C", "W"])


def size_of(image: Any) -> tuple[int, int]:
    """(height, width) of a decoded image."""
    if isinstance(image, torch.Tensor):
        return image.shape[1], image.shape[2]
    return (image.height, image.width) if isinstance(image, Image.Image) else image.shape[:2]


def _convert(values: torch.Tensor, profile: bytes) -> tuple[str, ...]:
    """Bring an image's colours to sRGB where they lie: after the resize, when there are fewer."""
    pixels = values.permute(1, 2, 0).numpy()
    found, notes = array_to_srgb(pixels, profile)
    if found is not pixels:
        values.copy_(torch.from_numpy(found).permute(2, 0, 1))
    return notes


def _opaque(cut: Cut) -> np.ndarray:
    """The alpha channel of an image without one, as large as its cut is once it is turned."""
    return np.full((*cut.shown, 1), 255, np.uint8)


def _plain(cut: Cut) -> Cut:
    """The cut that puts that into the canvas, and leaves it as it is."""
    rows, columns = cut.shown
    return Cut(0, 0, columns, rows, rows, columns, canvas=cut.canvas)


def _unknown(data: Data, codecs: tuple[Codec, ...]) -> str:
    names = ", ".join(each.name.upper() for each in codecs)
    what = f"{len(data)} bytes that begin {bytes(data[:8])!r} are no image of the formats {names}"
    known = recognise(data, BUILT_IN)
    return what if known is None else f"{what}, but of {known.name.upper()}: decode(formats=({known.name!r},)) takes it"
