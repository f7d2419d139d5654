"""``decode``: bytes become images, texts, numbers and arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from streampipe.context import Run, Sample, where
from streampipe.decoding import decode_field, decode_image, is_image_field
from streampipe.errors import ConfigError, DecodeError, SampleError, StageError, StreampipeError, UnsafeFormat
from streampipe.stages.stage import stage
from streampipe.threads import ordered

Decoders = Mapping[str, Callable[[bytes], Any]]


@stage(views=True)
def decode(
    samples: Iterable[Sample],
    size: int | tuple[int, int] | None = None,
    crop: str = "center",
    output: str = "tensor",
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = 64_000_000,
    margin: float | str | None = "default",
    interpolation: str = "bicubic",
    decoders: Decoders | None = None,
    fields: tuple[str, ...] | None = None,
    threads: int | None = None,
    *,
    run: Run,
) -> Iterator[Sample]:
    """Every field decoded: images by their content, other fields by the last part of their name.

    Args:
        size: images are brought to this size, an edge or (height, width): scaled to cover it, then cropped, in one
            antialiased resize straight from the codec's smallest sufficient scale. None keeps each image's own size.
        crop: where the crop is taken: ``"center"``, or ``"random"``, seeded by (seed, epoch, key, stage) and the same
            for all images of a sample.
        output: images as ``"tensor"`` (uint8, 3 x height x width, channels-last memory), ``"numpy"`` (height x width
            x 3) or ``"pil"``.
        background: the colour (red, green, blue) behind transparent pixels.
        max_pixels: larger images are refused, by their header, before anything is allocated.
        margin: how many times larger than needed the codec's scaled image must stay; None decodes at full scale.
        interpolation: ``"bicubic"`` or ``"bilinear"``, antialiased.
        decoders: functions from bytes to anything, by field name (``"seg.png"``) or extension (``"png"``); they come
            before the built-in ones. This is how formats that are refused for safety (pickle) can be allowed.
        fields: decode only these; others stay bytes.
        threads: decode so many samples at once, in order; the codecs release the GIL.

    Raises:
        DecodeError: a field's bytes are damaged, too large, or not what they claim to be.
        UnsafeFormat: a field in a format that can run code.

    >>> list(decode()([{"__key__": "a", "txt": b"a cat", "cls": b"3"}]))
    [{'__key__': 'a', 'txt': 'a cat', 'cls': 3}]
    """
    decoder = FieldDecoder(size, crop, output, background, max_pixels, margin, interpolation, decoders, fields, run)

    def attempt(sample: Sample) -> Sample | StreampipeError:
        try:
            return decoder(sample)
        except StreampipeError as error:
            return error

    for result in ordered(attempt, samples, run.threads if threads is None else threads, trail=run.trail):
        if isinstance(result, StreampipeError):
            run.policy.failed(result, run.stage)
        else:
            run.policy.passed(run.stage)
            yield result
        del result


class FieldDecoder:
    """Decodes one sample, as ``decode`` was told to; images into rows of a batch where these are given."""

    def __init__(
        self,
        size: int | tuple[int, int] | None,
        crop: str,
        output: str,
        background: tuple[int, int, int],
        max_pixels: int,
        margin: float | str | None,
        interpolation: str,
        decoders: Decoders | None,
        fields: tuple[str, ...] | None,
        run: Run,
    ) -> None:
        for name, value, allowed in (
            ("crop", crop, ("center", "random")),
            ("output", output, ("tensor", "numpy", "pil")),
            ("interpolation", interpolation, ("bicubic", "bilinear")),
        ):
            if value not in allowed:
                raise ConfigError(f"decode: {name} is one of {', '.join(allowed)}, not {value!r}")
        self.size = (size, size) if isinstance(size, int) else size
        self.random_crop = crop == "random" and size is not None
        self.image_options: dict[str, Any] = {
            "size": self.size,
            "output": output,
            "background": background,
            "max_pixels": max_pixels,
            "interpolation": interpolation,
            **({} if margin == "default" else {"margin": margin}),
        }
        self.decoders = decoders
        self.fields = fields
        self.run = run

    def image_fields(self, sample: Sample) -> list[str]:
        """The fields of a sample that will become images."""
        return [
            name
            for name, data in sample.items()
            if self._wanted(name, data) and not self._own(name) and is_image_field(name, data)
        ]

    def __call__(self, sample: Sample, rows: Mapping[str, torch.Tensor] | None = None) -> Sample:
        options = dict(self.image_options)
        if self.random_crop:
            u, v = self.run.uniform(sample, 2)
            options["crop"] = (u, v)
        decoded: Sample = {}
        for name, data in sample.items():
            if not self._wanted(name, data):
                decoded[name] = bytes(data) if type(data) is memoryview else data
                continue
            try:
                if rows is not None and name in rows:
                    decoded[name] = decode_image(data, out=rows[name], **options)
                else:
                    decoded[name] = decode_field(name, data, decoders=self.decoders, **options)
            except (SampleError, ConfigError) as error:
                raise type(error)(f"{where(sample)}, field {name!r}: {error}") from error
            except Exception as error:  # a decoder of the user's
                raise StageError(
                    f"stage {self.run.stage!r}, {where(sample)}, field {name!r}: {type(error).__name__}: {error}"
                ) from error
        return decoded

    def _wanted(self, name: str, data: Any) -> bool:
        if name.startswith("__") or not isinstance(data, (bytes, bytearray, memoryview)):
            return False
        return self.fields is None or name in self.fields

    def _own(self, name: str) -> bool:
        return self.decoders is not None and (name in self.decoders or name.rpartition(".")[2] in self.decoders)


__all__ = ["DecodeError", "FieldDecoder", "UnsafeFormat", "decode"]
