"""The job that an output folder belongs to: what was asked for, written down before the first shard, and held alone.

``pack.json`` says what was asked for, ``packed.jsonl`` what each finished shard was made of: so the same command run
again keeps every shard that it would make again, whatever became of the other files.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from streampipe.errors import OutputBusy
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry, to_bytes
from streampipe.pack.output import JOURNAL, LIST, RECORD, REPEATED, Output
from streampipe.pack.shard import Made, Skipped
from streampipe.source import redact

log = logging.getLogger("streampipe")
_SHARD = re.compile(r"\d{5,}\.tar")


def shard_name(number: int, shards: int) -> str:
    """``00000.tar``; with more digits where there are more than 100,000 shards.

    >>> shard_name(7, 10), shard_name(7, 1_000_000)
    ('00007.tar', '000007.tar')
    """
    return f"{number:0{max(5, len(str(shards - 1)))}d}.tar"


def claim(out: Output, asked: Mapping[str, Any], shards: int, digest: Callable[[int], str]) -> dict[str, Made]:
    """Make sure that what is in ``out`` is this very job's earlier work, or nothing; the finished shards by name.
    ``digest``: of what a shard is to be made of, which is asked of those alone that are there.

    Shards of this job that are out of date are deleted: their files have changed since. So they are in a job that did
    not end; of one that has ended, nothing is touched.

    Raises:
        OutputBusy: there are shards of another job (it says what differs), of unknown origin, or of a job that has
            ended and whose files have changed since.
    """
    known = refuse_others(out, asked)
    files = out.names()
    there = sorted(name for name in files if name.endswith(".tar"))
    numbers = {shard_name(number, shards): number for number in range(shards)}
    noted = _journal(out)
    done = {
        name: noted[name]
        for name in there
        if name in noted
        and name in numbers
        and _is_whole(out, files, noted[name].entry)
        and noted[name].digest == digest(numbers[name])
    }
    stale = [name for name in there if name not in done]
    if stale and known is not None and known.get("done"):
        raise OutputBusy(
            f"{out} holds a dataset that is finished, and the files of {len(stale)} of its shards have changed since "
            f"({stale[0]}); choose an empty output folder, or delete it"
        )
    out.tidy()
    if known is None or known.get("done") or not there:
        write_record(out, asked, done=False)
    for name in stale:
        if _SHARD.fullmatch(name):
            out.delete(name)
            out.delete(index_url(name))
    for name in files:  # an index whose shard was not finished
        if re.fullmatch(r"\d{5,}\.index\.parquet", name) and name.replace(".index.parquet", ".tar") not in done:
            out.delete(name)
    return done


def refuse_others(out: Output, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the folder's job asked for; None if there is none.

    Raises:
        OutputBusy: there are shards of another job, or of unknown origin.
    """
    known = _record(out)
    there = sorted(name for name in out.names() if name.endswith(".tar"))
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
    return known


def finished(out: Output, asked: Mapping[str, Any]) -> list[Made] | None:
    """The shards of this very job, where it has ended; None where it has not.

    Raises:
        OutputBusy: as ``refuse_others``.
    """
    known = refuse_others(out, asked)
    files = out.names()
    if known is None or not known.get("done"):
        return None
    noted = list(_journal(out).values())
    return noted if noted and all(_is_whole(out, files, each.entry) for each in noted) else None


def note(out: Output, made: Made) -> None:
    """Add a finished shard to the journal. A line that a kill cuts short is a shard that is made again."""
    handle = os.open(os.path.join(out.state, JOURNAL), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        os.write(handle, ("\n" + _line(made)).encode())
    finally:
        os.close(handle)


def _line(made: Made) -> str:
    skipped = [each[:2] for each in made.skipped]
    return json.dumps({**made.entry._asdict(), "files": made.digest, "skipped": skipped, "stills": made.stills})


def _journal(out: Output) -> dict[str, Made]:
    """The shards that were finished, by name."""
    found: dict[str, Made] = {}
    places = (Output(out.state), out) if out.local is None else (out,)
    for line in b"\n".join(each.read(JOURNAL) or b"" for each in places).split(b"\n"):
        try:
            row = json.loads(line)
            entry = Entry(*(row[name] for name in Entry._fields))
            skipped = tuple(Skipped(path, why, entry.shard) for path, why in row["skipped"])
            found[entry.shard] = Made(entry, row["files"], skipped, int(row.get("stills", 0)))
        except (ValueError, KeyError, TypeError):
            continue  # cut short
    return found


def _is_whole(out: Output, files: set[str], entry: Entry) -> bool:
    return {entry.shard, index_url(entry.shard)} <= files and out.size(entry.shard) in (None, entry.bytes)


def finish(out: Output, asked: Mapping[str, Any], made: Sequence[Made], skipped: Sequence[Skipped]) -> None:
    """Put down, whole and in order, what was made and what was left out, and that all of it is there."""
    out.write(JOURNAL, "".join(_line(each) + "\n" for each in made).encode())
    list_skipped(out, skipped)
    out.write(NAME, to_bytes([each.entry for each in made]))
    write_record(out, asked, done=not skipped)  # who mends what was left out runs the same again
    out.sync()


def write_record(out: Output, asked: Mapping[str, Any], done: bool) -> None:
    """Put down what was asked for, and whether all of it is there."""
    text = json.dumps({**asked, "done": done}, indent=1, ensure_ascii=False)
    out.write(RECORD, (text + "\n").encode("utf-8", "backslashreplace"))


def list_skipped(out: Output, skipped: Sequence[Skipped]) -> None:
    """Put down what was left out, one JSON object a line; no file if nothing was."""
    _list(out, LIST, [each._asdict() for each in skipped])


def list_repeated(out: Output, repeated: Iterable[tuple[str, str]]) -> None:
    """Put down what was left out because another is the same, one JSON object a line; no file if nothing was."""
    _list(out, REPEATED, [{"file": one, "same_as": other} for one, other in repeated])


def _list(out: Output, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows or (out.local is None and out.read(name)):
        out.write(name, "".join(json.dumps(row) + "\n" for row in rows).encode())
    else:
        out.delete(name)


def _record(out: Output) -> dict[str, Any] | None:
    data = out.read(RECORD)
    if data is None:
        return None
    try:
        known = json.loads(data)
        if isinstance(known, dict):
            return known
    except ValueError:
        pass
    log.warning("%s is damaged: nobody knows any more what %s holds", redact(out.of(RECORD)), out)
    return None
