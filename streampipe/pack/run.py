"""``pack``: a folder of images with sidecars, other shards, or tables with images in them become shards.

Strategy: everything that can be known is found first (``find``), then the shards are decided from sizes alone
(``split``), then the output folder is claimed (``job``), and then shards are made, each with its index and each a
function of its samples alone (``shard``), in processes or here; the journal has them in order, the manifest comes last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import Any

from tqdm import tqdm

from streampipe.cluster import cluster_of
from streampipe.errors import ConfigError
from streampipe.folders.zips import Zips
from streampipe.kinds import checked
from streampipe.pack.catalog import Catalog
from streampipe.pack.change import Change
from streampipe.pack.find import Choice, Names, Of, find, kind_of
from streampipe.pack.job import list_repeated
from streampipe.pack.output import Output
from streampipe.pack.sift import Sift
from streampipe.pack.spool import unordered
from streampipe.pack.summary import Summary, summary_of
from streampipe.pack.supply import Files, Supply
from streampipe.pack.work import How, Job, Work, planned
from streampipe.plan.buckets import Buckets
from streampipe.source import local_path, redact
from streampipe.tar import Limits


@checked
def pack(
    given: Names,
    out: str | os.PathLike[str],
    *,
    max_samples: int = 10_000,
    max_bytes: int = 1_000_000_000,
    shuffle: bool = False,
    seed: int | None = None,
    where: str | None = None,
    bucket: str | Buckets | None = None,
    deduplicate: bool | str = False,
    on_error: str = "raise",
    layout: str = "auto",
    metadata: str | os.PathLike[str] | None = None,
    file_column: str | None = None,
    caption_column: str | None = None,
    caption: str | None = None,
    beside: Mapping[str, str | os.PathLike[str]] | None = None,
    resize: int | None = None,
    max_pixels: int | None = None,
    format: str | None = None,
    quality: int = 92,
    orientation: str = "auto",
    srgb: bool = False,
    verify: bool = False,
    unpickle: bool = False,
    sha256: bool = True,
    follow_symlinks: str | None = None,
    case_sensitive: bool = False,
    read_as: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    num_workers: int | None = 0,
    multiprocessing_context: Any = None,
    engine: str = "local",
    address: str | None = None,
    limits: Limits | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Summary:
    """Write samples as shards into ``out``: of a folder of images, of other shards, of tables with images in them.

    Every shard gets an index beside it, and ``out`` a manifest. Bytes are packed as they are. ``a.txt``, ``a.json`` or
    ``a.jpg.txt`` beside ``a.jpg``, and ``a.mask.png``, become fields of sample ``a``. A folder's samples come in the
    order of their keys, others in the order in which they are read, all in an order shuffled by ``seed`` if it is asked
    for. A run that was interrupted goes on when it is run again, and ends with the same bytes; a job that has ended is
    not changed.

    Args:
        given: a folder of images, also in a zip archive (``"a.zip"``, ``"a.zip/train"``); or shards, Parquet or Arrow
            files, as ``sp.stream`` takes them; or a sample source.
        max_samples: samples of a shard, at most.
        max_bytes: bytes of a shard, at most, of the files as they are; a sample that is larger has a shard of its own.
        shuffle: mix the samples over all shards, not within a window. Samples that can only be read front to back
            (Parquet, compressed shards) are packed in their order first, on this machine, which needs the room twice.
        seed: of the shuffle; 0 if none is given.
        where: which samples are packed, as in ``"width >= 512 and aesthetic > 5"``; answered before one is packed.
        bucket: a set of buckets, such as ``"sdxl"``: each shard then has images of one bucket, its index a column
            ``bucket``.
        deduplicate: of samples whose main images are equal, byte for byte, only the first is packed; ``"alike"``: also
            of those that are alike to the eye, in whatever size, format or quality (needs ``streampipe[perceptual]``;
            videos are not looked at). The others are listed in ``repeated.jsonl``.
        on_error: ``"skip"`` leaves out samples with files that cannot be packed, and lists them in ``skipped.jsonl``.
        layout: how a folder is laid out; ``"auto"`` finds out, and the result says so: ``"plain"``, ``"kohya"``
            (folders such as ``10_my dog``, also in ``img/`` and ``reg/``), ``"tables"`` (``metadata.csv``, ``.jsonl``
            or ``.parquet`` beside the images, as of Hugging Face's imagefolder; ``captions.json``), ``"pairs"``
            (``images/``, ``conditioning_images/``, ``masks/``, ``captions/`` side by side), ``"ai-toolkit"``
            (``default.txt`` is the caption of all that have none), ``"img2dataset"`` (its output format ``files``).
            Never guessed is ``"classes"`` (a folder for each).
        metadata: a table for layout ``"tables"`` that lies elsewhere, or has another name; paths in it are relative to
            ``given``.
        file_column: the column of a table that names the image, by its path or its mere name or number.
        caption_column: the column of a table that becomes the caption.
        caption: for images that have none, as in ``"a photo of a {name}"``.
        beside: folders that lie elsewhere, whose files belong to the images of the same path, by the part that they
            are: ``{"mask": "masks/", "control": "edges/"}`` gives fields ``mask.png`` and ``control.png``.
        resize: pixels of an image's shorter edge, at most; smaller images, and all without such options, keep their
            bytes. The size that an image had goes into the json, as ``original_width`` and ``original_height``.
        max_pixels: pixels of an image, at most.
        format: ``"jpg"``, ``"webp"`` or ``"png"``: what images of other formats become. Masks stay lossless.
        quality: of JPEGs and WebPs that are made.
        orientation: images whose orientation only EXIF says are turned if they are changed anyway (``"auto"``), all of
            them (``"bake"``), or none (``"keep"``: what is changed says it in EXIF again).
        srgb: bring images with another colour profile to sRGB.
        verify: decode every image whole; one that is damaged cannot be packed.
        sha256: of each shard, for the manifest, and of each main image as it was found, as a column of the index.
            Without it packing takes half of the time of a processor; each sample still has its crc32.
        unpickle: make ``.pth``, ``.pt``, ``.pkl`` and ``.pyd`` fields, which readers refuse, into ``.npy``,
            ``.safetensors`` and ``.json``, as far as they hold plain values, arrays and tensors; nothing is run.
        follow_symlinks: a folder that symbolic links may lead into; without it they stay in the folder.
        case_sensitive: whether keys may differ in case alone; some readers and file systems take them for one.
        read_as: ``"folder"``, ``"tar"``, ``"parquet"``, ... where what was given could be several; by default its names
            say it.
        storage_options: for fsspec, where shards or tables are remote.
        num_workers: processes that make shards; 0 for none, None for as many as there are processors, up to 8 (as the
            command does), where there is enough to do. On a cluster: tasks at once, by default one a processor.
        engine: ``"local"``, or ``"ray"``: shards are tasks of a Ray cluster, whose machines see input and output under
            the same names. The bytes are the same.
        address: of the Ray cluster; by default the one that the environment names, else one on this machine.
        limits: what readers take, so that nothing is written that they refuse.
        dry_run: find out what would be done, and write nothing.

    Raises:
        NameCollision: files that would become the same member, or samples of one key; found before anything is written,
            as all below.
        OutputBusy: ``out`` holds other shards, or another run is writing there.
        PackError: nothing to pack, a file that cannot be packed; later, a full disk, or a file that has changed.

    >>> import pathlib, tempfile, streampipe as sp
    >>> folder, out = pathlib.Path(tempfile.mkdtemp()), tempfile.mkdtemp()
    >>> _ = (folder / "a.jpg").write_bytes(b"..."), (folder / "a.txt").write_text("a cat")
    >>> sp.pack(folder, out, progress=False).fields
    {'jpg': 1, 'txt': 1}
    """
    out = os.fspath(out)
    _check(max_samples, max_bytes, on_error, num_workers)
    if seed is not None and not shuffle:
        raise ConfigError(f"seed={seed} is of shuffle=True (--shuffle), which was not said: samples keep their order")
    change = Change(resize, max_pixels, format, quality, orientation, srgb)
    cluster = cluster_of(engine, address, num_workers)
    source = Zips(storage_options)
    kind = kind_of(given, read_as, source, out)
    sift = Sift(where, bucket, source)
    order = (seed or 0) if shuffle else None
    choice = Choice(sift, order, deduplicate, case_sensitive, on_error, limits or Limits())
    table = None if metadata is None else os.fspath(metadata)
    of = Of(layout, table, file_column, caption_column, caption, beside, follow_symlinks)
    start = time.perf_counter()
    with tqdm(unit=" files", desc="find", disable=not progress, leave=False, delay=1) as bar:
        supply = find(given, kind, of, choice, out, source, bar.update)
    with closing(supply) as found:
        if not dry_run:
            found.check(on_error)
        asked = {
            "version": 3,
            **_input(found, kind, of),
            "where": where,
            "bucket": None if sift.buckets is None else repr(sift.buckets),
            "deduplicate": deduplicate,
            "change": asdict(change) if change else None,
            "verify": verify,
            "unpickle": unpickle,
            "max_samples": max_samples,
            "max_bytes": max_bytes,
            "seed": order,
            **({} if sha256 else {"sha256": False}),
        }
        job = Job(Output(out, source), asked, on_error, change, verify, sift, unpickle, sha256)
        how = How(num_workers, cluster or multiprocessing_context, progress)
        in_order = isinstance(found, Catalog) and not found.alone and (shuffle or sift.buckets is not None)
        if in_order and not dry_run:
            assert isinstance(found, Catalog)
            summary = unordered(found, choice, job, how, max_samples, max_bytes)
        else:
            shards = list(planned(found, max_samples, max_bytes))
            summary = summary_of(found, sift, out, shards, dry_run)
            if in_order:
                summary.notes.append(f"packed in its order first, into {job.out.state}, which needs the room twice")
            if not dry_run:
                Work(found, shards, job, summary)(how)
        if deduplicate and not dry_run:
            list_repeated(job.out, found.why_repeated())
    summary.seconds = time.perf_counter() - start
    return summary


def _check(max_samples: int, max_bytes: int, on_error: str, num_workers: int | None) -> None:
    if max_samples < 1 or max_bytes < 1:
        raise ConfigError(f"max_samples and max_bytes are 1 or more, not {max_samples} and {max_bytes}")
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    if num_workers is not None and num_workers < 0:
        raise ConfigError(f"num_workers is 0 or more, not {num_workers}")


def _input(supply: Supply, kind: str, of: Of) -> dict[str, Any]:
    """What was given, as far as it decides what is packed."""
    if not isinstance(supply, Files):
        assert isinstance(supply, Catalog)
        shards = supply.given.shards
        return {"kind": kind, "shards": [redact(each) for each in islice(shards, 3)], "of": len(shards)}
    return {
        "folder": redact(supply.name) if local_path(supply.name) is None else os.path.realpath(supply.name),
        "layout": supply.listing.layout.name,
        "metadata": None if of.metadata is None else os.path.realpath(of.metadata),
        "beside": {role: os.path.realpath(path) for role, path in sorted((of.beside or {}).items())},
        "columns": [of.file_column, of.caption_column],
        "caption": of.caption,
    }
