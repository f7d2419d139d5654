"""The fluent face: one method for each stage, which adds it to the chain, with all its options spelt out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streampipe import stages
from streampipe.captions import Tags
from streampipe.decoding import MAX_PIXELS, MEMORY, Colour, Formats
from streampipe.decorators.inference import inference
from streampipe.decorators.model import is_module
from streampipe.index.beside import Beside
from streampipe.plan.buckets import Buckets
from streampipe.plan.buckets import make as make_buckets
from streampipe.query.aliases import CAPTION_KEYS
from streampipe.query.condition import Condition
from streampipe.query.own import WithFacts
from streampipe.source import Source
from streampipe.spelling import spelt
from streampipe.stages.batch import Collate
from streampipe.stages.bucket import MAX_BYTES
from streampipe.stages.collate import Pad
from streampipe.stages.decoder import Decoders
from streampipe.stages.framing import Crop, Sizes
from streampipe.stages.grouping import find_groups
from streampipe.stages.pack import WINDOW
from streampipe.stages.stage import Stage, StageDefinition, pushdown_of
from streampipe.stages.values import check_kind
from streampipe.traits import Split

if TYPE_CHECKING:
    from typing_extensions import Self


class Fluent:
    """What a pipeline is built with. Every method gives a new pipeline; none changes the one it is called on."""

    @property
    def chain(self) -> tuple[Any, ...]:
        """The stages so far."""
        raise NotImplementedError

    def apply(self, stage: Callable[[Iterable[Any]], Iterable[Any]] | StageDefinition[...]) -> Self:
        """Add a stage."""
        raise NotImplementedError

    def _beside(self, stage: str) -> Beside:
        """Where this pipeline's shards are, for a stage that reads files beside them."""
        raise NotImplementedError

    def _beside_if_any(self) -> Beside | None:
        """The same for a stage that can do without; None where shards of several datasets meet."""
        raise NotImplementedError

    @spelt
    def map(self, fn: Callable[..., Any], field: str | None = None, *, threads: int | None = None) -> Self:
        """``fn`` over every sample, or over one field of it; see ``streampipe.stages.map``.

        A torch module or exported program runs as ``sp.inference`` runs it: without gradients, in eval mode.
        """
        fn = inference(fn) if is_module(fn) else fn
        return self.apply(_made(stages.map, fn=fn, field=field, threads=threads))

    @spelt
    def flat_map(self, fn: Callable[..., Any], *, threads: int | None = None) -> Self:
        """``fn(sample)`` gives several samples (an iterable) in place of one; see ``streampipe.stages.flat_map``."""
        return self.apply(_made(stages.flat_map, fn=fn, threads=threads))

    @spelt
    def where(
        self, condition: Any, missing: str = "drop", *, facts: str | os.PathLike[str] | None = None, on: str = "key"
    ) -> Self:
        """Only the samples that fulfil a condition: ``"width >= 512 and aesthetic > 5"``, or a pyarrow expression.

        Facts are ``key``, ``width`` and ``height`` of the main image as shown, the scalars of the json member
        (``json.width`` where a name is taken, ``meta.score`` inside an object), and, behind ``join``, its columns. The
        names aesthetic, watermark, nsfw, similarity, language, width, height, original_width, original_height and
        caption also stand for what the public datasets call them (``streampipe.query.aliases``). Texts stay texts:
        where a dataset has ``NSFW`` as ``"UNLIKELY"``, write ``nsfw == 'UNLIKELY'``.

        At the head of a chain over counted shards the index answers and nothing is read; else each sample's own json
        and image header do, with the same result. ``missing``: what to do where a value is not there and the condition
        is neither true nor false: ``"drop"``, ``"keep"`` or ``"error"``. ``report()`` counts what was dropped by the
        parts of the condition: in the planned tier once, when the filter is computed.

        ``facts``: a file with facts of your own, ``where("score > 3", facts="scores.parquet")``: Parquet, CSV or JSON
        lines, local or remote, one row a sample, joined by its column ``on``, which has the samples' keys. Its columns
        come before others of the same name; the planner asks them as it asks the index. A sample without a row lacks
        the value. Of a Parquet file only the columns that the condition names are read.
        """
        beside, asked = self._beside_if_any(), Condition(condition, missing)
        check_kind("where", "facts", facts, (str, os.PathLike), "a Parquet, CSV or JSON lines file")
        if facts is None:
            return self.apply(_made(stages.where, condition=asked, beside=beside))
        source = Source() if beside is None else beside.source
        return self.apply(_made(stages.where, condition=WithFacts(asked, facts, on, source), beside=beside))

    @spelt
    def filter(self, fn: Callable[[Any], Any]) -> Self:
        """Only the samples for which ``fn(sample)`` is true; see ``streampipe.stages.filter``."""
        return self.apply(_made(stages.filter, fn=fn))

    @spelt
    def select(self, *fields: str, metadata: bool = True) -> Self:
        """Only these fields, ``"jpg;png"`` being the first that is there; see ``streampipe.stages.select``.

        ``metadata=False`` leaves ``__key__``, ``__url__`` and ``__position__`` out too.
        """
        return self.apply(_made(stages.select, fields=fields, metadata=metadata))

    @spelt
    def drop(self, *fields: str, missing: str = "error") -> Self:
        """All fields but these, ``"jpg;png"`` being the first that is there; see ``streampipe.stages.drop``."""
        return self.apply(_made(stages.drop, fields=fields, missing=missing))

    @spelt
    def rename(self, **names: str) -> Self:
        """New names for fields: ``rename(image="jpg;png", text="txt")``; see ``streampipe.stages.rename``."""
        return self.apply(_made(stages.rename, names=names))

    @spelt
    def collect(
        self,
        *fields: str,
        listed: Mapping[str, str] = {},
        least: int = 1,
        missing: str = "error",
    ) -> Self:
        """Several images as one field: ``collect("ref")`` makes ``ref.0.jpg``, ``ref.1.jpg`` a list ``ref``; see
        ``streampipe.stages.collect``.
        """
        return self.apply(_made(stages.collect, fields=fields, listed=listed, least=least, missing=missing))

    @spelt
    def assign(self, **fields: Any) -> Self:
        """The same fields for every sample: ``assign(loss_weight=1.0, dataset="reg")``; see ``stages.assign``."""
        return self.apply(_made(stages.assign, fields=fields))

    @spelt
    def default(self, **fields: Any) -> Self:
        """Fields that some samples lack: ``default(weight=1.0)``; see ``streampipe.stages.default``."""
        return self.apply(_made(stages.default, fields=fields))

    @spelt
    def shuffle(self, size: int) -> Self:
        """A shuffle buffer of ``size`` samples; see ``streampipe.stages.shuffle``."""
        return self.apply(_made(stages.shuffle, size=size))

    @spelt
    def decode(
        self,
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
    ) -> Self:
        """Bytes become images, texts, numbers, arrays; see ``streampipe.stages.decode`` for the options."""
        return self.apply(_made(stages.decode, **_options(locals())))

    @spelt
    def caption(
        self,
        keys: str | Sequence[str] = CAPTION_KEYS,
        *,
        weights: Sequence[float] | None = None,
        template: str | None = None,
        prefix: str = "",
        suffix: str = "",
        dropout: float = 0.0,
        tags: Tags | None = None,
        lines: str = "all",
        clean: Callable[[str], str] | None = None,
        missing: str = "error",
        into: str = "caption",
        objects: str = "error",
    ) -> Self:
        """One text ``caption`` of every sample, from where it is; see ``streampipe.stages.caption`` for the options."""
        return self.apply(_made(stages.caption, **_options(locals())))

    @spelt
    def join(
        self,
        sidecar: str | os.PathLike[str] | Callable[[str], str | None],
        on: str | tuple[str, str] = "key",
        *,
        columns: str | Sequence[str] | Mapping[str, str] | None = None,
        missing: str = "error",
        prefix: str = "",
    ) -> Self:
        """More fields for every sample, from a file beside its shard; see ``streampipe.stages.join`` for options."""
        return self.apply(_made(stages.join, **_options(locals()), beside=self._beside("join")))

    @spelt
    def fit(
        self,
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
    ) -> Self:
        """Decoded images brought to a size, as ``decode(size)`` would; see ``streampipe.stages.fit``."""
        return self.apply(_made(stages.fit, **_options(locals())))

    @spelt
    def clips(
        self,
        frames: int | Sequence[int] | None = None,
        fps: float | None = None,
        *,
        rule: str = "head",
        n: int | None = None,
        stride: int | None = None,
        audio: bool | int = False,
    ) -> Self:
        """Clips of each sample's video, as samples of their own; see ``streampipe.stages.clips`` for the options.

        At the head of a chain over counted tars, behind ``where`` at most, the planner counts them.
        """
        return self.apply(_made(stages.clips, **_options(locals())))

    @spelt
    def bucket(
        self,
        buckets: str | Buckets | Iterable[tuple[int, int]],
        *,
        tail: str = "carry",
        same: bool | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Self:
        """Aspect-ratio buckets: batches of images of one size each, the nearest to their shape, so little is cut away.

        Put it before ``decode()`` (without a size) and ``batch``. At the head of a chain over counted shards, behind
        ``where`` or ``mix`` at most, the planner does it in integers: equal steps, nothing lost, resume at any step.

        Args:
            buckets: ``"sdxl"``, ``"sd15"``, ``"pixart"``, ``"photo"``, ``sp.Buckets(...)``, or a list of
                (height, width).
            tail: what becomes of samples that fill no batch of their bucket. ``"carry"``: they come first in the
                next epoch, so nothing is lost over epochs and all batches are full. ``"merge"``: at the end of an epoch
                neighbouring buckets share batches, at the size that cuts least: every sample once an epoch, for
                validation. ``"drop"``: they are left out, and counted.
            same: True (the default where samples are counted): a step is one bucket on all ranks. False: each rank has
                a bucket of its own.
            max_bytes: where samples are not counted: what may wait for a full batch in each worker.

        Samples without an image of a known size are errors, or skipped under ``on_error="skip"``; those beyond
        ``max_ar`` are left out; both are counted. What drops samples (``where``, ``filter``) belongs in front of it: a
        slot that becomes empty behind it is filled with another sample of the same batch once more, and counted.

        Behind ``clips`` a bucket is height x width x frames: sizes with each of the numbers of frames that clips have,
        and with one frame for images (``sp.Buckets(..., frames=)`` names others).
        """
        made = make_buckets(buckets)
        cut = next((each for stage in self.chain if isinstance(each := pushdown_of(stage), Split)), None)
        if cut is not None and made.frames is None:
            made = made.with_frames((1, *cut.rule.frames))
        return self.apply(_made(stages.bucket, buckets=made, tail=tail, same=same, max_bytes=max_bytes))

    @spelt
    def batch(
        self,
        size: int | Mapping[Any, int] | None = None,
        *,
        pixels: int | None = None,
        collate: Collate | None = None,
        tail: str = "short",
        pad: Pad | None = None,
    ) -> Self:
        """``size`` samples as one dict of stacked tensors and lists; see ``streampipe.stages.batch``.

        Behind ``bucket`` it may be a number for each (height, width), or a budget: ``batch(pixels=16 * 1024 * 1024)``.
        Where buckets have frames too, for each (height, width, frames), or each number of frames: ``{1: 32, 17: 2}``;
        where they have several areas, for the edge of each: ``{512: 32, 1024: 8}``.
        """
        stage = _made(stages.batch, **_options(locals()))
        if not isinstance(size, int):
            find_groups((*self.chain, stage), needed=True)
        return self.apply(stage)

    @spelt
    def pack(
        self,
        budget: int,
        cost: str | Callable[[Any], int] = "tokens",
        *,
        limit: int | None = None,
        missing: str | int = "error",
        concat: str | Sequence[str] = (),
        fixed: bool = False,
        window: int = WINDOW,
        collate: Collate | None = None,
    ) -> Self:
        """Samples to packs that cost ``budget`` together at most, in place of ``batch``: a pack is a rank's step.

        (The converter of folders to shards is ``sp.pack``.) Where the index knows what samples cost, the planner
        decides which of them share a pack: nearly full packs, the same on any ranks, of equal cost on all ranks of a
        step, every sample once an epoch, resume at any step. Else packs are made as samples come, window after window.

        Args:
            budget: what a pack may cost, such as 36,864 tokens.
            cost: what a sample costs: a column of the index (``"tokens"``), an expression of columns as in ``where``
                (``"height * width // 256 + text_tokens"``), or a function of the sample as it is here. Fractions are
                rounded up.
            limit: samples that cost more are left out, counted. Without it one that costs more than the budget is an
                error, or skipped under ``on_error="skip"``.
            missing: ``"error"``, or 0: a value that a sample lacks counts as 0 in ``cost``, so that images, texts and
                videos have one expression.
            concat: fields that are joined along their first dimension, as attention kernels take them, with
                ``cu_seqlens``, ``max_seqlen``, ``position_ids`` and ``segment_ids``; other fields are lists. See
                ``streampipe.stages.varlen.join``.
            fixed: joined fields are filled up with zeros to ``budget`` rows, for compiled models.
            window: where samples' costs are not known before they come: so many are packed together, in each lane.
            collate: a function from the samples of a pack to what it becomes, in place of all that.
        """
        return self.apply(_made(stages.pack, **_options(locals())))

    @spelt
    def unbatch(self) -> Self:
        """Batches become samples again; see ``streampipe.stages.unbatch``."""
        return self.apply(stages.unbatch())

    @spelt
    def take(self, n: int) -> Self:
        """The first ``n`` samples of an epoch, over all workers and ranks together; see ``streampipe.stages.take``."""
        return self.apply(_made(stages.take, n=n))

    @spelt
    def skip(self, n: int) -> Self:
        """All but the first ``n`` samples of an epoch, over all workers and ranks; see ``streampipe.stages.skip``."""
        return self.apply(_made(stages.skip, n=n))


def _made(define: StageDefinition[...], **options: Any) -> Stage:
    """The stage, given what is not its default, so that pipelines which do the same read the same."""
    given = {name: value for name, value in options.items() if not _is_default(define, name, value)}
    return define(**given)


def _is_default(define: StageDefinition[...], name: str, value: Any) -> bool:
    default = define.defaults.get(name, _NONE)
    return value is default or (type(value) is type(default) and bool(value == default))


_NONE = object()


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """A method's parameters, of its ``locals()`` at its beginning."""
    return {name: value for name, value in given.items() if name != "self"}
