"""A folder of images with sidecars becomes a list of samples: what is there, before a byte is read."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from streampipe.errors import NameCollision, PackError

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "avif")
SIDECARS = ("txt", "json", "caption", "cls")
_PASSED_OVER = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class File:
    """One file to be packed, with its size and modification time (ns) when it was found."""

    path: str
    size: int
    mtime: int


@dataclass(frozen=True)
class Item:
    """One sample to be: its key, and its files by field."""

    key: str
    files: dict[str, File]


@dataclass
class Scan:
    """What a folder holds: samples in the order of their keys, and what will not be packed, with the reason."""

    items: list[Item] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)  # sidecars without an image
    other: list[str] = field(default_factory=list)  # files of other kinds
    hidden: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)  # (path, why it cannot be read)


def scan(folder: str, follow_symlinks: str | None = None) -> Scan:
    """Find the samples of a folder: an image and the sidecars that share its path up to the last dot.

    Symbolic links to files are followed as long as they stay in the folder, or in the folder ``follow_symlinks``; one
    that leads elsewhere counts as a file that cannot be read, lest somebody else's files end up in a dataset. Links to
    folders are not followed.

    A key is the image's path below the folder without its suffix; dots in its last part become ``_``, because readers
    split names at the first dot there.

    Raises:
        PackError: the folder does not exist or holds no image.
        NameCollision: two files would become the same member, on any file system; all collisions are listed.
    """
    if not os.path.isdir(folder):
        raise PackError(f"{folder} is no folder; give the folder that holds the images")
    if follow_symlinks is not None and not os.path.isdir(follow_symlinks):
        raise PackError(f"{follow_symlinks} is no folder; give the folder that symbolic links may lead into")
    result = Scan()
    allowed = [os.path.realpath(each) for each in (folder, follow_symlinks) if each is not None]
    stems: dict[str, dict[str, File]] = {}
    collisions: list[str] = []
    for path, entry in _walk(folder, "", result):
        stem, _, suffix = path.rpartition(".")
        suffix = suffix.lower()
        if suffix not in IMAGES + SIDECARS or not stem or stem.endswith("/"):
            result.other.append(path)
            continue
        file = _file(entry, allowed, result)
        if file is not None and stems.setdefault(stem, {}).setdefault(suffix, file) is not file:
            collisions.append(f"{stems[stem][suffix].path} and {file.path} would both be field {suffix!r} of a sample")
    keys: dict[str, str] = {}
    for stem in sorted(stems):
        files = stems[stem]
        images = [suffix for suffix in files if suffix in IMAGES]
        if not images:
            result.orphans += [each.path for each in files.values()]
            continue
        if len(images) > 1:
            collisions.append(" and ".join(files[suffix].path for suffix in images) + " share one stem")
            continue
        folder_part, slash, name = stem.rpartition("/")
        key = folder_part + slash + name.replace(".", "_")
        same = keys.setdefault(unicodedata.normalize("NFC", key).casefold(), stem)
        if same != stem:
            collisions.append(f"{same} and {stem} would both have key {key!r}")
            continue
        result.items.append(Item(key, files))
    if collisions:
        shown = "; ".join(collisions[:10]) + (f"; and {len(collisions) - 10} more" if len(collisions) > 10 else "")
        raise NameCollision(
            f"{folder}: {len(collisions)} name collisions, nothing was written; rename the files: {shown}"
        )
    if not result.items and not result.broken:
        raise PackError(f"{folder} holds no image ({', '.join('.' + suffix for suffix in IMAGES)})")
    result.items.sort(key=lambda item: item.key)
    return result


def _walk(folder: str, below: str, result: Scan) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is below a folder and no folder, as (path below it, entry), in the order of their names."""
    try:
        with os.scandir(os.path.join(folder, below)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        result.broken.append((os.path.join(folder, below).rstrip("/"), _why(error)))
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _PASSED_OVER:
            result.hidden += 1
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(folder, f"{below}{entry.name}/", result)
        else:
            yield f"{below}{entry.name}", entry


def _file(entry: os.DirEntry[str], allowed: list[str], result: Scan) -> File | None:
    """The file of an entry; None for what is no file or cannot be read, which ``result`` then has."""
    try:
        facts = entry.stat()
    except OSError as error:
        result.broken.append((entry.path, _why(error)))
        return None
    if not stat.S_ISREG(facts.st_mode):
        result.other.append(entry.path)
        return None
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if not any(os.path.commonpath((target, root)) == root for root in allowed):
            why = (
                f"a symbolic link out of the folder, to {target}; --follow-symlinks {os.path.dirname(target)} allows it"
            )
            result.broken.append((entry.path, why))
            return None
    return File(entry.path, facts.st_size, facts.st_mtime_ns)


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
