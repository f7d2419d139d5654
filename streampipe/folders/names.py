"""From names of files to keys and fields: which files are one sample.

A key is an image's, or a video's, path below the folder without its suffix, in Unicode's composed form (NFC: what macOS
writes in decomposed form is the same name). Dots in its last part become ``_``, because readers split names at the
first dot.

Strategy: files whose names agree up to their first dot are looked at together, whatever the folder holds beside them.
``a.mask.png`` and ``a.tags.txt`` are fields ``mask.png`` and ``tags.txt`` of ``a`` where there is an ``a.jpg`` (or
``a.txt``); ``a.jpg.txt`` is field ``txt`` of ``a`` where there is an ``a.jpg``; but ``a.2.jpg`` and ``a.v2.jpg`` are
images of their own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from streampipe.decoding.extensions import VIDEOS
from streampipe.decoding.fields import KNOWN
from streampipe.decoding.movie import PICTURES
from streampipe.errors import UnsafeName
from streampipe.tar.writer import check_field, check_key

TEXTS = frozenset(("txt", "text", "transcript", "caption"))
"""Fields that may be empty."""
_WORD = re.compile(r"(?!v\d+\Z)[a-z][\w -]*", re.IGNORECASE)
"""A part of a name that says what a file is, not which version."""


class File(NamedTuple):
    """One file to be packed: its path below the folder, size, and modification time (ns) when it was found.

    ``data`` is what to write where no file has it.
    """

    path: str
    size: int
    mtime: int
    data: str | None = None


class Item(NamedTuple):
    """One sample to be: its key, and its files by field."""

    key: str
    files: dict[str, File]


class Found(NamedTuple):
    """A file on the way into a sample: what follows its name's first part, the file, and why it cannot be packed."""

    rest: str
    file: File
    why: str | None


Row = tuple[str, str, str | None, int, int, str | None]
"""Of a file: folder and first part of its name, the rest, its path if that is not both, size, time, why not."""


class Incomplete(Exception):
    """Why a sample is not packed: it lacks a file that it should have. ``path``: its image."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}")


class Taken(Exception):
    """Two things would be one field of a sample: a file, and what its layout says of it."""


@dataclass
class Grouped:
    """What the files of one first part become."""

    items: list[Item] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)  # sidecars without an image or a video
    collisions: list[str] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)  # (path, why)


def extension(name: str, images: frozenset[str] = PICTURES) -> str | None:
    """The field that a file's last suffix names, such as ``jpg``, ``txt``, ``json.gz``; None for other files.

    >>> extension("a.JPG"), extension("a.b.json.gz"), extension("notes.md"), extension("jpg")
    ('jpg', 'json.gz', None, None)
    """
    end, zipped = len(name), ""
    if name[-3:].lower() == ".gz":
        end, zipped = end - 3, ".gz"
    dot = name.rfind(".", 0, end)
    last = name[dot + 1 : end].lower()
    before = dot > 0 and name[dot - 1] != "/"
    return last + zipped if before and (last in KNOWN or last in images) else None


def first_dot(path: str) -> int:
    """Where a name's first part ends; below 0 where a name has none.

    >>> first_dot("a.b/0001.mask.png"), first_dot("a.b/README"), first_dot("a/.jpg")
    (8, -1, -1)
    """
    base = path.rfind("/") + 1
    dot = path.find(".", base)
    return dot if dot != base else -1


@lru_cache(1024)
def ending(rest: str) -> str | None:
    """``extension`` of a name by what follows its first part, which many names have in common."""
    return extension(f"_{rest}")


class Simple(NamedTuple):
    """An image alone or with a caption: its fields in order, with the number of the file that is each, and that of the
    image.
    """

    names: tuple[str, ...]
    places: tuple[tuple[str, int], ...]
    main: int
    longest: int  # characters of a name

    def item(self, rows: Sequence[Row]) -> Item:
        """The sample of such files."""
        files = {}
        for name, number in self.places:
            stem, rest, path, size, mtime, _ = rows[number]
            files[name] = File(path or stem + rest, size, mtime)
        return Item(stem, files)


def simple(rows: Sequence[Row]) -> Simple | None:
    """What ``group`` makes of an image alone or with a caption, which nearly all samples are, at a tenth of its cost;
    None where there is more to be said.
    """
    found = _simple(tuple([row[1] for row in rows]))
    if found is None or unsafe(rows[0][0], ()) is not None:
        return None
    for row in rows:
        if row[5] is not None:
            return None
    return found


@lru_cache(1024)
def _simple(rests: tuple[str, ...]) -> Simple | None:
    """The same of what follows the first parts of names: None where fields are not those of one picture, or no shard
    can hold one of them.
    """
    names = [rest[1:].lower() for rest in rests]
    pictures = [number for number, name in enumerate(names) if name in PICTURES]
    known = all(name in KNOWN or name in PICTURES for name in names) and unsafe("a", names) is None
    if len(pictures) != 1 or not known or len(set(names)) < len(names):
        return None
    places = sorted(zip(names, range(len(names)), strict=True))
    return Simple(tuple(sorted(names)), tuple(places), pictures[0], max(map(len, names)))


def group(stem: str, files: Sequence[Found], images: frozenset[str] = PICTURES) -> Grouped:
    """The samples of the files in one folder whose names agree up to the first dot: ``stem``, the folder's path in it.

    >>> files = [Found(rest, File(f"a{rest}", 1, 0), None) for rest in (".jpg", ".jpg.txt", ".mask.png", ".v2.jpg")]
    >>> [(item.key, sorted(item.files)) for item in group("a", files).items]
    [('a', ['jpg', 'mask.png', 'txt']), ('a_v2', ['jpg'])]
    """
    result = Grouped()
    stems: dict[tuple[str, ...], list[tuple[str, Found]]] = {}
    for each in sorted(files):
        ext = extension(stem + each.rest, images)
        assert ext is not None
        middle = each.rest[1 : -len(ext) - 1]
        stems.setdefault(tuple(middle.split(".") if each.rest[1 : -len(ext)] else ()), []).append((ext, each))
    samples: dict[tuple[str, ...], dict[str, Found]] = {}
    for parts, found in stems.items():
        for ext, each in found:
            root, name = _place(parts, ext, stems, images)
            first = samples.setdefault(root, {}).setdefault(name, each)
            if first is not each:
                result.collisions.append(
                    f"{first.file.path} and {each.file.path} would both be field {name!r} of a sample"
                )
    for root, fields in samples.items():
        _sample("_".join((stem, *root)), fields, images, result)
    return result


def _place(
    stem: tuple[str, ...], ext: str, stems: dict[tuple[str, ...], list[tuple[str, Found]]], images: frozenset[str]
) -> tuple[tuple[str, ...], str]:
    """The stem that a file belongs to, and its field's name there."""
    if stem and ext not in images and stem[-1].lower() in images:
        of_image = stem[:-1]
        if any(other == stem[-1].lower() for other, _ in stems.get(of_image, ())):
            return _place(of_image, ext, stems, images)
    root, middle = stem, stem[:0]
    for length in range(len(stem) - 1, -1, -1):
        words = stem[length : len(root)]
        if stem[:length] in stems and all(_WORD.fullmatch(word) and word.lower() not in images for word in words):
            root, middle = stem[:length], stem[length:]
    return root, ".".join((*middle, ext)).lower()


def _sample(key: str, fields: dict[str, Found], images: frozenset[str], result: Grouped) -> None:
    """One sample of these fields, or what is wrong with it."""
    plain = [name for name in fields if name in images]
    videos = [name for name in plain if name in VIDEOS]
    bad = [(each.file.path, each.why) for each in fields.values() if each.why is not None]
    if not plain and not any(name.rpartition(".")[2] in images for name in fields):
        result.orphans += [each.file.path for each in fields.values()]
    elif max(len(videos), len(plain) - len(videos)) > 1:  # but an image beside a video is the video's
        result.collisions.append(" and ".join(fields[name].file.path for name in plain) + " share one stem")
    elif bad:  # half a sample is never packed
        result.broken += bad
    elif why := unsafe(key, fields):
        result.broken += [(each.file.path, why) for each in fields.values()]
    else:
        result.items.append(Item(key, {name: fields[name].file for name in sorted(fields)}))


def unsafe(key: str, fields: Iterable[str]) -> str | None:
    """Why no shard can hold a sample of this key and fields; None if one can."""
    try:
        check_key(key)
        for name in fields:
            if name not in KNOWN:
                check_field(key, name)
    except UnsafeName as error:
        return str(error)
    return None


def folded(key: str, case_sensitive: bool) -> str:
    """What two keys have in common that one file system, or one reader, would take for the same."""
    if case_sensitive:
        return key
    return key.lower() if key.isascii() else unicodedata.normalize("NFC", key.casefold())
