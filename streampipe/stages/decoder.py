"""``FieldDecoder``: one sample's fields decoded, its images cut as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from streampipe.context import Run, Sample, key_of, where
from streampipe.counters import counters
from streampipe.decoding import (
    Codec,
    Colour,
    DeferredImage,
    EncodedImage,
    Formats,
    codecs_of,
    decode_field,
    deferrable,
    delivered,
    is_mask,
    recognise,
    says_image,
    unwrapped,
)
from streampipe.decoding.arrays import Unread, owned
from streampipe.decoding.clip import Clip
from streampipe.decoding.extensions import extension_of
from streampipe.decoding.fields import decode_by_name
from streampipe.decoding.movie import is_video_field, main_video
from streampipe.decoding.several import Images, apart, list_of, together
from streampipe.decoding.video import EncodedVideo
from streampipe.decorators.skip import SKIP
from streampipe.errors import ConfigError, DecodeError, SampleError, StageError, StreampipeError
from streampipe.stages.framing import TOO_SMALL, Frame, Framing, main_of
from streampipe.stages.left import check_left
from streampipe.stages.unseen import unseen
from streampipe.stages.values import check_choice, check_colour, check_functions, check_names, check_number

Encoded = EncodedImage | EncodedVideo
_BYTES = (bytes, bytearray, memoryview)
_MOST = 1024  # names that are remembered: a key with dots can give each sample others
_CLIP = "__clip__"
_LEFT = (
    "decode().fit(...) cuts arrays of uint8, uint16 and int32 too, decode(fields=) leaves out what you cut by yourself"
)
Decoders = Mapping[str, Callable[[bytes], Any]]
Rows = Mapping[str, torch.Tensor]


class _Kind(NamedTuple):
    """What a field's name says, and the options say of it."""

    wanted: bool  # it is decoded, if it is bytes
    own: bool  # by a function of the user's
    image: bool | None  # None: its content says
    labels: bool


class _Kinds(dict[str, _Kind]):
    """The kinds of fields by name, each asked once."""

    def __init__(self, ask: Callable[[str], _Kind]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, name: str) -> _Kind:
        if len(self) >= _MOST:
            self.clear()
        found = self[name] = self._ask(name)
        return found


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
        self._kinds = _Kinds(partial(_kind, self.fields, decoders, self.codecs))
        self._unseen = None if self.fields is None else unseen(run, "fields", self.fields, any_of=True)
        self.unread = False  # whether arrays may stay in the bytes that they were found in, for who copies them

    def image_fields(self, sample: Sample) -> list[str]:
        """The fields of a sample that will become images."""
        found = []
        for name, data in sample.items():
            wanted, own, image, _ = self._kinds[name]
            if wanted and not own and image is not False and isinstance(data, _BYTES) and self._shows(image, data):
                found.append(name)
        return found

    def row_sizes(self, sample: Sample) -> dict[str, tuple[int, int]]:
        """The images of a sample that can be written into rows of a batch, and their sizes: 3 x height x width."""
        if self.device is not None or _CLIP in sample:
            return {}
        names = [name for name in self.image_fields(sample) if not self._kinds[name].labels]
        return self.framing.row_sizes(sample, names)

    def attempt(self, sample: Sample, rows: Rows | None = None) -> Any:
        """The sample decoded, or the error that it was, or ``SKIP`` where it is to be dropped."""
        try:
            return self(sample, rows)
        except StreampipeError as error:
            return error

    def __call__(self, sample: Sample, rows: Rows | None = None) -> Any:
        if Images not in map(type, sample.values()):
            return self._decoded(sample, rows)
        found = self._decoded(apart(sample), rows)
        return found if found is SKIP else together(found, sample)

    def _decoded(self, sample: Mapping[str, Any], rows: Rows | None) -> Any:
        if self._unseen is not None:
            self._unseen.look(sample)
        decoded: Sample = {}
        images: dict[str, Encoded] = {}
        clip = sample.get(_CLIP)
        for name, data in sample.items():
            if not self._kinds[name].wanted or not isinstance(data, _BYTES):
                decoded[name] = bytes(data) if type(data) is memoryview else data
                continue
            try:
                found = self._open(name, data, clip)
            except Exception as error:
                raise self._blame(error, sample, name) from error
            if isinstance(found, (EncodedImage, EncodedVideo)):
                images[name] = found
            decoded[name] = found  # an image's place among the fields, until its pixels come
        if images and self.unread and Unread in map(type, decoded.values()):  # functions of the user's may look at them
            decoded = {name: owned(value) for name, value in decoded.items()}
        if images and not self._decode_images(decoded, images, rows or {}):
            counters.add(self.run.stage, TOO_SMALL, 0, key_of(sample))
            return SKIP
        return decoded

    def _open(self, name: str, data: Any, clip: Clip | None) -> Any:
        """A field's value; of an image or a video only the header is read."""
        kind = self._kinds[name]
        if not kind.own:
            if clip is not None and is_video_field(name, data):
                return EncodedVideo(data, clip, max_pixels=self.max_pixels, memory=self.memory)
            if name[-3:].lower() == ".gz" and not self._kinds[name[:-3].lower()].own:
                name, data = unwrapped(name, data)
                kind = self._kinds[name]
            if kind.image is not False and self._shows(kind.image, data):
                return EncodedImage(data, max_pixels=self.max_pixels, codecs=self.codecs, memory=self.memory)
            if extension_of(name) != "gz":
                return decode_by_name(name, data, self.unread)
        return decode_field(name, data, decoders=self.decoders)

    def _decode_images(self, sample: Sample, images: dict[str, Encoded], rows: Rows) -> bool:
        """Put the images' pixels into the sample, and the record of their geometry; False to drop the sample."""
        framing = self.framing
        videos = [name for name, image in images.items() if type(image) is EncodedVideo]
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
        labels = self._kinds[name].labels
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

    def _shows(self, said: bool | None, data: Any) -> bool:
        """Whether a field is an image: its name has said so, or else its content does."""
        return said or recognise(data, self.codecs) is not None


def _kind(fields: Collection[str] | None, decoders: Decoders | None, codecs: tuple[Codec, ...], name: str) -> _Kind:
    wanted = not name.startswith("__") and (fields is None or name in fields or list_of(name) in fields)
    own = decoders is not None and (name in decoders or name.rpartition(".")[2] in decoders)
    return _Kind(wanted, own, says_image(name, codecs), is_mask(name))


def _one_frame(pixels: Any) -> Any:
    """An image as a clip of one frame."""
    return pixels[None] if isinstance(pixels, (torch.Tensor, np.ndarray)) else [pixels]
