"""The files of a sample: read as they were found, what they take in a shard, and a digest of them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from streampipe.errors import SourceError
from streampipe.folders.names import TEXTS, File, Item, Row, Simple
from streampipe.folders.walk import allowed, leads_out
from streampipe.source import Source, local_path, redact
from streampipe.tar import BLOCK, header_bytes

_SHORT, _SMALL = 100, 8 << 30  # a name and a size that one header can say
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def packed_size(item: Item) -> int:
    """Bytes that a sample takes in a shard, headers and padding included."""
    key = item.key
    plain = key.isascii()
    total = 0
    for field, file in item.files.items():
        name = f"{key}.{field}"
        small = plain and len(name) <= _SHORT and file.size < _SMALL  # nearly always: one header, nothing to build
        total += (BLOCK if small else len(header_bytes(name, file.size))) + file.size + -file.size % BLOCK
    return total


def packed(key: str, found: Simple, rows: Sequence[Row]) -> tuple[int, str]:
    """``packed_size`` and ``to_text`` of a simple sample, at a third of their cost."""
    total, largest, texts = 0, 0, []
    for name, number in found.places:
        _, rest, path, size, mtime, _ = rows[number]
        total += size + -size % BLOCK
        largest = size if size > largest else largest
        texts.append(f"{name}\0{path or key + rest}\0{size}\0{mtime}\0")
    if key.isascii() and len(key) + found.longest < _SHORT and largest < _SMALL:
        total += BLOCK * len(texts)
    else:
        total += sum([len(header_bytes(f"{key}.{name}", rows[number][3])) for name, number in found.places])
    return total, "\0".join(texts)


def digest_of_texts(rows: Iterable[tuple[str, str]]) -> str:
    """``digest_of`` samples by key and text, at a third of its cost.

    >>> item = Item("a", {"jpg": File("a.jpg", 3, 1), "txt": File("", 5, 0, "a cat")})
    >>> digest_of_texts([(item.key, to_text(item.files))]) == digest_of([item])
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    for key, text in rows:
        parts = text.split("\0")
        files = [parts[at : at + 5] for at in range(0, len(parts), 5)]
        for name, path, size, mtime, data in sorted(files):
            written = json.loads(data) if data else ""
            digest.update(f"{key}\0{name}\0{path}\0{size}\0{mtime}\0{written}\n".encode())
    return digest.hexdigest()


def digest_of(items: Iterable[Item]) -> str:
    """Of everything that decides a shard's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for item in items:
        key = item.key
        for name, (path, size, mtime, data) in sorted(item.files.items()):
            digest.update(f"{key}\0{name}\0{path}\0{size}\0{mtime}\0{data or ''}\n".encode())
    return digest.hexdigest()


def to_text(files: Mapping[str, File]) -> str:
    """The files of a sample as one text: a tenth of the objects, for a table and on the way to another process.

    >>> files = {"jpg": File("a.jpg", 3, 1), "txt": File("", 5, 0, "a cat")}
    >>> from_text(to_text(files)) == files
    True
    """
    return "\0".join(
        [
            f"{name}\0{path}\0{size}\0{mtime}\0{'' if data is None else quoted(data)}"  # which leaves no zero in it
            for name, (path, size, mtime, data) in files.items()
        ]
    )


def from_text(text: str) -> dict[str, File]:
    """The counterpart of ``to_text``."""
    each = iter(text.split("\0"))
    return {
        name: File(path, int(size), int(mtime), json.loads(data) if data else None)
        for name, path, size, mtime, data in zip(each, each, each, each, each, strict=True)
    }


_is_local = lru_cache(16)(lambda folder: local_path(folder) is not None)  # asked for each file of it


class Unreadable(Exception):
    """Why a file is not read: it cannot be, or it is not what was found. ``changed`` says which."""

    def __init__(self, path: str, why: str, changed: bool = False) -> None:
        self.path, self.why, self.changed = path, why, changed
        super().__init__(f"{path} changed while it was packed: {why}" if changed else f"{path} cannot be read ({why})")


def read_file(
    folder: str, file: File, name: str, source: Source | None = None, roots: Sequence[str] | None = None
) -> bytes:
    """The bytes of a file that was found, for the field of this name. ``source`` reads those of a store; ``roots``:
    where links may lead, if not into the folder alone.

    Raises:
        Unreadable: it is gone, may not be read, is empty, has changed since, or became a link that leads elsewhere.
    """
    if file.data is not None:
        return file.data.encode()
    if not _is_local(folder):
        return _object(f"{folder}/{file.path}", file, source or Source())
    path = f"{folder}/{file.path}" if folder[-1:] != "/" else folder + file.path
    size = file.size
    try:
        handle = _opened(path, folder, roots)
        try:
            facts = os.fstat(handle)
            regular = stat.S_ISREG(facts.st_mode)
            data = os.read(handle, size + 1) if regular else b""
            if not len(data) == size == facts.st_size:  # nearly always, one call has it all
                data = _rest(handle, data, size + 1) if regular else b""
        finally:
            os.close(handle)
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from error
    if not regular:
        raise Unreadable(path, "it is no file any more", changed=True)
    if len(data) != size:
        became = "more" if len(data) > size else len(data)
        raise Unreadable(path, f"{size} bytes became {became}", changed=True)
    if facts.st_mtime_ns != file.mtime:
        raise Unreadable(path, "it was written to", changed=True)
    if not data and name.rpartition(".")[2] not in TEXTS:
        raise Unreadable(path, "it is empty")
    return data


def _opened(path: str, folder: str, roots: Sequence[str] | None) -> int:
    """A file, open. One that is a link is looked at again: it may have become one, or lead elsewhere, since.

    Not blocking: where the file was made a fifo meanwhile, opening it would wait for ever.

    Raises:
        Unreadable: it leads out of the folder.
    """
    try:
        return os.open(path, _FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    if (why := leads_out(path, roots or allowed(folder, None))) is not None:
        raise Unreadable(path, why)
    return os.open(path, _FLAGS)


def _object(url: str, file: File, source: Source) -> bytes:
    try:
        data = source.read(url)
    except SourceError as error:
        raise Unreadable(redact(url), str(error)) from error
    if len(data) != file.size:
        raise Unreadable(redact(url), f"{file.size} bytes became {len(data)}", changed=True)
    return data


def _rest(handle: int, data: bytes, most: int) -> bytes:
    """What was read, and what follows it, up to ``most`` bytes."""
    pieces, missing = [data], most - len(data)
    while missing and (data := os.read(handle, missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)
