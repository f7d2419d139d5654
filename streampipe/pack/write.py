"""``pack``: a folder of images with sidecars becomes shards.

A shard is written under a temporary name and renamed when it is complete and on disk, so under its final name there is
only ever a whole shard. What a run will write follows from the folder and the options alone; ``pack.json`` in the
output folder remembers a fingerprint of both, so the same command run again keeps what is finished and goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tqdm import tqdm

from streampipe.atomic import AtomicFile, sweep, sync_folder, write_atomic
from streampipe.errors import ConfigError, OutputBusy, PackError, StreampipeError
from streampipe.index import index
from streampipe.pack.scan import File, Item, Scan, scan
from streampipe.pack.split import packed_size, split
from streampipe.source import Source
from streampipe.tar import TarWriter
from streampipe.urls import ShardList

log = logging.getLogger("streampipe")
RECORD = "pack.json"
SKIPPED = "skipped.jsonl"
_OURS = re.compile(rf"\d+\.tar|{RECORD}|{SKIPPED}|(\d+\.index|manifest)\.parquet")
_AGAIN = "make room or mend the disk, and run the same command again: finished shards are kept"


class Skipped(NamedTuple):
    """What was left out: a file or a key, why, and of which shard (None if it was not read at all)."""

    file: str
    reason: str
    shard: str | None = None


@dataclass
class Summary:
    """What a run of ``pack`` did."""

    out: str
    samples: int = 0
    shards: int = 0
    kept: int = 0  # shards that an earlier run had finished
    bytes: int = 0
    without_caption: int = 0
    orphans: int = 0
    other: int = 0
    hidden: int = 0
    seconds: float = 0.0
    skipped: list[Skipped] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.samples} samples in {self.shards} shards ({self.bytes / 1e6:.1f} MB) in {self.out}, "
            f"{self.seconds:.1f} s" + (f"; {self.kept} shards were there already" if self.kept else "")
        ]
        for number, what in (
            (self.without_caption, "images without a caption file"),
            (self.orphans, "sidecar files without an image, not packed"),
            (self.other, "files of other kinds, not packed"),
            (self.hidden, "hidden files and folders, passed over"),
            (len(self.skipped), f"files could not be read, skipped; listed in {SKIPPED}"),
        ):
            if number:
                lines.append(f"  {number} {what}")
        return "\n".join(lines)


def pack(
    folder: str,
    out: str,
    *,
    max_samples: int = 10_000,
    max_bytes: int = 1_000_000_000,
    shuffle: bool = False,
    seed: int = 0,
    on_error: str = "raise",
    follow_symlinks: str | None = None,
    progress: bool = True,
) -> Summary:
    """Write a folder's images and their sidecars (``.txt``, ``.json``, ``.caption``, ``.cls``) as shards into ``out``.

    Every shard gets an index beside it, and ``out`` a manifest. Bytes are packed as they are. Samples come in the order
    of their keys, or in an order shuffled by ``seed``. A shard ends at ``max_samples`` samples or ``max_bytes`` bytes.
    A run that was interrupted goes on when it is run again. Symbolic links are followed inside ``folder``, and into the
    folder ``follow_symlinks``.

    Raises:
        NameCollision: files that would become the same member; found before anything is written.
        OutputBusy: ``out`` holds other shards, or another run is writing there.
        PackError: nothing to pack, a file that cannot be read (with ``on_error="skip"`` it is listed in
            ``skipped.jsonl`` instead), a full disk.
    """
    if max_samples < 1 or max_bytes < 1:
        raise ConfigError(f"max_samples and max_bytes are 1 or more, not {max_samples} and {max_bytes}")
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    start = time.perf_counter()
    found = scan(folder, follow_symlinks)
    if found.broken and on_error == "raise":
        path, why = found.broken[0]
        raise PackError(f"{path} cannot be read ({why}); mend it, or pass --on-error skip to leave such files out")
    shards = split(found.items, max_samples, max_bytes, seed if shuffle else None)
    summary = _summary(found, out, len(shards))
    try:
        with _exclusive(out):
            _claim(out, _fingerprint(shards, folder), len(shards))
            earlier = _skipped_earlier(out)
            with tqdm(total=len(found.items), unit=" samples", desc="pack", disable=not progress) as bar:
                for number, items in enumerate(shards):
                    path = os.path.join(out, shard_name(number, len(shards)))
                    _one_shard(path, items, summary, on_error, earlier)
                    bar.update(len(items))
            _list_skipped(out, summary.skipped)
            paths = [os.path.join(out, shard_name(number, len(shards))) for number in range(len(shards))]
            index(ShardList(paths), Source(), progress=progress)
    except StreampipeError:
        raise
    except OSError as error:
        where = error.filename2 or error.filename or out
        raise PackError(f"{where} could not be written ({error.strerror or error}); {_AGAIN}") from error
    summary.seconds = time.perf_counter() - start
    return summary


def shard_name(number: int, shards: int) -> str:
    """``00000.tar``; with more digits where there are more than 100,000 shards."""
    return f"{number:0{max(5, len(str(shards - 1)))}d}.tar"


def _summary(found: Scan, out: str, shards: int) -> Summary:
    captions = {"txt", "json", "caption"}
    return Summary(
        out,
        shards=shards,
        without_caption=sum(captions.isdisjoint(item.files) for item in found.items),
        orphans=len(found.orphans),
        other=len(found.other),
        hidden=found.hidden,
        skipped=[Skipped(path, why) for path, why in found.broken],
    )


def _one_shard(
    path: str, items: Sequence[Item], summary: Summary, on_error: str, earlier: Mapping[str, list[Skipped]]
) -> None:
    name = os.path.basename(path)
    if os.path.exists(path):
        summary.kept += 1
        summary.skipped += earlier.get(name, [])
        summary.samples += len(items) - len(earlier.get(name, []))
        summary.bytes += os.path.getsize(path)
        return
    before = len(summary.skipped)
    try:
        with AtomicFile(path) as draft:
            writer = TarWriter(draft.file.write)
            for item in items:
                try:
                    fields = {suffix: _read(each) for suffix, each in item.files.items()}
                except PackError as error:
                    if on_error == "raise":
                        raise
                    summary.skipped.append(Skipped(item.key, str(error), name))
                    continue
                writer.add(item.key, fields)
                summary.samples += 1
            writer.close()
            if len(summary.skipped) > before:  # before the shard: what is kept later must have its skips listed
                _list_skipped(os.path.dirname(path), summary.skipped)
            draft.publish()
        sync_folder(os.path.dirname(path))
    except OSError as error:
        needed = sum(map(packed_size, items))
        raise PackError(
            f"{path} could not be written ({error.strerror or error}): it needs {needed} bytes; {_AGAIN}"
        ) from error
    summary.bytes += os.path.getsize(path)


def _read(file: File) -> bytes:
    try:
        # Not blocking: where the file was made a fifo meanwhile, opening it would wait for ever.
        with open(os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as handle:
            regular = stat.S_ISREG(os.fstat(handle.fileno()).st_mode)
            data = handle.read(file.size + 1) if regular else b""
    except OSError as error:
        raise PackError(
            f"{file.path} cannot be read ({error.strerror or error}); mend it, or pass --on-error skip to leave it out"
        ) from error
    if not regular:
        raise PackError(f"{file.path} changed while it was packed: it is no file any more; run again")
    if len(data) != file.size:
        became = "more" if len(data) > file.size else len(data)
        raise PackError(f"{file.path} changed while it was packed: {file.size} bytes became {became}; run again")
    if not data and not file.path.endswith((".txt", ".caption")):
        raise PackError(f"{file.path} is empty; mend it, or pass --on-error skip to leave it out")
    return data


def _fingerprint(shards: Sequence[Sequence[Item]], folder: str) -> str:
    """A digest of everything that decides what will be written."""
    digest = hashlib.sha256()
    for items in shards:
        digest.update(b"shard\n")
        for item in items:
            for name, file in sorted(item.files.items()):
                path = os.path.relpath(file.path, folder)
                digest.update(
                    f"{item.key}\0{name}\0{path}\0{file.size}\0{file.mtime}\n".encode("utf-8", "surrogateescape")
                )
    return digest.hexdigest()


def _claim(out: str, fingerprint: str, shards: int) -> None:
    """Make sure that what is in ``out`` is this very run's earlier work, or nothing."""
    record = os.path.join(out, RECORD)
    known = None
    try:
        with open(record, encoding="utf-8") as file:
            known = json.load(file)["fingerprint"]
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError):
        log.warning("%s is damaged: nobody knows any more what %s holds", record, out)
    present = [name for name in os.listdir(out) if name.endswith(".tar")]
    if known != fingerprint and present:
        raise OutputBusy(
            f"{out} already holds {len(present)} shards of "
            + ("another folder, other options or changed files" if known else "unknown origin")
            + "; choose an empty output folder, or delete them"
        )
    sweep(out, lambda name: _OURS.fullmatch(name) is not None)
    text = json.dumps({"version": 1, "fingerprint": fingerprint, "shards": shards}, indent=1)
    write_atomic(record, (text + "\n").encode())


def _skipped_earlier(out: str) -> dict[str, list[Skipped]]:
    """What earlier runs left out of each shard."""
    found: dict[str, list[Skipped]] = {}
    try:
        with open(os.path.join(out, SKIPPED), encoding="utf-8") as file:
            for line in file:
                each = Skipped(**json.loads(line))
                found.setdefault(each.shard or "", []).append(each)
    except FileNotFoundError:
        pass
    except (ValueError, TypeError) as error:
        raise PackError(f"{os.path.join(out, SKIPPED)} is damaged ({error}); delete {out} and pack anew") from error
    return found


def _list_skipped(out: str, skipped: Sequence[Skipped]) -> None:
    path = os.path.join(out, SKIPPED)
    if skipped:
        write_atomic(path, "".join(json.dumps(each._asdict()) + "\n" for each in skipped).encode())
    elif os.path.exists(path):
        os.unlink(path)


@contextmanager
def _exclusive(out: str) -> Iterator[None]:
    """Hold the output folder. The kernel frees the lock when this process ends, however it ends."""
    try:
        os.makedirs(out, exist_ok=True)
        handle = os.open(os.path.join(out, ".pack.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise PackError(f"{out} cannot be written ({error.strerror or error}); choose another output folder") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputBusy(f"another run is writing to {out}; wait for it, or choose another output folder") from None
        except OSError as error:  # a file system without locks: go on, two runs at once would write the same bytes
            log.warning("%s cannot be locked (%s); make sure that only one run writes there", out, error)
        yield
    finally:
        os.close(handle)
