"""The job that an output folder belongs to: what was asked for, written down before the first shard, and held alone.

``pack.json`` says what was asked for, ``packed.jsonl`` what each finished shard was made of: so the same command run
again keeps every shard that it would make again, whatever became of the other files.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from streampipe.atomic import sweep, sync_folder, write_atomic
from streampipe.errors import OutputBusy, PackError
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry, to_bytes
from streampipe.pack.shard import Made, Skipped, forget
from streampipe.urls import PACK_LOCK

log = logging.getLogger("streampipe")
RECORD, JOURNAL, LIST = "pack.json", "packed.jsonl", "skipped.jsonl"
_SHARD = re.compile(r"\d{5,}\.tar")
_FILES = frozenset((RECORD, JOURNAL, LIST, NAME))
_OURS = re.compile(r"\d{5,}\.(tar|index\.parquet)")


def shard_name(number: int, shards: int) -> str:
    """``00000.tar``; with more digits where there are more than 100,000 shards.

    >>> shard_name(7, 10), shard_name(7, 1_000_000)
    ('00007.tar', '000007.tar')
    """
    return f"{number:0{max(5, len(str(shards - 1)))}d}.tar"


@contextmanager
def exclusive(out: str) -> Iterator[None]:
    """Hold the output folder. The kernel frees the lock when this process ends, however it ends."""
    try:
        os.makedirs(out, exist_ok=True)
        handle = os.open(os.path.join(out, PACK_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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


def claim(out: str, asked: Mapping[str, Any], digests: Sequence[str]) -> dict[str, Made]:
    """Make sure that what is in ``out`` is this very job's earlier work, or nothing; the finished shards by name.

    Shards of this job that are out of date are deleted: their files have changed since. So they are in a job that did
    not end; of one that has ended, nothing is touched.

    Raises:
        OutputBusy: there are shards of another job (it says what differs), of unknown origin, or of a job that has
            ended and whose files have changed since.
    """
    known = _record(out)
    there = sorted(name for name in os.listdir(out) if name.endswith(".tar"))
    if there and known is None:
        raise OutputBusy(
            f"{out} already holds {len(there)} shards of unknown origin ({there[0]}); choose an empty output folder, "
            f"or delete them"
        )
    if there and known is not None:
        for name in dict.fromkeys((*asked, *known)):
            if name != "done" and known.get(name) != asked.get(name):
                raise OutputBusy(
                    f"{out} already holds {len(there)} shards of another job: its {name} was {known.get(name)!r}, and "
                    f"is {asked.get(name)!r} here; choose an empty output folder, or delete them"
                )
    names = [shard_name(number, len(digests)) for number in range(len(digests))]
    wanted = dict(zip(names, digests, strict=True))
    noted = _journal(out)
    done = {
        name: noted[name]
        for name in there
        if name in noted and noted[name].digest == wanted.get(name) and _is_whole(out, noted[name].entry)
    }
    stale = [name for name in there if name not in done]
    if stale and known is not None and known.get("done"):
        raise OutputBusy(
            f"{out} holds a dataset that is finished, and the files of {len(stale)} of its shards have changed since "
            f"({stale[0]}); choose an empty output folder, or delete it"
        )
    tidy(out)
    if known is None or known.get("done") or not there:
        write_record(out, asked, done=False)
    for name in stale:
        if _SHARD.fullmatch(name):
            forget(os.path.join(out, name))
    for name in os.listdir(out):  # an index whose shard was not finished
        if re.fullmatch(r"\d{5,}\.index\.parquet", name) and name.replace(".index.parquet", ".tar") not in done:
            os.unlink(os.path.join(out, name))
    return done


def tidy(out: str) -> None:
    """Delete what killed writers left."""
    sweep(out, lambda name: name in _FILES or _OURS.fullmatch(name) is not None)


def note(out: str, made: Made) -> None:
    """Add a finished shard to the journal. A line that a kill cuts short is a shard that is made again."""
    handle = os.open(os.path.join(out, JOURNAL), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        os.write(handle, ("\n" + _line(made)).encode())
    finally:
        os.close(handle)


def _line(made: Made) -> str:
    entry, digest, skipped = made
    return json.dumps({**entry._asdict(), "files": digest, "skipped": [each[:2] for each in skipped]})


def _journal(out: str) -> dict[str, Made]:
    """The shards that were finished, by name."""
    found: dict[str, Made] = {}
    try:
        with open(os.path.join(out, JOURNAL), encoding="utf-8") as file:
            for line in file:
                try:
                    row = json.loads(line)
                    entry = Entry(*(row[name] for name in Entry._fields))
                    skipped = tuple(Skipped(path, why, entry.shard) for path, why in row["skipped"])
                    found[entry.shard] = Made(entry, row["files"], skipped)
                except (ValueError, KeyError, TypeError):
                    continue  # cut short
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    return found


def _is_whole(out: str, entry: Entry) -> bool:
    path = os.path.join(out, entry.shard)
    try:
        return os.path.getsize(path) == entry.bytes and os.path.exists(index_url(path))
    except OSError:
        return False


def finish(out: str, asked: Mapping[str, Any], made: Sequence[Made], skipped: Sequence[Skipped]) -> None:
    """Put down, whole and in order, what was made and what was left out, and that all of it is there."""
    write_atomic(os.path.join(out, JOURNAL), "".join(_line(each) + "\n" for each in made).encode())
    list_skipped(out, skipped)
    write_atomic(os.path.join(out, NAME), to_bytes([each.entry for each in made]))
    write_record(out, asked, done=not skipped)  # who mends what was left out runs the same again
    sync_folder(out)


def write_record(out: str, asked: Mapping[str, Any], done: bool) -> None:
    """Put down what was asked for, and whether all of it is there."""
    text = json.dumps({**asked, "done": done}, indent=1, ensure_ascii=False)
    write_atomic(os.path.join(out, RECORD), (text + "\n").encode("utf-8", "backslashreplace"))


def list_skipped(out: str, skipped: Sequence[Skipped]) -> None:
    """Put down what was left out, one JSON object a line; no file if nothing was."""
    path = os.path.join(out, LIST)
    if skipped:
        write_atomic(path, "".join(json.dumps(each._asdict()) + "\n" for each in skipped).encode())
    elif os.path.exists(path):
        os.unlink(path)


def _record(out: str) -> dict[str, Any] | None:
    record = os.path.join(out, RECORD)
    try:
        with open(record, encoding="utf-8") as file:
            known = json.load(file)
        if isinstance(known, dict):
            return known
    except FileNotFoundError:
        return None
    except ValueError:
        pass
    log.warning("%s is damaged: nobody knows any more what %s holds", record, out)
    return None
