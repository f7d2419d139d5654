"""``decode``: bytes become images, texts, numbers and arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from streampipe.context import FILLED_IN, Run, Sample, key_of, where
from streampipe.counters import counters
from streampipe.decoding import (
    MAX_PIXELS,
    MEMORY,
    Colour,
    DeferredImage,
    EncodedImage,
    Formats,
    codecs_of,
    decode_field,
    deferrable,
    delivered,
    is_image_field,
    is_mask,
    unwrapped,
)
from streampipe.decoding.arrays import owned
from streampipe.decoding.clip import Clip
from streampipe.decoding.extensions import extension_of
from streampipe.decoding.fields import decode_by_name
from streampipe.decoding.movie import is_video_field, main_video
from streampipe.decoding.several import apart, list_of, together
from streampipe.decoding.video import EncodedVideo
from streampipe.decorators.skip import SKIP
from streampipe.errors import ConfigError, DecodeError, SampleError, StageError, StreampipeError, UnsafeFormat
from streampipe.stages.framing import TOO_SMALL, Crop, Frame, Framing, Sizes, main_of, passed
from streampipe.stages.left import check_left
from streampipe.stages.stage import stage
from streampipe.stages.values import check_choice, check_colour, check_functions, check_names, check_number
from streampipe.threads import ordered

Encoded = EncodedImage | EncodedVideo
_CLIP = "__clip__"
_LEFT = (
    "decode().fit(...) cuts arrays of uint8, uint16 and int32 too, decode(fields=) leaves out what you cut by yourself"
)
Decoders = Mapping[str, Callable[[bytes], Any]]
Rows = Mapping[str, torch.Tensor]


def _check(threads: Any, **options: Any) -> None:
    check_number("decode", "threads", threads, 0, optional=True)
    FieldDecoder(Run(stage="decode"), **options)


def _own_size(options: Mapping[str, Any]) -> Any:
    size = options["size"]
    return None if isinstance(size, Mapping) else size  # by field: the main image may have its bucket's


@stage(rows="each", state="nothing", takes="samples", views=True, check=_check, bytes_out=True, own_size=_own_size)
def decode(
    samples: Iterable[Sample],
    size: Sizes = None,
    *,
    crop: Crop = "center",
    flip: float = 0.0,
    upscale: str | float = "allow",
    mode: str = "cover",
    scale: tuple[float, float] = (1.0, 1.0),
    output: str = "tensor",
    background: Colour = (255, 255, 255),
    alpha: str | None = None,
    icc: str = "srgb",
    damaged: str = "error",
    device: str | None = None,
    formats: Formats = (),
    max_pixels: int = MAX_PIXELS,
    memory: int = MEMORY,
    margin: float | str | None = "default",
    interpolation: str | Mapping[str, str] = "bicubic",
    rounding: str = "round",
    original_size: str = "image",
    decoders: Decoders | None = None,
    fields: tuple[str, ...] | None = None,
    threads: int | None = None,
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """Every field decoded: images by their content, other fields by the last part of their name.

    Where images are brought to a size, one decision about crop and flip is made for all images of a sample, so control
    images and masks stay aligned, whatever their resolution. It is recorded, sizes as (height, width):

    - ``original_size``: of the main image (``image``, or ``jpg`` and the like), after EXIF orientation;
    - ``crop_top_left``: (top, left) of the result in the resized, and then mirrored, picture;
    - ``target_size``, ``flipped``;
    - ``time_ids``: original size, crop and target as an int64 tensor of shape (6,), as SDXL is conditioned on them, in
      diffusers' order; (batch, 6) in a batch.

    Several images in one field (see ``collect``) are a list of images, and what is recorded of them lists.

    An image with a size of its own has a record of its own (``control.original_size``, ``control.crop_top_left``,
    ``control.target_size``) and the sample's flip. So has one that is decoded in another stage than the main image.

    Behind ``clips`` a video becomes the frames of its sample's clip, frames x 3 x height x width (numpy: frames x
    height x width x 3), and only they are decoded. All videos and images of the sample share the clip's times and the
    main video's geometry. Of a sample without a video the images are one frame each. ``clip_start`` (seconds) and
    ``clip_fps`` are recorded. Videos need ``pip install 'streampipe[video]'``.

    Fields named ``mask``, ``masklabel`` or ``seg`` are labels: greys are 1 x height x width, with the values that are
    stored (more than 8 bits: int32), colours 3 x height x width; transparent pixels are 0.

    Args:
        size: images are brought to this size, an edge or (height, width): scaled to cover it, then cropped, in one
            antialiased resize straight from the codec's smallest sufficient scale. None: the size that ``bucket`` gave
            the sample (``__size__``), else each image's own. Or sizes by field, as in ``{"image": 512, "control":
            sp.Area(1024 * 1024)}``: the fields named are cut by themselves, None leaves one as large as it is; the
            others have the main image's size and place.
        crop: where the crop is taken: ``"center"``, ``"random"``, seeded by (seed, epoch, key, stage), or a function
            ``crop(room, sample)`` or ``crop(room, sample, rng)`` that gives its (top, left) in the resized picture, in
            pixels. ``room`` has ``size``, ``resized`` and ``target``, the sample its decoded fields without images.
        flip: the share of samples to mirror left to right.
        upscale: what to do with images smaller than the size: ``"allow"``; ``"drop"`` the sample; or a number, to drop
            it where the image would be enlarged more than so many times. Where the tier is planned, the slot of a
            dropped sample is filled from its batch; ``where("width >= 512 and height >= 512")`` costs nothing.
        mode: ``"cover"``: the size is filled, what is over is cut away; ``"contain"``: the whole picture, as large as
            it is inside the size, and no larger; ``"pad"``: that, in the middle of ``background`` (masks: 0) of the
            size.
        scale: the least and the most of the largest crop's edges to take, as in (0.5, 1.0), drawn for each sample.
        output: images as ``"tensor"`` (uint8, 3 x height x width, channels-last memory), ``"numpy"`` (height x width
            x 3) or ``"pil"``.
        background: the colour (red, green, blue) behind transparent pixels.
        alpha: ``"mask"`` gives the main image's alpha channel too, as the field ``mask`` (1 x height x width; 255
            where there is none).
        icc: ``"srgb"``: colours with an ICC profile are brought to sRGB, as browsers show them; ``"ignore"``: they are
            as they are stored.
        damaged: ``"error"``: an image of which a part is missing or wrong is an error; ``"accept"``: JPEGs are taken as
            far as they can be decoded, and counted.
        device: ``"cuda"``: JPEGs are decoded on the GPU, by ``sp.to_device(loader, "cuda")``, which the loader must be
            given to. Workers read headers, decide, and hand bytes over; until then a field is a ``DeferredImage``, so
            no stage behind can look at pixels. What the GPU's codec does not take (other formats, other colours than
            sRGB, masks) is decoded here. Damage inside a JPEG is found as far as the GPU's codec finds it.
        formats: formats that are decoded besides JPEG, PNG, WebP, GIF and AVIF: ``"bmp"``, ``"tiff"``, ``"jpeg2000"``,
            ``"heic"``, ``"jxl"`` (the last two need ``pip install 'streampipe[heic]'``, ``'streampipe[jxl]'``), the
            name of one that another package brings, or a ``Codec``.
        max_pixels: larger images are refused, by their header, before anything is allocated.
        memory: bytes that the images which are decoded at the same time in this process may take together; what does
            not fit waits. An image that needs more is decoded alone.
        margin: how many times larger than needed the codec's scaled image must stay; None decodes at full scale.
        interpolation: ``"bicubic"``, ``"bilinear"``, ``"lanczos"``, ``"area"`` (all antialiased; the last two are
            slower) or ``"nearest"``; or one by field name, as in ``{"mask": "bilinear"}``. Labels take the nearest
            pixel.
        rounding: ``"truncate"``: ``crop_top_left`` and ``time_ids`` are those of diffusers' SDXL script, which cuts off
            fractions of the resized edges; they differ by one for half of all sizes.
        original_size: ``"json"`` takes ``original_width`` and ``original_height`` (or ``WIDTH``, ``HEIGHT``) of the
            json member, for shards that hold resized images; ``"image"`` the size of the image in the shard.
        decoders: functions from bytes to anything, by field name (``"seg.png"``) or extension (``"png"``); they come
            before the built-in ones. This is how formats that are refused for safety (pickle) can be allowed.
        fields: decode only these (``"jpg;png"`` is any of the two); others stay bytes.
        threads: decode so many samples at once, in order; the codecs release the GIL.

    Counted in the report: samples dropped as too small, animations of which the first frame was taken, colours that
    were converted, damaged images that were accepted, json members that state another size than the image has.

    Raises:
        DecodeError: a field's bytes are damaged, too large, or not what they claim to be; or a sample's images are not
            of one shape and so cannot be cut as one.
        UnsafeFormat: a field in a format that can run code.

    >>> list(decode()([{"__key__": "a", "txt": b"a cat", "cls": b"3"}]))
    [{'__key__': 'a', 'txt': 'a cat', 'cls': 3}]
    """
    decoder = FieldDecoder(
        run,
        size=size,
        crop=crop,
        flip=flip,
        upscale=upscale,
        mode=mode,
        scale=scale,
        output=output,
        background=background,
        alpha=alpha,
        icc=icc,
        damaged=damaged,
        device=device,
        formats=formats,
        max_pixels=max_pixels,
        memory=memory,
        margin=margin,
        interpolation=interpolation,
        rounding=rounding,
        original_size=original_size,
        decoders=decoders,
        fields=fields,
    )
    yield from passed(ordered(decoder.attempt, samples, threads, run=run), run)


class FieldDecoder:
    """Decodes one sample, as ``decode`` was told to; images into rows of a batch where these are given."""

    def __init__(
        self,
        run: Run,
        *,
        output: str,
        background: Colour,
        alpha: str | None,
        icc: str,
        damaged: str,
        device: str | None,
        formats: Formats,
        max_pixels: int,
        memory: int,
        decoders: Decoders | None,
        fields: tuple[str, ...] | None,
        **framing: Any,
    ) -> None:
        for name, value, allowed in (
            ("output", output, ("tensor", "numpy", "pil")),
            ("alpha", alpha, (None, "mask")),
            ("icc", icc, ("srgb", "ignore")),
            ("damaged", damaged, ("error", "accept")),
            ("device", device, (None, "cuda")),
        ):
            check_choice("decode", name, value, allowed)
        if device is not None and (output != "tensor" or alpha is not None or damaged != "error"):
            raise ConfigError(
                "decode: device='cuda' gives tensors of whole images: leave out output, alpha and damaged"
            )
        check_number("decode", "max_pixels", max_pixels, 1)
        check_number("decode", "memory", memory, 1)
        check_names("decode", "fields", fields, optional=True)
        check_colour("decode", "background", background)
        check_functions("decode", "decoders", decoders, "functions from bytes by field name or extension", "pt")
        self.run = run
        self.framing = Framing(run, **framing)
        self.output = output
        self.background = background
        self.alpha = alpha
        self.colours = icc
        self.damaged = damaged
        self.device = device
        self.codecs = codecs_of(formats)
        self.max_pixels = max_pixels
        self.memory = memory
        self.decoders = decoders
        self.fields = None if fields is None else frozenset(each for name in fields for each in name.split(";"))
        self.unread = False  # whether arrays may stay in the bytes that they were found in, for who copies them

    def image_fields(self, sample: Sample) -> list[str]:
        """The fields of a sample that will become images."""
        return [
            name
            for name, data in sample.items()
            if self._wanted(name, data) and not self._own(name) and is_image_field(name, data, self.codecs)
        ]

    def row_sizes(self, sample: Sample) -> dict[str, tuple[int, int]]:
        """The images of a sample that can be written into rows of a batch, and their sizes: 3 x height x width."""
        if self.device is not None or _CLIP in sample:
            return {}
        names = [name for name in self.image_fields(sample) if not is_mask(name)]
        return self.framing.row_sizes(sample, names)

    def attempt(self, sample: Sample, rows: Rows | None = None) -> Any:
        """The sample decoded, or the error that it was, or ``SKIP`` where it is to be dropped."""
        try:
            return self(sample, rows)
        except StreampipeError as error:
            return error

    def __call__(self, sample: Sample, rows: Rows | None = None) -> Any:
        found = self._decoded(apart(sample), rows)
        return found if found is SKIP else together(found, sample)

    def _decoded(self, sample: Mapping[str, Any], rows: Rows | None) -> Any:
        decoded: Sample = {}
        images: dict[str, Encoded] = {}
        clip = sample.get(_CLIP)
        for name, data in sample.items():
            if not self._wanted(name, data):
                decoded[name] = bytes(data) if type(data) is memoryview else data
                continue
            try:
                found = self._open(name, data, clip)
            except Exception as error:
                raise self._blame(error, sample, name) from error
            if isinstance(found, (EncodedImage, EncodedVideo)):
                images[name] = found
            decoded[name] = found  # an image's place among the fields, until its pixels come
        if images and self.unread:  # functions of the user's may look at them
            decoded = {name: owned(value) for name, value in decoded.items()}
        if images and not self._decode_images(decoded, images, rows or {}):
            counters.add(self.run.stage, TOO_SMALL, 0, key_of(sample))
            return SKIP
        return decoded

    def _open(self, name: str, data: Any, clip: Clip | None) -> Any:
        """A field's value; of an image or a video only the header is read."""
        if not self._own(name):
            if clip is not None and is_video_field(name, data):
                return EncodedVideo(data, clip, max_pixels=self.max_pixels, memory=self.memory)
            inner = name.lower().removesuffix(".gz")
            if inner != name.lower() and not self._own(inner):
                name, data = unwrapped(name, data)
            if is_image_field(name, data, self.codecs):
                return EncodedImage(data, max_pixels=self.max_pixels, codecs=self.codecs, memory=self.memory)
            if extension_of(name) != "gz":
                return decode_by_name(name, data, self.unread)
        return decode_field(name, data, decoders=self.decoders)

    def _decode_images(self, sample: Sample, images: dict[str, Encoded], rows: Rows) -> bool:
        """Put the images' pixels into the sample, and the record of their geometry; False to drop the sample."""
        framing = self.framing
        videos = [name for name, image in images.items() if isinstance(image, EncodedVideo)]
        main = main_video(videos) if videos else main_of(sample, images)
        here = images.get(main)
        if here is not None:
            framing.check_json(sample, here.size)
        told = {name: value for name, value in sample.items() if name not in images}
        try:
            frames = framing.frames(told, {name: image.size for name, image in images.items()}, main)
            if here is not None and frames and (frames[main].geometry or frames[main].flipped):
                check_left(told, here.size, _LEFT)
        except DecodeError as error:
            raise DecodeError(f"{where(sample)}, {error}") from error
        if frames is None:
            return False
        one_frame = _CLIP in sample and not videos
        for name, image in images.items():
            try:
                if isinstance(image, EncodedVideo):
                    if self.alpha and name == main:
                        raise ConfigError("alpha='mask' is of images, and this is a video: leave it out")
                    sample[name] = self._frames(name, image, frames[name])
                    continue
                if self.device is not None and not (is_mask(name) or list_of(name) or one_frame):
                    sample[name] = self._deferred(f"{where(sample)}, field {name!r}", name, image, frames[name])
                    continue
                pixels, alpha = self._pixels(name, image, frames[name], rows.get(name), name == main)
            except Exception as error:
                raise self._blame(error, sample, name) from error
            sample[name] = _one_frame(pixels) if one_frame else pixels
            if alpha is not None:
                if "mask" in sample:
                    raise DecodeError(f"{where(sample)} has a field 'mask' already, so alpha='mask' cannot make one")
                sample["mask"] = _one_frame(alpha) if one_frame else alpha
        sample.update(framing.record(sample, frames, main, here is not None and here.header.orientation > 4))
        if _CLIP in sample:
            sample["clip_start"], sample["clip_fps"] = sample[_CLIP].start, sample[_CLIP].fps
            if sample[_CLIP].audio:
                self._hear(sample, main, here)
        return True

    def _frames(self, name: str, video: EncodedVideo, frame: Frame) -> Any:
        """The frames of a video, as they are delivered."""
        interpolation, labels = self.framing.interpolation_of(name), is_mask(name)
        cut = video.cut(frame.geometry, frame.flipped)
        pixels = video.decode(cut, interpolation=interpolation, background=self.background, labels=labels)
        if self.output == "tensor":
            return pixels
        found = [delivered(each, self.output) for each in pixels]
        return np.stack(found) if self.output == "numpy" else found

    def _hear(self, sample: Sample, name: str, video: Any) -> None:
        """Put the sound of the clip's time into the sample."""
        if "audio" in sample:
            raise DecodeError(f"{where(sample)} has a field 'audio' already, so clips(audio=) cannot make one")
        clip = sample[_CLIP]
        if not isinstance(video, EncodedVideo):  # an image
            sound, there = torch.zeros((2, round(clip.duration * clip.audio)), dtype=torch.float32, device="cpu"), False
        else:
            try:
                sound, there = video.sound()
            except Exception as error:
                raise self._blame(error, sample, name) from error
        if not there:
            counters.add(self.run.stage, "clips without sound")
        sample["audio"], sample["has_audio"] = sound, there

    def _pixels(
        self, name: str, image: EncodedImage, frame: Frame, row: torch.Tensor | None, is_main: bool
    ) -> tuple[Any, Any]:
        interpolation = self.framing.interpolation_of(name)
        labels = is_mask(name)
        # The nearest pixel of a smaller scale would be a mean of labels.
        margin = None if labels or interpolation == "nearest" else self.framing.scale_margin
        cut = image.cut(frame.geometry, margin, frame.flipped)
        if row is not None and tuple(row.shape[1:]) != cut.result:
            row = None  # it was made before anything was known of the sample; ``batch`` then copies
        rgb, alpha = image.decode(
            cut,
            interpolation=interpolation,
            background=self.background,
            alpha=self.framing.interpolation_of("mask") if is_main and self.alpha else None,
            out=row,
            labels=labels,
            icc="ignore" if labels else self.colours,
            damaged=self.damaged,
        )
        return delivered(rgb, self.output), None if alpha is None else delivered(alpha, self.output)

    def _deferred(self, label: str, name: str, image: EncodedImage, frame: Frame) -> DeferredImage:
        """An image for the GPU; or with its pixels, where that would make others."""
        interpolation = self.framing.interpolation_of(name)
        cut = image.cut(frame.geometry, None, frame.flipped)
        deferred = DeferredImage(label, b"", cut, interpolation, self.background)
        if deferrable(image, image.data, cut, interpolation, self.colours):
            return replace(deferred, data=bytes(image.data))
        return replace(deferred, made=self._pixels(name, image, frame, None, False)[0])

    def _blame(self, error: Exception, sample: Mapping[str, Any], name: str) -> StreampipeError:
        if isinstance(error, (SampleError, ConfigError)):
            return type(error)(f"{where(sample)}, field {name!r}: {error}")
        return StageError(  # a decoder of the user's
            f"stage {self.run.stage!r}, {where(sample)}, field {name!r}: {type(error).__name__}: {error}"
        )

    def _wanted(self, name: str, data: Any) -> bool:
        if not isinstance(data, (bytes, bytearray, memoryview)) or name.startswith("__"):
            return False
        return self.fields is None or name in self.fields or list_of(name) in self.fields

    def _own(self, name: str) -> bool:
        return self.decoders is not None and (name in self.decoders or name.rpartition(".")[2] in self.decoders)


def _one_frame(pixels: Any) -> Any:
    """An image as a clip of one frame."""
    return pixels[None] if isinstance(pixels, (torch.Tensor, np.ndarray)) else [pixels]


__all__ = ["Crop", "DecodeError", "FieldDecoder", "UnsafeFormat", "decode"]
