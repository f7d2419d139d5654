"""``fit``: images that are decoded already are brought to a size, with the numbers that ``decode`` would give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, Sample, key_of, where
from streampipe.counters import counters
from streampipe.decoding import fit_image, is_image, size_of
from streampipe.decoding.several import apart, together
from streampipe.decorators.skip import SKIP
from streampipe.errors import DecodeError, StageError, StreampipeError
from streampipe.stages.framing import TOO_SMALL, Crop, Framing, Sizes, main_of, passed
from streampipe.stages.left import check_left
from streampipe.stages.stage import stage
from streampipe.stages.values import check_names, check_number
from streampipe.threads import ordered

_LEFT = (
    "fit it while it is uint8 or int32, as in map(lambda x: x.to(torch.uint8), 'NAME') in front, or name the images in "
    "fit(fields=)"
)


def _check(threads: Any, fields: Any, **options: Any) -> None:
    check_number("fit", "threads", threads, 0, optional=True)
    check_names("fit", "fields", fields, optional=True)
    Framing(Run(stage="fit"), **options)


def _own_size(options: Mapping[str, Any]) -> Any:
    size = options["size"]
    return None if isinstance(size, Mapping) else size  # by field: the main image may have its bucket's


@stage(rows="each", state="nothing", takes="samples", check=_check, own_size=_own_size)
def fit(
    samples: Iterable[Sample],
    size: Sizes = None,
    *,
    crop: Crop = "center",
    flip: float = 0.0,
    upscale: str | float = "allow",
    mode: str = "cover",
    scale: tuple[float, float] = (1.0, 1.0),
    margin: float | str | None = "default",
    interpolation: str | Mapping[str, str] = "bicubic",
    rounding: str = "round",
    original_size: str = "image",
    fields: tuple[str, ...] | None = None,
    threads: int | None = None,
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """Decoded images brought to a size: ``decode()`` and then ``fit(size, ...)`` is ``decode(size, ...)``, to the same
    ``original_size``, ``crop_top_left``, ``target_size``, ``flipped`` and ``time_ids``.

    For work on whole images before they are cut. The pixels differ a little where ``decode`` takes a JPEG from a
    smaller scale (at least 40 dB PSNR on photos). All options are those of ``decode``; ``margin`` only says on which
    pixels a crop may begin, so that both begin on the same.

    Args:
        fields: the images. None: all uint8 tensors (1, 3 or 4 x height x width), uint8 arrays (height x width, with so
            many channels last if any), labels of more than 8 bits (int32, or uint16 in arrays) and PIL images. Each
            stays what it is, in its own mode; ``mode="pad"`` puts 0 around it. An image that an earlier stage brought
            to a size is not mirrored again.

    Raises:
        StageError: a sample without an image, or without a size.

    >>> import numpy as np
    >>> (sample,) = fit(size=(4, 8))([{"__key__": "a", "image": np.zeros((8, 32, 3), np.uint8)}])
    >>> sample["image"].shape, sample["time_ids"].tolist()
    ((4, 8, 3), [8, 32, 0, 4, 4, 8])
    """
    framing = Framing(
        run, size, crop, flip, upscale, margin, interpolation, original_size, mode=mode, scale=scale, rounding=rounding
    )

    def attempt(sample: Sample) -> Any:
        try:
            return _fitted(sample, framing, fields)
        except StreampipeError as error:
            return error

    yield from passed(ordered(attempt, samples, threads, run=run), run)


def _named(sample: Sample, fields: tuple[str, ...]) -> list[str]:
    """The names of the images that were asked for, those of several in one field one by one."""
    return [name for field in fields for name in (apart({field: sample[field]}) if field in sample else (field,))]


def _fitted(sample: Sample, framing: Framing, fields: tuple[str, ...] | None) -> Any:
    whole, sample = sample, dict(apart(sample))
    names = [name for name in sample if is_image(sample[name])] if fields is None else _named(whole, fields)
    for name in names:
        if not is_image(sample.get(name)):
            raise StageError(f"stage {framing.run.stage!r}, {where(sample)}: field {name!r} is no decoded image")
    main = main_of(sample, names)
    lead = main if main in names else names[0] if names else ""
    if not names or (framing.target(sample, lead) is None and framing.size is None):
        missing = "no size; give fit(size=...), or put bucket(...) before it" if names else "no decoded image to fit"
        raise StageError(f"stage {framing.run.stage!r}, {where(sample)}: there is {missing}")
    told = {name: value for name, value in sample.items() if name not in names}
    try:
        frames = framing.frames(told, {name: size_of(sample[name]) for name in names}, main)
    except DecodeError as error:
        raise StageError(f"stage {framing.run.stage!r}, {where(sample)}, {error}") from error
    if frames is None:
        counters.add(framing.run.stage, TOO_SMALL, 0, key_of(sample))
        return SKIP
    if fields is None:
        try:
            check_left(told, size_of(sample[lead]), _LEFT, every=True)
        except DecodeError as error:
            raise StageError(f"stage {framing.run.stage!r}, {where(sample)}, {error}") from error
    fitted = dict(sample)
    for name, frame in frames.items():
        fitted[name] = fit_image(sample[name], frame.geometry, framing.interpolation_of(name), frame.flipped)
    fitted.update(framing.record(sample, frames, main))
    return together(fitted, whole)
