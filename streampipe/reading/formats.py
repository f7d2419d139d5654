"""What holds the samples under a name: tars, a folder of images, Parquet files, or what was registered."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from streampipe.decoding.movie import PICTURES
from streampipe.errors import ConfigError
from streampipe.folders.names import extension
from streampipe.reading.arrow import Arrow
from streampipe.reading.folder import Folder
from streampipe.reading.litdata import LitData
from streampipe.reading.mds import MDS
from streampipe.reading.parquet import Parquet
from streampipe.samplesource import BUILT_IN, SampleSource, factory_of, format_of
from streampipe.source import Source, local_path, redact
from streampipe.urls import Lister, is_shard, split_joined

TAR = "tar"
_TABLES = ("metadata.parquet",)
"""Parquet files that describe images beside them."""
_LOOKED_AT = 100_000
"""Files of a folder that are looked at to find out what it holds."""


def _folder(urls: Sequence[str], source: Source, on_error: str = "raise") -> SampleSource:
    if len(urls) != 1:
        raise ConfigError(
            f"a folder of images is one folder, not {len(urls)}: stream each, and sp.mix or sp.concat them"
        )
    if local_path(urls[0]) is None:
        raise ConfigError(f"{redact(urls[0])} is remote: images are streamed from a local folder, or packed (sp.pack)")
    return Folder(os.path.expandvars(local_path(urls[0]) or ""), on_error=on_error)


BUILT_IN.update({"folder": _folder, "parquet": Parquet, "arrow": Arrow, "mds": MDS, "litdata": LitData})


def format_of_all(urls: str | Sequence[str], lister: Callable[[], Lister]) -> str:
    """What holds the samples under these names.

    Raises:
        ConfigError: they are of different kinds, or a folder holds two.

    >>> format_of_all("s3://b/{0..9}.tar", Source), format_of_all("hf://datasets/a/b/data/*.parquet", Source)
    ('tar', 'parquet')
    """
    names = split_joined(urls) if isinstance(urls, str) else list(urls)
    found = {_format(name, lister): name for name in names}
    if len(found) > 1:
        shown = " and ".join(f"{redact(name)} ({kind})" for kind, name in found.items())
        raise ConfigError(f"{shown} are of different kinds: stream each, and sp.mix or sp.concat them")
    return next(iter(found), TAR)


def _format(name: str, lister: Callable[[], Lister]) -> str:
    known = format_of(name)
    if known is not None:
        return known
    path = local_path(name)
    if path is None:
        return _of_names(name, lister().glob(f"{name}*"), False) if name.endswith("/") and "*" not in name else TAR
    path = os.path.expandvars(os.path.expanduser(path))
    if not os.path.isdir(path):
        return TAR
    with os.scandir(path) as entries:
        seen = [entry for _, entry in zip(range(_LOOKED_AT), entries, strict=False) if entry.name[0] != "."]
    return _of_names(name, [each.name for each in seen], any(each.is_dir() for each in seen))


def _of_names(folder: str, names: Sequence[str], deeper: bool) -> str:
    """What a folder holds, by the names in it."""
    tars = sum(map(is_shard, names))
    tables = sum(name.endswith(".parquet") and not name.endswith((".index.parquet", *_TABLES)) for name in names)
    images = sum((extension(name) or "") in PICTURES for name in names)
    if tars and not images:
        return TAR  # what lies beside shards belongs to them
    kinds = ((images, "images or videos", "folder"), (tars, "shards", TAR), (tables, "tables", "parquet"))
    found = [(f"{number} {what}", repr(kind)) for number, what, kind in kinds if number]
    if len(found) > 1:
        raise ConfigError(
            f"{redact(folder)} holds {' and '.join(held for held, _ in found)}: say which are meant, by "
            f"format={' or '.join(kind for _, kind in found)}"
        )
    if tables:
        return "parquet"
    return "folder" if images or deeper else TAR


def source_of(kind: str, urls: str | Sequence[str], source: Source, on_error: str) -> SampleSource:
    """The sample source of a kind under these names. What a folder cannot read is up to ``on_error`` at once.

    Raises:
        ConfigError: there is no such kind, or what was registered for it gives no sample source.
    """
    names = split_joined(urls) if isinstance(urls, str) else list(urls)
    found = _folder(names, source, on_error) if kind == "folder" else factory_of(kind)(names, source)
    if not isinstance(found, SampleSource):
        raise ConfigError(f"the source registered as {kind!r} gave {found!r:.80}, which lacks shards or read()")
    return found
