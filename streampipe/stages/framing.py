"""What ``decode`` and ``fit`` share: one decision about size, crop and flip for all images of a sample; its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from streampipe.context import Run, Sample, where
from streampipe.counters import counters
from streampipe.decoding import (
    INTERPOLATIONS,
    MARGIN,
    Area,
    Geometry,
    Size,
    contained,
    decide,
    is_image,
    is_image_field,
    is_mask,
    main_image,
    resized,
    zoom_of,
)
from streampipe.decoding.several import place_of
from streampipe.decorators.skip import SKIP
from streampipe.errors import ConfigError, DecodeError, StageError, StreampipeError
from streampipe.index.stated import ORIGINAL, differs, stated_size
from streampipe.plan.compound import others_of
from streampipe.stages.map import wants
from streampipe.stages.nothing import Drops
from streampipe.stages.unseen import Unseen, unseen
from streampipe.stages.values import check_choice, check_factor

T = TypeVar("T")
SAME_SHAPE = 1.1
"""How much the aspect ratios of two images of one picture may differ: annotators round sizes to multiples of 64."""
FRAMED = "__framed__"
_CHOICES = "decode"  # the stage that all framing stages draw their random numbers as: one sample, one decision
_NEVER = frozenset((str, dict, list, int, float, bool, type(None)))  # types that no image has
MODES = ("cover", "contain", "pad")
ROUNDINGS = ("round", "truncate")


class Room(NamedTuple):
    """What a crop function is told of a sample's picture; all are (height, width), in pixels.

    ``size``: as shown. ``resized``: scaled so that it covers the target. ``target``: what the crop's size will be.
    """

    size: Size
    resized: Size
    target: Size


class Framed(NamedTuple):
    """What the framing stages of a chain tell each other of a sample: whether it is mirrored, and which fields were
    brought to a size already.
    """

    flipped: bool = False
    fields: tuple[str, ...] = ()


_NOT_FRAMED = Framed()


class Frame(NamedTuple):
    """What becomes of one image. ``geometry`` None: it keeps its size, and is only mirrored if so."""

    geometry: Geometry | None
    flipped: bool = False
    leads: bool = True  # it has a geometry of its own, and a record


Crop = str | Callable[..., tuple[float, float]]
"""``"center"``, ``"random"``, or a function ``(room, sample)`` that gives the (top, left) of the crop in the resized
picture, in pixels; what lies outside is moved to the edge. With a parameter named ``rng`` it is given a seeded
generator."""
OneSize = int | Size | Area | None
Sizes = OneSize | Mapping[str, OneSize]
"""An edge, (height, width), an ``Area``, or None; or one of these by field."""


@dataclass(frozen=True)
class Framing:
    """How the images of a sample are brought to a size, as ``decode`` and ``fit`` were told."""

    run: Run
    size: Sizes = None
    crop: Crop = "center"
    flip: float = 0.0
    upscale: str | float = "allow"
    margin: float | str | None = "default"
    interpolation: str | Mapping[str, str] = "bicubic"
    original_size: str = "image"
    mode: str = "cover"
    scale: tuple[float, float] = (1.0, 1.0)
    rounding: str = "round"

    def __post_init__(self) -> None:
        stage = self.run.stage or "decode"
        given = self.interpolation
        chosen = given.values() if isinstance(given, Mapping) else (given,)
        for name, value, allowed in (
            ("crop", "center" if callable(self.crop) else self.crop, ("center", "random")),
            ("original_size", self.original_size, ("image", "json")),
            ("mode", self.mode, MODES),
            ("rounding", self.rounding, ROUNDINGS),
            *(("interpolation", each, INTERPOLATIONS) for each in chosen),
        ):
            check_choice(stage, name, value, allowed)
        for name, each in self.size.items() if isinstance(self.size, Mapping) else (("", self.size),):
            _check_size(stage, each)
            if not isinstance(name, str) or ";" in name:
                raise ConfigError(f"{stage}: size is by the name of one field, as in {{'image': 512}}, not by {name!r}")
        if self.flip is True:
            raise ConfigError(f"{stage}: flip=True would mirror every sample; flip=0.5 mirrors half of them, at random")
        if not isinstance(self.flip, (int, float)) or not 0 <= self.flip <= 1:
            raise ConfigError(f"{stage}: flip is the share of samples to mirror, 0 to 1, not {self.flip!r}")
        if self.upscale != "allow" and self.upscale != "drop":
            check_factor(stage, "upscale", self.upscale, "'allow', 'drop' or a factor of 1 or more")
        if self.margin is not None and self.margin != "default":
            check_factor(stage, "margin", self.margin, "1 or more, or None")
        low, high = self.scale if isinstance(self.scale, tuple) and len(self.scale) == 2 else (0, 0)
        if not (isinstance(low, Real) and isinstance(high, Real) and 0 < low <= high <= 1):
            raise ConfigError(
                f"{stage}: scale is the least and the most of the largest crop's edges to take, as in (0.5, 1.0), "
                f"not {self.scale!r}"
            )
        if self.mode != "cover" and (self.crop != "center" or self.scale != (1.0, 1.0)):
            raise ConfigError(f"{stage}: mode={self.mode!r} shows whole pictures, so leave out crop and scale")

    @cached_property
    def scale_margin(self) -> float | None:
        """How many times the target a JPEG decoded at a smaller scale must be; None: full scale."""
        return MARGIN if self.margin == "default" else self.margin  # type: ignore[return-value]

    @cached_property
    def _sizes(self) -> Mapping[str, OneSize]:
        """The sizes by field, if these are by field."""
        return self.size if isinstance(self.size, Mapping) else {}

    @cached_property
    def _size(self) -> Size | Area | None:
        """The one size for all, if it is one."""
        return None if isinstance(self.size, Mapping) else _whole(self.size)

    @cached_property
    def _interpolations(self) -> Mapping[str, str] | None:
        """The interpolations by field, if these are by field."""
        return self.interpolation if isinstance(self.interpolation, Mapping) else None

    @cached_property
    def _is_idle(self) -> bool:
        """Whether nothing was asked for that needs a size."""
        return self.crop == "center" and self.scale == (1.0, 1.0) and not self.flip and self.upscale == "allow"

    @cached_property
    def _draws(self) -> bool:
        """Whether anything is random."""
        return self.crop == "random" or bool(self.flip) or self.scale[0] < self.scale[1]

    @cached_property
    def _choices(self) -> Run:
        """The run that random choices are made in: all framing stages of a chain make the same ones."""
        return self.run.in_stage(_CHOICES)

    @cached_property
    def _options_by_name(self) -> tuple[Unseen, ...]:
        """The options that may name a field which no sample has. A mask may be made here (``alpha="mask"``)."""
        of_fields = self._interpolations or {}
        given = (("size", self._sizes.keys()), ("interpolation", of_fields.keys() - {"mask"}))
        return tuple(unseen(self.run, option, names) for option, names in given if names)

    def has_own_size(self, name: str, sample: Mapping[str, Any]) -> bool:
        """Whether a field has a size that is not the main image's: the stage's own, or one that ``bucket`` gave it."""
        others = others_of(sample)
        return (bool(others) and place_of(name) in others) or self._is_named(name)

    def _is_named(self, name: str) -> bool:
        return bool(self._sizes) and (name in self._sizes or name.partition(".")[0] in self._sizes)

    def target(self, sample: Mapping[str, Any], name: str) -> Size | Area | None:
        """The size to reach: the field's or the stage's own, or the one that the sample was given by ``bucket``."""
        others = others_of(sample)
        if others and place_of(name) in others:
            if self._is_named(name):
                raise ConfigError(
                    f"{self.run.stage}: {name!r} has a size from bucket, and one from size=: leave one of them out"
                )
            return others[place_of(name)]
        if self._size is not None:
            return self._size
        if self._is_named(name):
            return _whole(self._sizes[name] if name in self._sizes else self._sizes[name.partition(".")[0]])
        found: Size | None = sample.get("__size__")
        if found is None and self.size is None and not self._is_idle:
            raise ConfigError(
                f"{self.run.stage}: crop, flip, scale and upscale need a size to reach; give "
                f"{self.run.stage}(size=...), or put bucket(...) before it"
            )
        return found

    def row_sizes(self, sample: Mapping[str, Any], names: Sequence[str]) -> dict[str, Size]:
        """The sizes that a sample's images will have, of those for which that is known before their headers are."""
        if not names or self.mode == "contain":
            return {}
        main = main_of(sample, names)
        lead = main if main in names else None
        found = {}
        for name in names:
            mine = lead is None or name == lead or self.has_own_size(name, sample)
            target = self.target(sample, name if mine or lead is None else lead)
            if target is not None and not isinstance(target, Area):
                found[name] = target
        return found

    def frames(self, told: Sample, sizes: Mapping[str, Size], main: str) -> dict[str, Frame] | None:
        """What becomes of each image of a sample, by its size as shown; None: drop it, one would be enlarged too much.

        ``told``: the sample's fields that are no images. ``main``: its main image, which may be another stage's.

        Raises:
            DecodeError: an image is not of the main image's shape, and so cannot be cut with it.
        """
        for option in self._options_by_name:
            option.look(sizes)
        state = told.get(FRAMED)
        drawn = self._drawn(told)
        mirrored = drawn[2] < self.flip if state is None else state.flipped  # an earlier stage may have decided
        done = () if state is None else state.fields
        found: dict[str, Frame] = {}
        for name in sorted(sizes, key=lambda each: each != main):
            flipped = mirrored and name not in done
            lead = found.get(main)
            if lead is not None and not self.has_own_size(name, told):
                geometry = lead.geometry
                if geometry is not None:
                    self._check_shape(name, sizes[name], geometry)
                    geometry = geometry._replace(flipped=flipped)
                found[name] = Frame(geometry, flipped, leads=False)
                continue
            target = self.target(told, name)
            own = None if target is None else self._decide(told, sizes[name], target, flipped, drawn)
            if own is None and target is not None:
                return None
            found[name] = Frame(own, flipped)
        return found

    def _decide(
        self, sample: Sample, size: Size, target: Size | Area, flipped: bool, drawn: tuple[float, float, float, float]
    ) -> Geometry | None:
        """The one decision for an image of this size; None: drop the sample, it would be enlarged too much.

        A pure function of (seed, epoch, key) and its arguments: ``decode`` and ``fit`` decide alike.
        """
        goal = target.of(size) if isinstance(target, Area) else target
        if self.mode != "cover":
            geometry = contained(size, goal, flipped, self.mode == "pad", self.rounding)
            return (
                None if self._too_small(max(geometry.target[0] / size[0], geometry.target[1] / size[1])) else geometry
            )
        left, top, _, part = drawn
        share = self.scale[0] + (self.scale[1] - self.scale[0]) * part
        if self.upscale != "allow" and self._too_small(zoom_of(size, goal) / share):
            return None
        position = (top, left) if self.crop == "random" else (0.5, 0.5)
        if callable(self.crop):
            position = self._ask(self.crop, sample, size, goal, share)
        return decide(size, goal, position, flipped, self.scale_margin, share=share, rounding=self.rounding)

    def _too_small(self, zoom: float) -> bool:
        if self.upscale == "allow":
            return False
        return zoom > (1.0 if self.upscale == "drop" else float(self.upscale)) + 1e-9

    def _drawn(self, sample: Sample) -> tuple[float, float, float, float]:
        """Four numbers in [0, 1) of a sample: across, down, whether it is mirrored, and how much is taken of it."""
        if self._draws:
            left, top, mirrored, part = self._choices.uniform(sample, 4)
            return left, top, mirrored, part
        return 0.5, 0.5, 1.0, 1.0

    def _ask(
        self, crop: Callable[..., Any], sample: Sample, size: Size, target: Size, share: float
    ) -> tuple[float, float]:
        room = Room(size, resized(size, target, self.rounding, share), target)
        extra = {"rng": self._choices.rng(sample)} if wants(crop, "rng") else {}
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
        mine = self._interpolations
        if mine is None:
            return "nearest" if is_mask(name) else self.interpolation  # type: ignore[return-value]
        for each in (name, name.partition(".")[0]):
            if each in mine:
                return mine[each]
        return "nearest" if is_mask(name) else "bicubic"

    def record(self, sample: Mapping[str, Any], frames: Mapping[str, Frame], main: str, turned: bool = False) -> Sample:
        """The fields that say what was done.

        ``turned``: whether EXIF orientation swapped the main image's stored axes.
        """
        made: Sample = {}
        flipped = False
        for name, (geometry, mirrored, leads) in frames.items():
            flipped = flipped or mirrored
            if not leads or geometry is None:
                continue
            place = "" if name == main else place_of(name) + "."
            original = geometry.size
            if name == main and self.original_size == "json":
                original = self._original(sample, geometry.size, turned)
            crop, result = geometry.crop_top_left, geometry.result
            made[f"{place}original_size"] = original
            made[f"{place}crop_top_left"] = crop
            made[f"{place}target_size"] = result
            if name == main:
                made["time_ids"] = torch.from_numpy(np.array((*original, *crop, *result), np.int64))
        if made or flipped:
            before: Framed = sample.get(FRAMED) or _NOT_FRAMED
            made["flipped"] = flipped = before.flipped or flipped
            made[FRAMED] = Framed(flipped, tuple(dict.fromkeys((*before.fields, *frames))))
        return made

    def _original(self, sample: Mapping[str, Any], size: Size, turned: bool) -> Size:
        found = stated_size(sample.get("json"), ORIGINAL)
        if found is None:
            counters.add(self.run.stage, "no original size in json")
            return size
        # The json was written for the stored image, which may lie on its side.
        lies = turned and (found[0] > found[1]) != (size[0] > size[1])
        return (found[1], found[0]) if lies else found

    def check_json(self, sample: Mapping[str, Any], size: Size) -> None:
        """Count where the json's size is not the image's, neither as shown nor as stored."""
        facts = sample.get("json")
        found = None if facts is None else stated_size(facts)
        if found is not None and differs(found, size):
            counters.add(self.run.stage, "json size differs")

    def _check_shape(self, name: str, size: Size, geometry: Geometry) -> None:
        """Refuse an image that is no picture of the same shape as the sample's main image."""
        ratio = size[0] * geometry.size[1] / (size[1] * geometry.size[0])
        if not 1 / SAME_SHAPE <= ratio <= SAME_SHAPE:
            stem = name.partition(".")[0]
            raise DecodeError(
                f"field {name!r}: it is {size[0]} x {size[1]}, another shape than the {geometry.size[0]} x "
                f"{geometry.size[1]} (height x width) of the sample's main image, so it cannot be cut with it; give it "
                f"a size of its own, as in {self.run.stage}(size={{..., {stem!r}: 512}}), or select(...) others"
            )


def main_of(sample: Mapping[str, Any], more: Iterable[str] = ()) -> str:
    """The main image among all of a sample's images, encoded ones and decoded ones; ``more``: known to be images.

    A sample without any has none: ``""``.
    """
    names = set(more)
    for name, value in sample.items():
        if type(value) in _NEVER or name in names or name.startswith("__"):
            continue
        encoded = isinstance(value, (bytes, bytearray, memoryview))
        if is_image_field(name, value) if encoded else is_image(value):
            names.add(name)
    if len(names) <= 1:
        return names.pop() if names else ""
    return main_image([name for name in sample if name in names])


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
            counters.add(run.stage, TOO_SMALL)
            drops.drop()
        else:
            drops.keep()
            run.policy.passed(run.stage)
            yield result
        del result
    drops.end()


TOO_SMALL = "dropped, too small"
"""What is counted; who drops a sample gives its key as an example."""
_TOO_SMALL = (
    ", because their images would have to be enlarged more than upscale= allows; use a smaller size, or upscale='allow'"
)


def _check_size(stage: str, size: Any) -> None:
    if size is None or isinstance(size, Area):
        return
    edges = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(edges) != 2 or not all(isinstance(each, int) and each > 0 for each in edges) or size is True:
        advice = f"; images of PIL or numpy are {stage}(output='pil')" if isinstance(size, str) else ""
        raise ConfigError(
            f"{stage}: size is an edge, (height, width) in pixels, sp.Area(...) or None, or one of these by field, not "
            f"{size!r}{advice}"
        )


def _whole(size: OneSize) -> Size | Area | None:
    return (
        (size, size)
        if isinstance(size, int)
        else size
        if size is None or isinstance(size, Area)
        else (size[0], size[1])
    )
