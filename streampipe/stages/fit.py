"""``fit``: images that are decoded already are brought to a size, with the numbers that ``decode`` would give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run, Sample, where
from streampipe.decoding import fit_image, is_image, main_image, size_of
from streampipe.decorators.skip import SKIP
from streampipe.errors import DecodeError, StageError, StreampipeError
from streampipe.stages.framing import Crop, Framing, passed
from streampipe.stages.stage import stage
from streampipe.stages.values import check_names, check_number
from streampipe.threads import ordered


def _check(threads: Any, fields: Any, **options: Any) -> None:
    check_number("fit", "threads", threads, 0, optional=True)
    check_names("fit", "fields", fields, optional=True)
    Framing(Run(stage="fit"), **options)


def _own_size(options: Mapping[str, Any]) -> Any:
    size = options["size"]
    return None if isinstance(size, Mapping) else size  # by field: the main image may have its bucket's


@stage(rows="each", state="nothing", check=_check, own_size=_own_size)
def fit(
    samples: Iterable[Sample],
    size: int | tuple[int, int] | None = None,
    *,
    crop: Crop = "center",
    flip: float = 0.0,
    upscale: str | float = "allow",
    margin: float | str | None = "default",
    interpolation: str | Mapping[str, str] = "bicubic",
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
        fields: the images. None: all uint8 tensors (1 or 3 x height x width), uint8 arrays (height x width, with 1 or
            3 channels last if any) and PIL images. Each stays what it is.

    Raises:
        StageError: a sample without an image, or without a size.

    >>> import numpy as np
    >>> (sample,) = fit(size=(4, 8))([{"__key__": "a", "image": np.zeros((8, 32, 3), np.uint8)}])
    >>> sample["image"].shape, sample["time_ids"].tolist()
    ((4, 8, 3), [8, 32, 0, 4, 4, 8])
    """
    framing = Framing(run, size, crop, flip, upscale, margin, interpolation, original_size)

    def attempt(sample: Sample) -> Any:
        try:
            return _fitted(sample, framing, fields)
        except StreampipeError as error:
            return error

    yield from passed(ordered(attempt, samples, run.threads if threads is None else threads, trail=run.trail), run)


def _fitted(sample: Sample, framing: Framing, fields: tuple[str, ...] | None) -> Any:
    names = [name for name in sample if is_image(sample[name])] if fields is None else list(fields)
    for name in names:
        if not is_image(sample.get(name)):
            raise StageError(f"stage {framing.run.stage!r}, {where(sample)}: field {name!r} is no decoded image")
    target = framing.target(sample)
    if not names or target is None:
        missing = "no size; give fit(size=...), or put bucket(...) before it" if names else "no decoded image to fit"
        raise StageError(f"stage {framing.run.stage!r}, {where(sample)}: there is {missing}")
    main = main_image(names)
    told = {name: value for name, value in sample.items() if name not in names}
    geometry = framing.decide(told, size_of(sample[main]), target)
    if geometry is None:
        return SKIP
    fitted = dict(sample)
    for name in names:
        try:
            framing.check_shape(name, size_of(sample[name]), geometry)
        except DecodeError as error:
            raise StageError(f"stage {framing.run.stage!r}, {where(sample)}, field {name!r}: {error}") from error
        fitted[name] = fit_image(sample[name], geometry, framing.interpolation_of(name))
    fitted.update(framing.record(sample, geometry))
    return fitted
