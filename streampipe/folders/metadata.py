"""What tables beside the images say of them: Hugging Face's ``metadata.csv``, ``.jsonl`` and ``.parquet``, lists of
captions, the json of trainers. A row is found by the path of its image.

A row becomes the sample's ``json`` (and its caption its ``txt``, where no file has one); files that a row names in
columns such as ``control_file_name`` become fields such as ``control.png`` of the sample.
"""

from __future__ import annotations

import csv
import json
import math
import os
import posixpath
import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.errors import PackError
from streampipe.folders.walk import folders_in, seen_from

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""One of these a folder."""
_PATHS = ("file_name", "image_path", "filename", "image_file", "path", "target")
_CAPTIONS = ("text", "caption", "prompt", "captions", "instruction", "edit_prompt")
_BATCH = 10_000
_encode = json.JSONEncoder(ensure_ascii=False).encode
_INT = re.compile(r"0|-?[1-9]\d{0,17}")
_FLOAT = re.compile(r"-?(0|[1-9]\d{0,17})\.\d{1,17}")


class Rows:
    """The rows of all tables, in a temporary file. Not picklable; closed, it is gone.

    Paths in a table are relative to where it lies, or with ``of_folder`` to the folder of the images. With
    ``file_column`` that column names the image: its path, with or without its ending, or its mere name or number, in
    whatever folder it lies. ``caption_column`` is the one that becomes the caption.
    """

    def __init__(
        self,
        folder: str,
        tables: Iterable[str],
        of_folder: bool = False,
        file_column: str | None = None,
        caption_column: str | None = None,
    ) -> None:
        self.tables = list(tables)
        self.count = 0
        self._columns: set[str] = set()
        self._folder = folder
        self._of_folder = of_folder
        self._by_name = file_column is not None
        self._paths = _PATHS if file_column is None else (file_column,)
        self._captions = _CAPTIONS if caption_column is None else (caption_column,)
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE rows(path TEXT PRIMARY KEY, facts TEXT, caption TEXT, parts TEXT, used INT) WITHOUT ROWID;"
            "CREATE TABLE named(path TEXT, place TEXT, PRIMARY KEY(path, place)) WITHOUT ROWID; BEGIN;"
        )
        for table in self.tables:
            try:
                self._take(table)
            except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
                self.close()
                why = error.strerror if isinstance(error, OSError) and error.strerror else error
                place = os.path.realpath(os.path.join(folder, table))
                raise PackError(f"{place} cannot be read ({why}); mend it, or choose another layout") from error
        self._db.execute("COMMIT")
        if caption_column is not None and self.count and caption_column not in self._columns:
            self.close()
            raise PackError(
                f"{', '.join(self.tables)}: no row has a column {caption_column!r}, they have "
                f"{', '.join(sorted(self._columns))}; say which is the caption"
            )

    def close(self) -> None:
        """Let the temporary file go."""
        self._db.close()

    def places(self, path: str) -> tuple[str, ...]:
        """Where a file belongs that rows name beside their images, one place of each; none if no row does."""
        found = self._db.execute("SELECT place FROM named WHERE path = ? ORDER BY place", (_composed(path),))
        return tuple(str(place) for (place,) in found)

    def row(self, path: str) -> tuple[str, str | None, dict[str, str]] | None:
        """The facts of an image as JSON, its caption, and the other files that its row names, by their fields."""
        for name in self._names(path):
            found = self._db.execute("SELECT facts, caption, parts FROM rows WHERE path = ?", (name,)).fetchone()
            if found is not None:
                self._db.execute("UPDATE rows SET used = 1 WHERE path = ?", (name,))
                return str(found[0]), found[1], json.loads(found[2])
        return None

    def has(self, path: str) -> bool:
        """Whether an image has a row of its own, which one that names it as a part of another is not."""
        whole = _composed(path)
        for name in self._names(path):
            found = self._db.execute("SELECT parts FROM rows WHERE path = ?", (name,)).fetchone()
            if found is not None:
                parts = json.loads(found[0]).values()
                return name == whole or whole not in (self._inside(each, "") for each in parts)
        return False

    def _names(self, path: str) -> list[str]:
        """What a row may call an image, best first."""
        path = _composed(path)
        names = [path, posixpath.splitext(path)[0]]
        return [*names, *map(posixpath.basename, names)] if self._by_name else names

    def unused(self) -> tuple[int, list[str]]:
        """How many rows had no image, and the first of them."""
        (count,) = self._db.execute("SELECT count(*) FROM rows WHERE used IS NULL").fetchone()
        first = self._db.execute("SELECT path FROM rows WHERE used IS NULL ORDER BY path LIMIT 3")
        return int(count), [str(path) for (path,) in first]

    def _take(self, table: str) -> None:
        below = "" if self._of_folder else posixpath.dirname(table)
        for row in _rows(os.path.join(self._folder, table)):
            self._columns.update(row)
            path = next((row.pop(name) for name in self._paths if isinstance(row.get(name), (str, int))), None)
            if path is None:
                wanted = self._paths[0]
                raise ValueError(f"a row names no image: it has {', '.join(map(str, row)) or 'nothing'}, no {wanted}")
            path = self._inside(str(path), below)
            _check_once(row, path)
            parts: dict[str, str] = {}
            for place, named in _others(row, path, below):
                parts[place.removeprefix(posixpath.splitext(path)[0] + ".").lower()] = named
                self._add("INSERT OR IGNORE INTO named VALUES (?, ?)", (self._inside(named, ""), place))
            caption = self._caption(row, path)
            if table.endswith(".csv"):
                row = {name: text if name in (*_PATHS, *_CAPTIONS) else _number(text) for name, text in row.items()}
            facts = json.dumps(_plain(row), ensure_ascii=False, allow_nan=False)
            if self._add(
                "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, NULL)", (path, facts, caption, _encode(parts))
            ):
                raise ValueError(f"two rows are of {path}")
            self.count += 1

    def _caption(self, row: dict[str, Any], path: str) -> str | None:
        """The caption of a row: the first text in the columns of captions, or without one the first number."""
        there = [(name, row[name]) for name in self._captions if row.get(name) not in (None, "")]
        texts = [value for _, value in there if isinstance(value, str)]
        found = next(iter((*texts, *(value for _, value in there if _is_number(value)))), None)
        if found is None and there and self._captions is not _CAPTIONS and not isinstance(there[0][1], float):
            raise ValueError(f"the caption of {path} is no text: its {there[0][0]!r} is {there[0][1]!r:.60}")
        return None if found is None else str(found)

    def _add(self, order: str, values: tuple[Any, ...]) -> bool:
        """Whether it was there already."""
        return self._db.execute(order, values).rowcount == 0

    def _inside(self, path: str, below: str) -> str:
        """A path as a table has it, below the folder."""
        if os.path.isabs(path):
            return _composed(seen_from(self._folder, path))
        return _composed(posixpath.normpath(posixpath.join(below, path.replace("\\", "/"))))


def find(folder: str, without: Iterable[str] = ()) -> list[str]:
    """The tables in a folder and up to two below it, as paths below it. ``without``: folders that are not of it.

    Raises:
        PackError: a folder has two of them.
    """
    found = []
    for below in _folders(folder, 2, tuple(without)):
        here = [name for name in NAMES if os.path.isfile(os.path.join(folder, below, name))]
        if len(here) > 1:
            raise PackError(f"{os.path.join(folder, below)} has {' and '.join(here)}: keep the one that is right")
        found += [posixpath.join(below, name) for name in here]
    if not found:
        found = [name for name in ("captions.json", "prompt.json") if os.path.isfile(os.path.join(folder, name))]
    return found


def _folders(folder: str, depth: int, without: tuple[str, ...], below: str = "") -> Iterator[str]:
    yield below
    for name in folders_in(os.path.join(folder, below), without) if depth else ():
        yield from _folders(folder, depth - 1, without, posixpath.join(below, name))


def _rows(path: str) -> Iterator[dict[str, Any]]:
    """The rows of a table; those of a csv file as they are written: texts."""
    if path.endswith(".parquet"):
        table = pq.ParquetFile(path)
        _check_names(table.schema_arrow.names)
        for batch in table.iter_batches(_BATCH):
            yield from batch.to_pylist()
        return
    with open(path, encoding="utf-8-sig", newline="") as file:
        if path.endswith(".csv"):
            delimiter = _delimiter(file.readline())
            file.seek(0)
            table = csv.DictReader(file, strict=True, delimiter=delimiter)
            _check_names(table.fieldnames or ())
            for row in table:
                if None in row or None in row.values():
                    raise ValueError(f"a line has more or fewer columns than the first one: {list(row.values())[:3]}")
                yield row
            return
        if path.endswith(".json"):
            try:
                whole = json.load(file, object_pairs_hook=_object)
            except json.JSONDecodeError:
                file.seek(0)  # one object a line, under this name
            else:
                yield from _of_json(whole)
                return
        for line in file:
            if line.strip():
                row = json.loads(line, object_pairs_hook=_object)
                if not isinstance(row, dict):
                    raise ValueError(f"a line is no JSON object: {line[:40]!r}")
                yield row


class _Twice(dict[str, Any]):
    """A JSON object that has a name twice. JSON lets the last one stand, which is refused of a row, and not within."""

    name: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = _Twice(found)
        found.name = _twice(name for name, _ in pairs)[0]
    return found


def _check_once(row: dict[str, Any], path: str) -> None:
    if isinstance(row, _Twice):
        raise ValueError(f"the row of {path} has {row.name!r} twice, and only one can be meant")


def _check_names(names: Iterable[str]) -> None:
    twice = [name for name in _twice(names) if name]
    if twice:
        raise ValueError(f"it has {twice[0]!r} twice, and only one can be meant")


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def _composed(path: str) -> str:
    """A path as keys have it: what one system writes decomposed and another composed is the same name."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _delimiter(first: str) -> str:
    """What separates the columns: a comma; or what stands between the names of a first line that has no comma.

    >>> _delimiter("file_name,text"), _delimiter("file_name;text"), _delimiter("file_name")
    (',', ';', ',')
    """
    return next((sign for sign in ",;\t" if sign in first), ",")


def _of_json(whole: Any) -> Iterator[dict[str, Any]]:
    """The rows of a whole JSON file: a list of objects, or an object by path of objects, captions or lists of them."""
    if isinstance(whole, list) and all(isinstance(row, dict) for row in whole):
        yield from whole
    elif isinstance(whole, dict) and any(isinstance(whole.get(name), str) for name in _PATHS):
        yield whole  # one row alone
    elif isinstance(whole, _Twice):
        raise ValueError(f"two rows are of {whole.name}")
    elif isinstance(whole, dict):
        for path, value in whole.items():
            row = value if isinstance(value, dict) else {"caption": value}
            _check_once(row, path)
            yield {"file_name": path, **row}
    else:
        raise ValueError("it is neither an object nor a list of objects")


def _others(row: dict[str, Any], path: str, below: str) -> Iterator[tuple[str, str]]:
    """The other files that a row names, each with the place that makes it a field of the sample; they leave the row.

    >>> row = {"control_file_name": "c/1.png", "ref_file_names": ["r/1.jpg", "r/2.jpg"], "text": "x"}
    >>> for place, path in _others(row, "a/1.jpg", ""):
    ...     print(place, path)
    a/1.control.png c/1.png
    a/1.ref0.jpg r/1.jpg
    a/1.ref1.jpg r/2.jpg
    >>> row
    {'text': 'x'}
    """
    stem = posixpath.splitext(path)[0]
    for name in list(row):
        role = next((name.removesuffix(end) for end in ("_file_name", "_file_names") if name.endswith(end)), None)
        if name == "file_names":
            role = "image"
        if name == "source" and str(row[name]).lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
            role = "source"
        value = row[name] if role else None
        if role and value:
            del row[name]
            several = isinstance(value, list)
            for number, each in enumerate(value if several else [value]):
                if not isinstance(each, str):
                    raise ValueError(f"the row of {path} has {each!r:.60} as its {name!r}, which is no name of a file")
                suffix = posixpath.splitext(each)[1]
                yield f"{stem}.{role}{number if several else ''}{suffix}", posixpath.join(below, each)


def _number(text: str) -> str | int | float:
    """A cell of a csv file as what it says: a number where it is written as one writes numbers, else its text.

    >>> _number("512"), _number("0.5"), _number("007"), _number("1e5"), _number("")
    (512, 0.5, '007', '1e5', '')
    """
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0


def _plain(value: Any) -> Any:
    """A value of a table as JSON can have it: no numbers that are none, dates as text."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (bytes, memoryview)):
        raise ValueError("a column holds bytes; pack takes tables that name files")
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
