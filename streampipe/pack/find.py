"""From what a user names to what is packed: a folder of images, shards, tables with images, or any sample source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from streampipe.decoding.movie import PICTURES
from streampipe.errors import ConfigError, PackError
from streampipe.folders.layouts import layout_of
from streampipe.folders.listing import Listing, scan
from streampipe.folders.names import extension
from streampipe.folders.remote import shadow
from streampipe.folders.walk import folders_in, is_passed_over
from streampipe.folders.zips import url_of
from streampipe.index import Finder
from streampipe.pack.catalog import Catalog
from streampipe.pack.sift import Sift
from streampipe.pack.supply import Files, Supply
from streampipe.reading.formats import TAR, format_of_all, source_of
from streampipe.reading.tars import IndexedTars
from streampipe.samplesource import SampleSource, format_of
from streampipe.source import Source, local_path, redact
from streampipe.tar import Limits
from streampipe.urls import expand, is_shard

FOLDER = "folder"
_OTHERS = {".mds": "mds", **{f".mds.{end}": "mds" for end in ("zstd", "gz", "bz2", "br", "snappy")}, ".bin": "litdata"}
Names = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | SampleSource
Tell = Callable[[int], object]


@dataclass(frozen=True)
class Choice:
    """What is packed of what was given, and in which order; see ``pack``."""

    sift: Sift
    seed: int | None = None
    deduplicate: bool | str = False
    case_sensitive: bool = False
    on_error: str = "raise"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Of:
    """What was said of a folder of images; see ``pack``."""

    layout: str = "auto"
    metadata: str | None = None
    file_column: str | None = None
    caption_column: str | None = None
    caption: str | None = None
    beside: Mapping[str, str | os.PathLike[str]] | None = None
    follow_symlinks: str | None = None

    def refuse(self, kind: str) -> None:
        """Refuse what means nothing for samples that are in no folder.

        Raises:
            ConfigError: something was said.
        """
        for name in ("metadata", "file_column", "caption_column", "caption", "beside", "follow_symlinks"):
            if getattr(self, name):
                raise ConfigError(f"pack: {name}= is of a folder of images, and means nothing for format {kind!r}")
        if self.layout != "auto":
            raise ConfigError(f"pack: layout= is of a folder of images, and means nothing for format {kind!r}")


def kind_of(given: Names, read_as: str | None, source: Source, out: str) -> str:
    """What holds the samples: ``"folder"``, ``"tar"``, ``"parquet"``, or the name of another sample source. ``out`` is
    not of them, wherever it lies.

    Raises:
        ConfigError: it is of two kinds.
    """
    if is_source(given):
        return type(given).__name__
    if read_as is not None:
        return read_as
    names = names_of(given)
    if len(names) == 1 and (path := local_path(names[0])) is not None and os.path.isdir(os.path.expanduser(path)):
        return _of_folder(os.path.expanduser(path), out)
    if len(names) == 1 and not any(sign in names[0] for sign in "*{?[") and not _is_file(names[0]):
        return FOLDER  # a remote folder, or one that is not there
    return format_of_all(names, lambda: source)


def is_source(given: Names) -> TypeGuard[SampleSource]:
    """Whether a sample source was given as it is."""
    return isinstance(given, SampleSource) and not isinstance(given, (str, os.PathLike))


def names_of(given: Names) -> list[str]:
    """What was given as texts."""
    if isinstance(given, (str, os.PathLike)):
        return [os.fspath(given)]
    if not isinstance(given, (bytes, Mapping)) and isinstance(given, Sequence):
        names = [os.fspath(each) for each in given if isinstance(each, (str, os.PathLike))]
        if names and len(names) == len(given):
            return names
    raise ConfigError(
        f"pack takes a folder, shards, tables or a sample source, not {given!r:.80}; what a pipeline gives, "
        f"pipe.write(...) writes"
    )


def find(given: Names, kind: str, of: Of, choice: Choice, out: str, source: Source, tell: Tell) -> Supply:
    """Find the samples. It is to be closed.

    Raises:
        PackError: there is no such folder, or it cannot be listed.
    """
    if kind == FOLDER:
        return _files(names_of(given), of, choice, out, source, tell)
    of.refuse(kind)
    return Catalog(
        samples_of(given, kind, choice, source),
        sift=choice.sift,
        seed=choice.seed,
        deduplicate=choice.deduplicate,
        case_sensitive=choice.case_sensitive,
        tell=tell,
    )


def samples_of(given: Names, kind: str, choice: Choice, source: Source) -> SampleSource:
    """The sample source that was named, or given as it is."""
    if is_source(given):
        return given
    names = names_of(given)
    if kind == TAR:
        shards = expand(names, lambda: source)
        return IndexedTars(shards, Finder(source, choice.limits))
    return source_of(kind, names, source, choice.on_error)


def _files(names: list[str], of: Of, choice: Choice, out: str, source: Source, tell: Tell) -> Files:
    if len(names) != 1:
        raise ConfigError(f"a folder of images is one folder, not {len(names)}: pack each")
    path, zipped = local_path(names[0]), url_of(names[0])
    if path is None and names[0].lower().endswith(".zip"):
        raise ConfigError(f"{redact(names[0])} is an archive in a store: fetch it, and pack it where it is on a disk")
    if path is None or zipped is not None:
        return _remote_files(zipped or names[0].rstrip("/"), of, choice, out, source, tell)
    folder = os.path.expanduser(path)
    if not os.path.isdir(folder):
        raise PackError(f"{folder} is no folder; give the folder that holds the images")
    return Files(_listing(folder, folder, of, choice, out, tell=tell, deduplicate=choice.deduplicate))


def _remote_files(url: str, of: Of, choice: Choice, out: str, source: Source, tell: Tell) -> Files:
    for name, given in (("beside", of.beside), ("follow_symlinks", of.follow_symlinks)):
        if given:
            raise ConfigError(
                f"pack: {name}= is of a local folder, which {redact(url)} is not; pack it first, and then the shards"
            )
    with shadow(url, source) as folder:
        how: dict[str, Any] = {"tell": tell, "source": source, "deduplicate": choice.deduplicate}
        return Files(_listing(url, folder, of, choice, out, **how), source)


def _listing(folder: str, laid_out: str, of: Of, choice: Choice, out: str, **options: Any) -> Listing:
    apart = [out, *(os.fspath(each) for each in (of.beside or {}).values())]
    return scan(
        folder,
        follow_symlinks=of.follow_symlinks,
        layout=layout_of(
            laid_out, of.layout, of.metadata, of.file_column, of.caption_column, apart, of.follow_symlinks
        ),
        beside=of.beside,
        case_sensitive=choice.case_sensitive,
        caption=of.caption,
        seed=choice.seed,
        without=out,
        limits=choice.limits,
        sift=choice.sift.of_folder if choice.sift else None,
        **options,
    )


def _of_folder(path: str, out: str) -> str:
    """What a folder that is there holds: shards or tables if there is no image and no folder in it, else images."""
    names: list[str] = []
    if folders_in(path, (out,)):
        return FOLDER
    with os.scandir(path) as entries:
        for entry in entries:
            if is_passed_over(entry.name) or entry.is_dir(follow_symlinks=False):
                continue
            if (extension(entry.name) or "") in PICTURES:
                return FOLDER
            if (is_shard(entry.name) or format_of(entry.name)) and not entry.name.startswith("metadata."):
                names.append(entry.name)
    if os.path.isfile(os.path.join(path, "index.json")):  # other tools' datasets
        kind = next(
            (kind for end, kind in _OTHERS.items() if any(name.endswith(end) for name in os.listdir(path))), None
        )
        if kind is not None:
            return kind
    if names and all(name.endswith(".arrow") for name in names):
        return "arrow"
    return format_of_all(path, Source) if names else FOLDER


def _is_file(name: str) -> bool:
    return is_shard(name.partition("?")[0]) or format_of(name) is not None
