"""Parquet files with images in them as a source of samples: the layout of Hugging Face's datasets.

Strategy: the footers are read once, when the source is made; a row group is a shard, so batches are planned without
reading a row. Rows cannot be found one by one in a row group, so each is read forward, a few rows at a time. What a
condition asks is answered from the columns that it names, and from no other.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.decoding.fields import main_image
from streampipe.errors import ConfigError, CorruptShard, StreampipeError
from streampipe.index import Finder, ShardIndex
from streampipe.index.columns import Columns
from streampipe.index.facts import OWN, image_size, is_scalar
from streampipe.index.table import make
from streampipe.pool import Pool
from streampipe.reading.pieces import FOOTER, Pieces, as_counted, spans_of
from streampipe.reading.rows import check_names, fields_of, values_of
from streampipe.source import Source, local_path, redact
from streampipe.source.store import Pin
from streampipe.source.versions import Version
from streampipe.tar import Limits
from streampipe.tar.header import BLOCK
from streampipe.urls import expand, names_of

_ROWS = 16  # read at once
_AHEAD = 2 << 20  # bytes that are asked for at once, and ahead
_THREADS = 16
_OPEN = 16  # files whose footers are held
_KEYS = ("__key__", "key")
_SIZES = {"width": ("width", "w", "json.width"), "height": ("height", "h", "json.height")}
_NOT_DATA = ".index.parquet"


class Group(NamedTuple):
    """A row group: its file, its number there, its rows, and the number of its first row in the file."""

    file: int
    number: int
    rows: int
    first: int


class Parquet:
    """The rows of Parquet files, each a sample.

    ``sp.stream("data/*.parquet")`` and ``sp.stream("hf://datasets/name/repo/data/*.parquet")`` make one with the
    defaults. A column of images (``{bytes, path}``) or of bytes becomes a field of its name; texts, numbers and lists
    are fields as they are; a null is no field. All columns of one value are facts for ``where``; ``bucket`` uses
    columns ``width`` and ``height``, or, of local files without them, the headers of the images, looked at once.

    Args:
        urls: files, globs, brace ranges or folders.
        source: what reads them; ``sp.stream(..., cache=, network=, storage_options=)`` makes it.
        columns: those that become fields; all by default. Others are not read.
        key: the column whose texts are the keys: by default ``__key__`` or ``key``, else file and number of the row.

    Raises:
        ConfigError: nothing is there, the files have different columns, or one that is named is missing.
        CorruptShard: a footer is damaged.
    """

    def __init__(
        self,
        urls: str | os.PathLike[str] | Sequence[str],
        source: Source | None = None,
        *,
        columns: Sequence[str] | None = None,
        key: str | None = None,
    ) -> None:
        self.source = source or Source()
        self.files = _files(urls, self.source)
        self._now: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._versions: dict[int, Version] = {}
        with Pool(_THREADS) as pool:
            feet = list(pool.map(self._foot, range(len(self.files))))
        # The date of a local file is not told to other processes: on another machine, it may be a copy.
        self._pins = [
            pin if local_path(url) is None else Pin(pin.size) for url, (pin, _, _) in zip(self.files, feet, strict=True)
        ]
        self.schema: pa.Schema = feet[0][2]
        check_names(self.schema.names, redact(self.files[0]))
        for url, (_, _, schema) in zip(self.files, feet, strict=True):
            if schema.names != self.schema.names:
                raise ConfigError(
                    f"{redact(url)} has columns {', '.join(schema.names)}, {redact(self.files[0])} has "
                    f"{', '.join(self.schema.names)}: stream them one by one, and sp.mix them"
                )
        self.key = self._key(key)
        self.columns = self._columns(columns)
        self.groups = [group for _, groups, _ in feet for group in groups if group.rows]
        if not self.groups:
            raise ConfigError(f"{redact(self.files[0])} and so on: there is no row in {len(self.files)} files")
        self.shards: Sequence[str] = [f"{self.files[group.file]}#{group.number}" for group in self.groups]
        self._stems = _stems(self.files)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_now": OrderedDict(), "_versions": {}}

    def __repr__(self) -> str:
        first, last = (redact(url).rpartition("/")[2] for url in (self.files[0], self.files[-1]))
        return f"Parquet({first!r})" if len(self.files) == 1 else f"Parquet({len(self.files)} files, {first} to {last})"

    def counts(self) -> list[int]:
        """The rows of each row group."""
        return [group.rows for group in self.groups]

    def read(self, shard: int, first: int = 0) -> Iterator[dict[str, Any]]:
        """The rows of a row group, from a number on."""
        group, url = self.groups[shard], redact(self.files[self.groups[shard].file])
        wanted = list(dict.fromkeys([*self.columns, *([self.key] if self.key else [])]))
        for number, row in self._rows(shard, wanted, first):
            key = row.pop(self.key) if self.key else f"{self._stems[group.file]}/{group.first + number:08d}"
            if not isinstance(key, str):
                raise CorruptShard(
                    f"{url}, row {group.first + number}: column {self.key!r} has no text, but {key!r:.40}"
                )
            yield {"__key__": key, "__url__": url, **fields_of(row, f"{url}, row {group.first + number}")}

    def only(self, fields: Collection[str]) -> Parquet | None:
        """The same, of whose columns those alone are read that become these fields."""
        columns = [name for name in self.columns if any(_is_of(field, name) for field in fields)]
        if not columns or columns == self.columns:
            return None
        found = copy(self)
        found.columns = columns
        return found

    def facts(self, shard: int, columns: Collection[str] | None) -> pa.Table | None:
        """The columns of single values, as far as they are asked for; None if sizes are, which nobody knows."""
        group = self.groups[shard]
        names = {f"json.{name}" if name in OWN and name not in _SIZES else name: name for name in self._scalars()}
        names.pop("key", None)
        wanted = {column: name for column, name in names.items() if columns is None or column in columns}
        asked = [side for side in _SIZES if columns is not None and side in columns]
        unknown = any(not any(name in names for name in _SIZES[side]) for side in asked)
        if unknown and local_path(self.files[group.file]) is None:
            return None
        read = list(dict.fromkeys([*wanted.values(), *([self.key] if self.key else [])]))
        table = self._table(shard, read)
        keys = [f"{self._stems[group.file]}/{group.first + i:08d}" for i in range(group.rows)]
        found = {"key": table.column(self.key).cast(pa.string()) if self.key else pa.array(keys, pa.string())}
        found |= {column: _plain(table.column(name)) for column, name in wanted.items()}
        if unknown:
            scanned = self._scanned(shard)
            found |= {side: scanned.column(side) for side in _SIZES}
        size = int(self._file(group.file).metadata.row_group(group.number).total_byte_size) // group.rows
        found["size"] = pa.array([size] * group.rows, pa.int64())
        return pa.table(found)

    def why_not(self) -> str:
        """Why ``facts`` gave none."""
        return f"{redact(self.files[0])} is remote and has no columns width and height: sizes come with the images"

    # Columns

    def _key(self, given: str | None) -> str | None:
        texts = [field.name for field in self.schema if _is_text(field.type)]
        if given is not None and given not in texts:
            raise ConfigError(f"key={given!r} is no column of texts; there are {', '.join(texts) or 'none'}")
        return given or next((name for name in _KEYS if name in texts), None)

    def _columns(self, given: Sequence[str] | None) -> list[str]:
        there = [name for name in self.schema.names if name != self.key]
        if given is not None and (missing := [name for name in given if name not in there]):
            raise ConfigError(f"columns={missing[0]!r} is no column; there are {', '.join(there)}")
        found = there if given is None else list(given)
        if odd := [name for name in found if name.startswith("__")]:
            raise ConfigError(
                f"column {odd[0]!r} has a reserved name; name those to read: sp.Parquet(..., columns=[...])"
            )
        return found

    def _scalars(self) -> list[str]:
        kinds = pa.types
        return [
            field.name
            for field in self.schema
            if _is_text(kind := _written_out(field.type))
            or kinds.is_boolean(kind)
            or kinds.is_integer(kind)
            or kinds.is_floating(kind)
        ]

    # Reading

    def _foot(self, number: int) -> tuple[Pin, list[Group], pa.Schema]:
        """Which version a file is of, its row groups and its columns."""
        url = self.files[number]
        pin = self.source.pin(url)
        if pin.size is None:
            raise ConfigError(
                f"{redact(url)}: its store does not say its size, so its footer cannot be found; download it"
            )
        self._versions[number] = version = Version(url, pin)
        file = self._opened(version)
        groups, first = [], 0
        for i in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(i).num_rows
            groups.append(Group(number, i, rows, first))
            first += rows
        return pin, groups, file.schema_arrow

    def _opened(self, version: Version) -> pq.ParquetFile:
        return _guarded(version.url, lambda: pq.ParquetFile(Pieces(self.source, version), pre_buffer=False))

    def _version(self, number: int) -> Version:
        """The version of a file whose rows were counted.

        Raises:
            ShardChanged: it is another one now, as far as that can be seen without asking a store.
        """
        url = self.files[number]
        found = self._versions.get(number) or self._versions.setdefault(number, Version(url, self._pins[number]))
        if local_path(url) is not None:
            with as_counted(url):
                found.agree(self.source.pin(url))
        return found

    def _file(self, number: int) -> pq.ParquetFile:
        """A file whose footer is held.

        Raises:
            ShardChanged: it is of another version now.
        """
        version = self._version(number)
        found = self._now.pop(number, None)
        if found is None:
            found = self._opened(version)
        self._now[number] = found
        while len(self._now) > _OPEN:
            self._now.popitem(last=False)
        return found

    def _fresh(self, group: Group, columns: Collection[str], ahead: int = 0) -> pq.ParquetFile:
        """The file of a row group, opened anew: several are read at the same time, each at its own place."""
        url, meta = self.files[group.file], self._file(group.file).metadata
        spans = spans_of(meta.row_group(group.number), columns) if ahead else []
        file = Pieces(self.source, self._version(group.file), ahead, spans)
        return _guarded(url, lambda: pq.ParquetFile(file, metadata=meta, pre_buffer=False, buffer_size=FOOTER))

    def _rows(self, shard: int, columns: Sequence[str], first: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """The values of some columns of a row group, row by row from one on, with its number."""
        group = self.groups[shard]
        url, number = self.files[group.file], 0
        file = self._fresh(group, columns, _AHEAD)
        batches = file.iter_batches(_ROWS, row_groups=[group.number], columns=list(columns), use_threads=False)
        while (batch := _guarded(url, lambda: next(batches, None))) is not None:
            end = number + batch.num_rows
            if end > first:
                start = max(0, first - number)
                yield from enumerate(values_of(batch.slice(start), redact(url)), number + start)
            number = end

    def _table(self, shard: int, columns: Sequence[str]) -> pa.Table:
        group = self.groups[shard]
        file = self._fresh(group, columns)
        return _guarded(
            self.files[group.file], lambda: file.read_row_group(group.number, columns=list(columns), use_threads=False)
        )

    def _scanned(self, shard: int) -> pa.Table:
        """The sizes of the images of a row group, remembered."""
        group = self.groups[shard]
        path = local_path(self.files[group.file]) or ""
        stat = os.stat(path)
        identity = f"parquet\0{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{group.number}"
        finder = Finder(Source(), Limits())
        return finder.noted(identity, self.shards[shard], lambda: self._scan(shard)).table

    def _scan(self, shard: int) -> ShardIndex:
        images = [field.name for field in self.schema if _is_image(field.type)]
        if not images:
            raise ConfigError(f"{redact(self.files[0])} has no column of images ({{bytes, path}}), so none has a size")
        name = main_image(images)
        rows = []
        for number, row in self._rows(shard, [name]):
            width, height = image_size(fields_of(row, self.shards[shard]))
            row = {"key": str(number), "offset": number * BLOCK, "size": BLOCK, "crc32": None, "fields": []}
            rows.append({**row, "width": width, "height": height})
        return make(rows, Columns({} for _ in rows), {"bytes": len(rows) * BLOCK})


def _files(urls: str | os.PathLike[str] | Sequence[str], source: Source) -> list[str]:
    names = []
    for url in names_of(urls):
        path = local_path(url)
        folder = url.endswith("/") or (path is not None and os.path.isdir(os.path.expanduser(path)))
        names.append(f"{url.rstrip('/')}/*.parquet" if folder else url)
    return [url for url in expand(names, lambda: source) if not url.endswith(_NOT_DATA)]


def _stems(files: Sequence[str]) -> list[str]:
    """The names of files without their ending, with as many folders as are needed to tell them apart.

    >>> _stems(["a/train/0.parquet", "a/test/0.parquet"]), _stems(["a/0.parquet", "a/1.parquet"])
    (['train/0', 'test/0'], ['0', '1'])
    """
    parts = [redact(url).partition("?")[0].rpartition(".")[0].split("/") for url in files]
    for depth in range(1, max(map(len, parts)) + 1):
        found = [posixpath.join(*each[-depth:]) for each in parts]
        if max(Counter(found).values()) == 1:
            return found
    raise ConfigError(f"{redact(files[0])} and so on: a file comes twice in the list")


def _is_of(field: str, column: str) -> bool:
    """Whether a field is made of a column: it has its name, or, of a column of several images, a number behind that.

    >>> _is_of("image", "image"), _is_of("images1", "images"), _is_of("imagery", "image")
    (True, True, False)
    """
    return field == column or (field.startswith(column) and field[len(column) :].isdigit())


def _written_out(kind: pa.DataType) -> pa.DataType:
    """The kind of a column's values, however they are stored: categories are numbers of texts."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    kind = _written_out(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and any(field.name == "bytes" and _is_bytes(field.type) for field in kind)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of facts in the kinds that an index has: texts, whole numbers, floats, truth values; no long texts."""
    kind = _written_out(column.type)
    column = column.cast(kind)
    if _is_text(kind):
        texts = [value if value is None or is_scalar(value) else None for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_unsigned_integer(kind) and kind.bit_width == 64:
        return column.cast(pa.float64(), safe=False)
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    return column.cast(pa.float64()) if pa.types.is_floating(kind) else column


def _guarded(url: str, read: Callable[[], Any]) -> Any:
    """What reading a file gives.

    Raises:
        CorruptShard: it is damaged.
    """
    try:
        return read()
    except StreampipeError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise CorruptShard(
            f"{redact(url)} cannot be read as Parquet ({type(error).__name__}: {error}); fetch or write it again"
        ) from error
