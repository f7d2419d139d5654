"""What ``decode`` and ``fit`` share: one decision about size, crop and flip for all images of a sample; its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import torch

from streampipe.context import Run, Sample, where
from streampipe.counters import counters
from streampipe.decoding import INTERPOLATIONS, MARGIN, Geometry, Size, decide, is_mask, resized, zoom_of
from streampipe.decorators.skip import SKIP
from streampipe.errors import ConfigError, DecodeError, StageError, StreampipeError
from streampipe.stages.map import wants_rng
from streampipe.stages.nothing import Drops

T = TypeVar("T")
SAME_SHAPE = 1.1
"""How much the aspect ratios of two images of one picture may differ: annotators round sizes to multiples of 64."""
_ORIGINAL = (("original_width", "original_height"), ("WIDTH", "HEIGHT"))
_STORED = (("width", "height"), ("w", "h"))


class Room(NamedTuple):
    """What a crop function is told of a sample's picture; all are (height, width), in pixels.

    ``size``: as shown. ``resized``: scaled so that it covers the target. ``target``: what the crop's size will be.
    """

    size: Size
    resized: Size
    target: Size


Crop = str | Callable[..., tuple[float, float]]
"""``"center"``, ``"random"``, or a function ``(room, sample)`` that gives the (top, left) of the crop in the resized
picture, in pixels; what lies outside is moved to the edge. With a parameter named ``rng`` it is given a seeded
generator."""


@dataclass(frozen=True)
class Framing:
    """How the images of a sample are brought to a size, as ``decode`` and ``fit`` were told."""

    run: Run
    size: int | Size | None
    crop: Crop
    flip: float
    upscale: str | float
    margin: float | str | None
    interpolation: str | Mapping[str, str]
    original_size: str

    def __post_init__(self) -> None:
        stage = self.run.stage or "decode"
        given = self.interpolation
        chosen = given.values() if isinstance(given, Mapping) else (given,)
        for name, value, allowed in (
            ("crop", "center" if callable(self.crop) else self.crop, ("center", "random")),
            ("original_size", self.original_size, ("image", "json")),
            *(("interpolation", each, INTERPOLATIONS) for each in chosen),
        ):
            if value not in allowed:
                raise ConfigError(f"{stage}: {name} is one of {', '.join(allowed)}, not {value!r}")
        edges = (self.size,) if isinstance(self.size, int) or self.size is None else tuple(self.size)
        if edges != (None,) and not (len(edges) <= 2 and all(isinstance(each, int) and each > 0 for each in edges)):
            raise ConfigError(f"{stage}: size is an edge or (height, width) in pixels, not {self.size!r}")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"{stage}: flip is the share of samples to mirror, 0 to 1, not {self.flip!r}")
        if self.upscale not in ("allow", "drop") and not (isinstance(self.upscale, Real) and self.upscale >= 1):
            raise ConfigError(f"{stage}: upscale is 'allow', 'drop' or a factor of 1 or more, not {self.upscale!r}")
        if self.margin not in ("default", None) and not (isinstance(self.margin, Real) and self.margin >= 1):
            raise ConfigError(f"{stage}: margin is 1 or more, or None, not {self.margin!r}")

    @property
    def scale_margin(self) -> float | None:
        """How many times the target a JPEG decoded at a smaller scale must be; None: full scale."""
        return MARGIN if self.margin == "default" else self.margin  # type: ignore[return-value]

    @cached_property
    def _choices(self) -> Run:
        """The run that random choices are made in: ``fit`` makes those of ``decode``."""
        return self.run.in_stage(self.run.stage.replace("fit", "decode", 1))

    def target(self, sample: Mapping[str, Any]) -> Size | None:
        """The size to reach: the stage's own, or the one that the sample was given by ``bucket``."""
        if self.size is not None:
            return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])
        found: Size | None = sample.get("__size__")
        if found is None and (self.crop != "center" or self.flip or self.upscale != "allow"):
            raise ConfigError(
                f"{self.run.stage}: crop, flip and upscale need a size to reach; give {self.run.stage}(size=...), "
                f"or put bucket(...) before it"
            )
        return found

    def decide(self, sample: Sample, size: Size, target: Size) -> Geometry | None:
        """The one decision for a sample whose main image has this size; None: drop it, it would be enlarged too much.

        A pure function of (seed, epoch, key) and its arguments: ``decode`` and ``fit`` decide alike.
        """
        if self.upscale != "allow":
            most = 1.0 if self.upscale == "drop" else float(self.upscale)
            if zoom_of(size, target) > most + 1e-9:
                return None
        left, top, mirrored = (
            self._choices.uniform(sample, 3) if self.crop == "random" or self.flip else (0.5, 0.5, 1.0)
        )
        position = (top, left) if self.crop == "random" else (0.5, 0.5)
        if callable(self.crop):
            position = self._ask(self.crop, sample, size, target)
        return decide(size, target, position, mirrored < self.flip, self.scale_margin)

    def _ask(self, crop: Callable[..., Any], sample: Sample, size: Size, target: Size) -> tuple[float, float]:
        room = Room(size, resized(size, target), target)
        extra = {"rng": self._choices.rng(sample)} if wants_rng(crop) else {}
        try:
            found = crop(room, sample, **extra)
            at = [
                min(max(float(start) / (whole - part), 0.0), 1.0) if whole > part else 0.5
                for start, whole, part in zip(found, room.resized, target, strict=True)
            ]
        except Exception as error:
            raise StageError(
                f"stage {self.run.stage!r}, {where(sample)}: the crop function failed or gave no (top, left) "
                f"({type(error).__name__}: {error})"
            ) from error
        return at[0], at[1]

    def interpolation_of(self, name: str) -> str:
        """The field's own, by its name or the part before the first dot; nearest for masks; else the stage's."""
        if isinstance(self.interpolation, Mapping):
            for each in (name, name.partition(".")[0]):
                if each in self.interpolation:
                    return self.interpolation[each]
            return "nearest" if is_mask(name) else "bicubic"
        return "nearest" if is_mask(name) else self.interpolation

    def record(self, sample: Mapping[str, Any], geometry: Geometry, turned: bool = False) -> Sample:
        """The fields that say what was done. ``turned``: whether EXIF orientation swapped the stored axes."""
        original = geometry.size
        if self.original_size == "json":
            original = self._original(sample, geometry.size, turned)
        crop = geometry.crop_top_left
        time_ids = (*original, *crop, *geometry.target)
        return {
            "original_size": original,
            "crop_top_left": crop,
            "target_size": geometry.target,
            "flipped": geometry.flipped,
            "time_ids": torch.tensor(time_ids, dtype=torch.int64),
        }

    def _original(self, sample: Mapping[str, Any], size: Size, turned: bool) -> Size:
        found = json_size(sample, _ORIGINAL)
        if found is None:
            counters.add(self.run.stage, "no original size in json")
            return size
        # The json was written for the stored image, which may lie on its side.
        lies = turned and (found[0] > found[1]) != (size[0] > size[1])
        return (found[1], found[0]) if lies else found

    def check_json(self, sample: Mapping[str, Any], size: Size) -> None:
        """Count where the json's size is not the image's, neither as shown nor as stored."""
        found = json_size(sample, _STORED)
        if found is not None and found != size and found != size[::-1]:
            counters.add(self.run.stage, "json size differs")

    def check_shape(self, name: str, size: Size, geometry: Geometry) -> None:
        """Refuse an image that is no picture of the same shape as the sample's main image."""
        ratio = size[0] * geometry.size[1] / (size[1] * geometry.size[0])
        if not 1 / SAME_SHAPE <= ratio <= SAME_SHAPE:
            raise DecodeError(
                f"it is {size[1]} x {size[0]}, another shape than the {geometry.size[1]} x {geometry.size[0]} of the "
                f"sample's main image, so it cannot be cut with it; {self.run.stage} it in a stage of its own, with "
                f"fields=({name!r},), or leave it out with select(...)"
            )


def json_size(sample: Mapping[str, Any], names: Iterable[tuple[str, str]]) -> Size | None:
    """(height, width) from a sample's decoded json, by the first pair of (width, height) names that it has."""
    facts = sample.get("json")
    if isinstance(facts, Mapping):
        for width, height in names:
            found = facts.get(height), facts.get(width)
            if all(isinstance(each, int) and each > 0 for each in found):
                return found  # type: ignore[return-value]
    return None


def passed(results: Iterable[T | StreampipeError], run: Run) -> Iterator[T]:
    """The results that are neither errors, which are up to the error policy, nor dropped, which is counted.

    Raises:
        StageError: everything was dropped (10,000 samples, or all there are for a lone consumer).
    """
    drops = Drops(run, _TOO_SMALL)
    for result in results:
        if isinstance(result, StreampipeError):
            run.policy.failed(result, run.stage)
        elif result is SKIP:
            counters.add(run.stage, "dropped, too small")
            drops.drop()
        else:
            drops.keep()
            run.policy.passed(run.stage)
            yield result
        del result
    drops.end()


_TOO_SMALL = (
    ", because their images would have to be enlarged more than upscale= allows; use a smaller size, or upscale='allow'"
)
