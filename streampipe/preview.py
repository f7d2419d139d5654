"""``preview``: a page of a dataset as training would see it, to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from streampipe import stages
from streampipe.atomic import write_atomic
from streampipe.context import Run
from streampipe.errors import ConfigError
from streampipe.kinds import checked
from streampipe.pipeline import Pipeline
from streampipe.report.html import filled
from streampipe.spec import AnyStage
from streampipe.stages.decoder import FieldDecoder
from streampipe.stages.stage import Stage, pushdown_of
from streampipe.stages.values import check_number
from streampipe.threads import ordered
from streampipe.traits import Batch, Group
from streampipe.views.cards import CardMaker


@checked
def preview(
    pipe: Pipeline,
    path: str | os.PathLike[str] = "preview.html",
    *,
    samples: int = 200,
    epoch: int = 0,
    edge: int = 192,
    threads: int = 2,
) -> int:
    """Write a page (HTML) of the first samples of a pipeline: one file that needs no server and no network.

    It shows images small, with captions, sizes, buckets and facts; the crop (and flip) that ``decode`` would make in
    that epoch; masks and control images laid over them; and it sorts, filters and searches. Whatever is in the
    dataset is shown as text. An image that is damaged is shown as that.

    What stands in front of the first ``decode``, ``fit`` or ``batch`` runs, and of ``caption`` wherever it is; what
    stands behind is of pixels and batches, and does not.

    Args:
        pipe: a pipeline over encoded samples, as ``sp.stream(...).bucket("sdxl").decode(crop="random")``.
        path: the page.
        samples: how many, at most. A page of 10,000 has about 60 MB.
        epoch: whose order and whose random crops.
        edge: of the small pictures, at most, in pixels.
        threads: that decode.

    Returns:
        How many samples are on the page.

    Raises:
        ConfigError: there is no sample, or the page cannot be written. Errors of shards and stages are as in a pass.

    >>> import tempfile, streampipe as sp
    >>> pipe = sp.from_iterable([{"__key__": "a", "txt": b"a cat"}])
    >>> sp.preview(pipe, tempfile.mkdtemp() + "/page.html")
    1
    """
    check_number("preview", "samples", samples, 1)
    check_number("preview", "epoch", epoch, 0)
    check_number("preview", "edge", edge, 16)
    check_number("preview", "threads", threads, 0)
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"preview writes a page, and {os.fspath(path)} is no name of one: end it in .html; the command streampipe "
            f"preview --out sheet.png makes a sheet of images"
        )
    if not isinstance(pipe, Pipeline):
        raise ConfigError(f"preview takes a pipeline, as sp.stream(...) gives it, not {pipe!r:.80}")
    cards = list(cards_of(pipe, samples, epoch, edge, threads))
    if not cards:
        raise ConfigError(f"there is no sample to show: {pipe!r} yields none")
    write_page(path, {"title": repr(pipe), "epoch": epoch, "seed": pipe.spec.seed, "cards": cards})
    return len(cards)


def cards_of(pipe: Pipeline, samples: int, epoch: int, edge: int, threads: int) -> Iterator[dict[str, Any]]:
    """The cards of a pipeline's first samples."""
    front, made, buckets, caption = _parts(pipe.chain)
    shown = pipe._changed(chain=(*front, caption), epochs=1)
    shown.set_epoch(epoch)
    options = {name: value for name, value in made.options.items() if name != "threads"}
    decoder = FieldDecoder(Run(seed=pipe.spec.seed, stage="decode"), **{**options, "device": None})
    maker = CardMaker(decoder, buckets, edge, caption.options["into"])
    yield from ordered(maker, islice(shown, samples), threads)


def write_page(path: str | os.PathLike[str], data: dict[str, Any]) -> None:
    """Write the page."""
    try:
        write_atomic(Path(path), filled("streampipe.views", "gallery.html", data).encode())
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)} cannot be written ({error}); choose another path") from error


def _parts(chain: Sequence[AnyStage]) -> tuple[list[AnyStage], Stage, Any, Stage]:
    """Of a chain: what runs before images are decoded, the stage that decodes, the buckets, and the caption."""
    built_in = [stage for stage in chain if isinstance(stage, Stage)]
    decodes = next((each for each in built_in if each.define is stages.decode), stages.decode())
    captions = next((each for each in built_in if each.define is stages.caption), stages.caption(missing="keep"))
    groups = [push for stage in chain if isinstance(push := pushdown_of(stage), Group)]
    front = takewhile(lambda stage: not _is_of_pixels(stage), chain)
    kept = [stage for stage in front if stage is not captions and not isinstance(pushdown_of(stage), Group)]
    return kept, decodes, groups[0].buckets if groups else None, captions


def _is_of_pixels(stage: AnyStage) -> bool:
    if isinstance(stage, Stage) and stage.define in (stages.decode, stages.fit):
        return True
    return isinstance(pushdown_of(stage), Batch)
