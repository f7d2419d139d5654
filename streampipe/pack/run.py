"""``pack``: a folder of images with sidecars becomes shards.

Strategy: everything that can be known is found first (``listing``), then the shards are decided from sizes alone
(``split``), then the output folder is claimed (``job``), and then shards are made, each with its index and each a
function of its samples alone (``shard``), in processes or here; the journal has them in order, the manifest comes last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from tqdm import tqdm

from streampipe.errors import ConfigError, PackError, StreampipeError
from streampipe.folders.files import digest_of
from streampipe.folders.layouts import Layout, layout_of
from streampipe.folders.listing import Listing, check, scan
from streampipe.folders.walk import Few
from streampipe.pack.change import Change
from streampipe.pack.job import LIST, claim, exclusive, finish, note, shard_name, tidy
from streampipe.pack.shard import AGAIN, Made, Skipped, Task, make
from streampipe.pack.split import split
from streampipe.processes import ordered
from streampipe.tar import Limits

_WORTH = 64 << 20  # bytes from which worker processes are started by default
_WORKERS = 8


@dataclass
class Summary:
    """What a run of ``pack`` did, or with ``dry_run`` would do."""

    out: str
    samples: int = 0
    shards: int = 0
    kept: int = 0  # shards that an earlier run had finished
    bytes: int = 0  # of the shards; of a dry run, of the files
    fields: dict[str, int] = field(default_factory=dict)
    without_caption: int = 0
    orphans: int = 0
    other: int = 0
    hidden: int = 0
    repeated: int = 0  # samples left out because another has the same image
    seconds: float = 0.0
    skipped: list[Skipped] = field(default_factory=list)
    dry_run: bool = False
    collisions: int = 0  # of a dry run
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "skipped": [each._asdict() for each in self.skipped]}

    def __str__(self) -> str:
        verb = "would be written to" if self.dry_run else "in"
        lines = [
            f"{self.samples} samples in {self.shards} shards ({self.bytes / 1e6:.1f} MB) {verb} {self.out}, "
            f"{self.seconds:.1f} s" + (f"; {self.kept} shards were there already" if self.kept else "")
        ]
        if self.fields:
            shown = ", ".join(f"{name} ({count})" for name, count in sorted(self.fields.items()))
            lines.append(f"  fields: {shown}")
        if self.without_caption:
            lines.append(f"  {self.without_caption} images without a caption file")
        lines += [f"  {note}" for note in self.notes]
        if self.skipped:
            what = "files cannot be packed" if self.dry_run else f"files were left out; listed in {LIST}"
            lines.append(f"  {len(self.skipped)} {what}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Planned:
    """A shard that is to be made: its samples' numbers in the listing, and a digest of their files."""

    start: int
    count: int
    digest: str


def pack(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_samples: int = 10_000,
    max_bytes: int = 1_000_000_000,
    shuffle: bool = False,
    seed: int = 0,
    on_error: str = "raise",
    layout: str = "auto",
    metadata: str | os.PathLike[str] | None = None,
    caption: str | None = None,
    resize: int | None = None,
    max_pixels: int | None = None,
    format: str | None = None,
    quality: int = 92,
    upright: bool = False,
    deduplicate: bool = False,
    follow_symlinks: str | None = None,
    case_sensitive: bool = False,
    num_workers: int | None = 0,
    multiprocessing_context: Any = None,
    limits: Limits | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Summary:
    """Write a folder's images, and the files of the same name beside them, as shards into ``out``.

    Every shard gets an index beside it, and ``out`` a manifest. Bytes are packed as they are. ``a.txt``, ``a.json`` or
    ``a.jpg.txt`` beside ``a.jpg``, and ``a.mask.png``, become fields of sample ``a``. Samples come in the order of
    their keys, or in an order shuffled by ``seed``. A run that was interrupted goes on when it is run again, and ends
    with the same bytes; a job that has ended is not changed.

    Args:
        max_samples: samples of a shard, at most.
        max_bytes: bytes of a shard, at most, of the files as they are; a sample that is larger has a shard of its own.
        on_error: ``"skip"`` leaves out samples with files that cannot be packed, and lists them in ``skipped.jsonl``.
        layout: how the folder is laid out: ``"plain"``, ``"kohya"`` (folders such as ``10_my dog``), ``"classes"`` (a
            folder for each), ``"tables"`` (``metadata.csv``, ``.jsonl`` or ``.parquet`` beside the images, as of
            Hugging Face's imagefolder; ``captions.json``), ``"pairs"`` (``images/``, ``conditioning_images/``,
            ``masks/``, ``captions/`` side by side); ``"auto"`` finds out, but for classes, and the result says so.
        metadata: a table for layout ``"tables"`` that lies elsewhere, or has another name; paths in it are relative to
            ``folder``.
        caption: for images that have none, as in ``"a photo of a {name}"``.
        resize: pixels of an image's shorter edge, at most; smaller images, and all without such options, keep their
            bytes. The size that an image had goes into the json, as ``original_width`` and ``original_height``.
        max_pixels: pixels of an image, at most.
        format: ``"jpg"``, ``"webp"`` or ``"png"``: what images of other formats become. Masks stay lossless.
        quality: of JPEGs and WebPs that are made.
        upright: turn images whose orientation only EXIF says; images that are changed are turned anyway.
        deduplicate: of samples whose main images are equal, byte for byte, only the first by key is packed.
        follow_symlinks: a folder that symbolic links may lead into; without it they stay in ``folder``.
        case_sensitive: whether keys may differ in case alone; some readers and file systems take them for one.
        num_workers: processes that make shards; 0 for none, None for as many as there are processors, up to 8 (as the
            command does), where there is enough to do.
        limits: what readers take, so that nothing is written that they refuse.
        dry_run: find out what would be done, and write nothing.

    Raises:
        NameCollision: files that would become the same member; found before anything is written, as all below.
        OutputBusy: ``out`` holds other shards, or another run is writing there.
        PackError: nothing to pack, a file that cannot be packed; later, a full disk, or a file that has changed.

    >>> import pathlib, tempfile, streampipe as sp
    >>> folder, out = pathlib.Path(tempfile.mkdtemp()), tempfile.mkdtemp()
    >>> _ = (folder / "a.jpg").write_bytes(b"..."), (folder / "a.txt").write_text("a cat")
    >>> sp.pack(folder, out, progress=False).fields
    {'jpg': 1, 'txt': 1}
    """
    folder, out = os.fspath(folder), os.fspath(out)
    if max_samples < 1 or max_bytes < 1:
        raise ConfigError(f"max_samples and max_bytes are 1 or more, not {max_samples} and {max_bytes}")
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    if num_workers is not None and num_workers < 0:
        raise ConfigError(f"num_workers is 0 or more, not {num_workers}")
    change = Change(resize, max_pixels, format, quality, upright)
    start = time.perf_counter()
    with tqdm(unit=" files", desc="find", disable=not progress, leave=False, delay=1) as bar:
        listing = scan(
            folder,
            follow_symlinks=follow_symlinks,
            layout=_layout(folder, layout, metadata),
            case_sensitive=case_sensitive,
            caption=caption,
            deduplicate=deduplicate,
            seed=seed if shuffle else None,
            without=out,
            limits=limits,
            tell=bar.update,
        )
    with listing:
        if not dry_run:
            check(listing, on_error)
        shards = list(_planned(listing, max_samples, max_bytes))
        summary = _summary(listing, out, len(shards), dry_run)
        if not dry_run:
            asked = {
                "version": 2,
                "folder": os.path.realpath(folder),
                "layout": listing.layout.name,
                "metadata": None if metadata is None else os.path.realpath(metadata),
                "caption": caption,
                "deduplicate": deduplicate,
                "change": asdict(change) if change else None,
                "max_samples": max_samples,
                "max_bytes": max_bytes,
                "seed": seed if shuffle else None,
            }
            workers = _workers(num_workers, listing.bytes, len(shards))
            run = _Run(listing, out, shards, asked, on_error, change, summary)
            run(workers, multiprocessing_context, progress)
    summary.seconds = time.perf_counter() - start
    return summary


class _Run:
    """The shards of a job, made."""

    def __init__(
        self,
        listing: Listing,
        out: str,
        shards: Sequence[Planned],
        asked: dict[str, Any],
        on_error: str,
        change: Change,
        summary: Summary,
    ) -> None:
        self._listing, self._out, self._shards = listing, out, shards
        self._asked, self._on_error, self._change, self._summary = asked, on_error, change, summary

    def __call__(self, workers: int, context: Any, progress: bool) -> None:
        try:
            with exclusive(self._out):
                made = self._make(workers, context, progress)
                skipped = [each for one in made for each in one.skipped]
                summary = self._summary
                summary.skipped += skipped
                summary.samples = sum(one.entry.samples for one in made)
                summary.bytes = sum(one.entry.bytes for one in made)
                if not summary.samples:
                    raise PackError(
                        f"none of the {self._listing.samples} samples of {self._listing.folder} could be read: "
                        f"{skipped[0].file} ({skipped[0].reason})"
                    )
                finish(self._out, self._asked, made, summary.skipped)
        except OSError as error:
            if isinstance(error, StreampipeError):
                raise
            where = error.filename2 or error.filename or self._out
            raise PackError(f"{where} could not be written ({error.strerror or error}); {AGAIN}") from error

    def _make(self, workers: int, context: Any, progress: bool) -> list[Made]:
        names = [shard_name(number, len(self._shards)) for number in range(len(self._shards))]
        done = claim(self._out, self._asked, [each.digest for each in self._shards])
        self._summary.kept = len(done)
        todo = [(name, each) for name, each in zip(names, self._shards, strict=True) if name not in done]
        with tqdm(total=self._listing.samples, unit=" samples", desc="pack", disable=not progress) as bar:
            bar.update(sum(each.count for name, each in zip(names, self._shards, strict=True) if name in done))
            tasks = self._tasks(todo)
            try:
                for made in ordered(make, tasks, min(workers, len(todo)), tell=bar.update, context=context):
                    note(self._out, made)
                    done[made.entry.shard] = made
            finally:
                tidy(self._out)  # after an error, what workers were at
        return [done[name] for name in names]

    def _tasks(self, todo: Sequence[tuple[str, Planned]]) -> Iterator[Task]:
        for name, shard in todo:
            items = tuple(self._listing.items(shard.start, shard.count))
            yield Task(
                os.path.join(self._out, name), self._listing.folder, items, shard.digest, self._on_error, self._change
            )


def _planned(listing: Listing, max_samples: int, max_bytes: int) -> Iterator[Planned]:
    items, start = listing.items(), 0
    for count in split(listing.sizes(), max_samples, max_bytes):
        yield Planned(start, count, digest_of(islice(items, count)))
        start += count


def _layout(folder: str, name: str, metadata: str | os.PathLike[str] | None) -> Layout:
    if not os.path.isdir(folder):
        raise PackError(f"{folder} is no folder; give the folder that holds the images")
    return layout_of(folder, name, None if metadata is None else os.fspath(metadata))


def _workers(given: int | None, total: int, shards: int) -> int:
    if given is None:
        given = min(_WORKERS, len(os.sched_getaffinity(0))) if total >= _WORTH else 0
    return given if min(given, shards) > 1 else 0


def _summary(listing: Listing, out: str, shards: int, dry_run: bool) -> Summary:
    notes = [
        f"{few.count} {what} ({few})"
        for few, what in (
            (listing.orphans, "sidecar files without an image, not packed"),
            (listing.other, "files of other kinds, not packed"),
            (Few(listing.hidden), "hidden files and folders, passed over"),
            (listing.repeated, "images that are there twice, packed once"),
            (listing.collisions, "name collisions: rename the files"),
        )
        if few.count
    ]
    notes.insert(0, f"layout: {listing.layout.name} ({listing.layout.about})")
    if listing.layout.rows is not None and (unused := listing.layout.rows.unused())[0]:
        notes.append(f"{unused[0]} rows of tables are of no image ({'; '.join(unused[1])})")
    return Summary(
        out,
        samples=listing.samples,
        shards=shards,
        bytes=listing.bytes,
        fields=dict(sorted(listing.fields.items())),
        without_caption=listing.without_caption,
        orphans=listing.orphans.count,
        other=listing.other.count,
        hidden=listing.hidden,
        repeated=listing.repeated.count,
        skipped=[Skipped(path, why) for path, why in listing.why_broken()],
        dry_run=dry_run,
        collisions=listing.collisions.count,
        notes=[note.replace(" ()", "") for note in notes],
    )
