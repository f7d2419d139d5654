"""What is known of a dataset as a whole: the rows of its shards in their manifests, and the identity of its data.

The identity is what an answer is kept under. For remote shards it is that of the manifests: who changes a shard must
run ``streampipe index`` again, and what is read is checked against the shard's own index anyway. Local shards are
looked at, each with its index: sizes and times of change. Where there is neither, only the job itself knows that it
means the same data, so a name of the job stands in.
"""

from __future__ import annotations

import hashlib
import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.counters import counters
from streampipe.errors import IndexMismatch
from streampipe.index.find import Finder, index_url
from streampipe.index.manifest import NAME, Manifest, read
from streampipe.index.merged import Wanted
from streampipe.pool import Pool
from streampipe.source import has_query, local_path, redact

log = logging.getLogger("streampipe")
_CHUNK = 1 << 16
_SIGNED = "?"  # the folder of what is signed: nothing is beside it
_THREADS = 16
_SHARDS_A_FOLDER = 4  # at least, on average: where each folder has few, their manifests are as many files as indexes


class Known(NamedTuple):
    """What is known of a list of shards.

    ``manifests`` by folder; ``which`` and ``rows``: of each shard the number of its manifest, and its row there, -1
    where it is in none. ``identity``: of the data, None where nothing tells one state of it from another.
    """

    manifests: tuple[tuple[str, Manifest], ...]
    which: np.ndarray
    rows: np.ndarray
    identity: str | None

    @classmethod
    def nothing(cls, shards: int) -> Known:
        """Nothing is known of so many shards."""
        return cls((), np.zeros(shards, np.int32), np.full(shards, -1, np.int64), None)

    def column(self, name: str) -> np.ndarray:
        """``samples`` or ``bytes`` of each shard, by its manifest; 0 where it is in none."""
        found = np.zeros(len(self.rows), np.int64)
        for number, (_, manifest) in enumerate(self.manifests):
            mine = (self.which == number) & (self.rows >= 0)
            found[mine] = getattr(manifest, name)[self.rows[mine]]
        return found

    @property
    def beside(self) -> str | None:
        """The folder of the first manifest, where one is."""
        return next((folder for folder, manifest in self.manifests if manifest is not _NONE), None)

    def merged(self) -> Iterator[tuple[Wanted, np.ndarray]]:
        """The files with facts of several shards, and the numbers of those of their shards that are wanted."""
        for number, (folder, manifest) in enumerate(self.manifests):
            at = np.flatnonzero((self.which == number) & (self.rows >= 0))
            at = at[np.argsort(self.rows[at], kind="stable")]
            rows, first = self.rows[at], 0
            if (np.diff(rows) == 0).any():
                continue  # a shard that is listed twice is counted twice
            for part in manifest.parts:
                a, b = np.searchsorted(rows, [first, first + part.shards])
                if part.file is not None and b > a:
                    samples = manifest.samples[first : first + part.shards]
                    yield Wanted(folder, part, samples, rows[a:b] - first), at[a:b]
                first += part.shards


def known_of(shards: Sequence[str], finder: Finder) -> Known:
    """Look at the manifests beside remote shards, or under ``index=``, and at local shards.

    Raises:
        IndexMismatch: a manifest is damaged.
    """
    nothing = Known.nothing(len(shards))
    if finder.missing_shards == "skip":
        return nothing  # whether a shard is there is found by looking at each
    if local_path(shards[0]) is None:
        found = _by_manifests(shards, finder)
        return found._replace(identity=_identity(found) if (found.rows >= 0).all() else None)
    looked = _look_at(shards, finder)
    if looked is None:
        return nothing
    identity, facts = looked
    try:
        found = _by_manifests(shards, finder)
    except IndexMismatch as error:  # the shards are here to be looked at: it is not needed
        counters.add("index", "manifests passed over")
        log.warning("%s; it is passed over", error)
        return nothing._replace(identity=identity)
    written = np.array([_written(folder) for folder, _ in found.manifests] or [0])[found.which]
    fits = (facts[:, 0] == found.column("bytes")) & (facts[:, 2] >= 0) & (facts[:, [1, 3]].max(1) <= written)
    return found._replace(rows=np.where(fits, found.rows, -1), identity=identity)


def _identity(known: Known) -> str:
    digest = hashlib.sha256("".join(manifest.digest for _, manifest in known.manifests).encode())
    digest.update(known.which.tobytes() + known.rows.tobytes())
    return digest.hexdigest()


def _written(folder: str) -> int:
    """When the manifest in a local folder was written."""
    try:
        return os.stat(f"{local_path(folder) or ''}{NAME}").st_mtime_ns
    except OSError:
        return -1


def _by_manifests(shards: Sequence[str], finder: Finder) -> Known:
    """What manifests say of shards; there is no manifest for what is signed, or where each folder has few shards."""
    folders, which, names = _split(shards)
    if finder.folder:
        folders, which = [finder.folder.rstrip("/") + "/"], np.zeros(len(shards), np.int32)
    rows = np.full(len(shards), -1, np.int64)
    if len(folders) > max(_THREADS, len(shards) // _SHARDS_A_FOLDER):
        return Known.nothing(len(shards))
    with Pool(min(_THREADS, len(folders)), thread_name_prefix="streampipe-manifest") as pool:
        found = list(pool.map(lambda folder: _manifest(folder, finder), folders))
    for number, manifest in enumerate(found):
        if manifest is not None:
            mine = which == number
            own = names if len(folders) == 1 else names.filter(pa.array(mine))
            at = pc.index_in(own, value_set=manifest.names.combine_chunks())
            rows[mine] = at.fill_null(-1).to_numpy()
    return Known(tuple((folder, each or _NONE) for folder, each in zip(folders, found, strict=True)), which, rows, None)


_NONE = Manifest(pa.chunked_array([pa.array([], pa.string())]), np.zeros(0, np.int64), np.zeros(0, np.int64), (), "")


def _manifest(folder: str, finder: Finder) -> Manifest | None:
    """The manifest in a folder, None where there is none."""
    if folder == _SIGNED:
        return None
    most = finder.limits.max_index_bytes
    data = finder.source.read_if_there(folder + NAME, most)
    return None if data is None else read(data, redact(folder + NAME), most)


def _split(shards: Sequence[str]) -> tuple[list[str], np.ndarray, pa.ChunkedArray]:
    """The folders of shards, of each shard the number of its folder, and its name as manifests have it."""
    numbers: dict[str, int] = {}
    which, chunks, names = array("i"), [], list[str]()
    last, number = None, 0
    for url in shards:
        if "?" in url or "#" in url or not url.isprintable():
            signed, url = has_query(url), redact(url)
            at = url.rfind("/") + 1
            folder = _SIGNED if signed else url[:at]
        else:
            at = url.rfind("/") + 1
            folder = url[:at]
        if folder != last:
            last, number = folder, numbers.setdefault(folder, len(numbers))
        which.append(number)
        names.append(url[at:])
        if len(names) == _CHUNK:
            chunks.append(pa.array(names, pa.string()))
            names = []
    chunks.append(pa.array(names, pa.string()))
    return list(numbers), np.frombuffer(which, np.int32), pa.chunked_array(chunks)


def _look_at(shards: Sequence[str], finder: Finder) -> tuple[str, np.ndarray] | None:
    """Size and time of change of each local shard and of its index (-1: it has none), and a digest of these and of the
    names; None if a shard is not there, or not local.
    """
    digest, facts, names = hashlib.sha256(), array("q"), list[str]()
    here = os.getcwd() + os.sep
    for url in shards:
        path, place = local_path(url), local_path(index_url(url, finder.folder))
        if path is None or place is None:
            return None
        try:
            shard = os.stat(path)
        except OSError:
            return None
        try:
            index = os.stat(place)
            facts.extend((shard.st_size, shard.st_mtime_ns, index.st_size, index.st_mtime_ns))
        except OSError:
            facts.extend((shard.st_size, shard.st_mtime_ns, -1, -1))
        names.append(path if path.startswith(os.sep) else here + path)
        if len(names) == _CHUNK:
            digest.update(os.fsencode("\0".join(names)))
            names = []
    digest.update(os.fsencode("\0".join(names)))
    digest.update(facts.tobytes())
    return digest.hexdigest(), np.frombuffer(facts, np.int64).reshape(-1, 4)
