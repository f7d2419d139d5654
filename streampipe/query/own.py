"""Facts of the user's own: a Parquet, CSV or JSON lines file with a column of keys, joined to the index by key.

Only the column of keys and those that a condition asks for are read; of a remote Parquet file, only their bytes. Keys
are held sorted, in one array, so a shard's samples are found in it together; values stay as Arrow has them.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from streampipe.errors import ConfigError, DuplicateKey, IndexMismatch, ShardChanged, ShardMissing
from streampipe.index import ShardIndex
from streampipe.query.aliases import columns_of
from streampipe.query.condition import Condition, Verdict
from streampipe.query.expression import Expression
from streampipe.source import Source, local_path, redact
from streampipe.source.ranged import RangedFile
from streampipe.source.store import Pin
from streampipe.source.versions import Version

_KINDS = (".parquet", ".csv", ".jsonl", ".ndjson")
_BLOCK = 1 << 20


class OwnFacts:
    """A file of facts by key. It is read when it is first asked, once in a process, and left behind by pickling.

    Args:
        url: the file; its ending says its format.
        on: the column that has the samples' keys.
        names: the columns to read; None for all.
    """

    def __init__(self, url: str | os.PathLike[str], on: str, names: Collection[str] | None, source: Source) -> None:
        self.url = os.fspath(url)
        if not self.url.partition("?")[0].lower().endswith(_KINDS):
            raise ConfigError(
                f"where: facts= is a file that ends in {', '.join(_KINDS)}, not {redact(self.url)!r}; a file beside "
                f"each shard is what join is for"
            )
        if not isinstance(on, str) or not on:
            raise ConfigError(f"where: on= is the name of the column of keys in the file of facts=, not {on!r}")
        self.on = on
        self.names = None if names is None else tuple(sorted(names))
        self.source = source
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._stamp: _Stamp | None = None

    def version(self) -> str:
        """What tells the contents of the file from others. It is found once, and pickled: all of a job read that one.

        Raises:
            ShardMissing: it is not there.
        """
        with self._lock:
            if self._stamp is None:
                self._stamp = _stamp(self.url, self.source)
            return self._stamp.contents

    def beside(self, index: ShardIndex) -> ShardIndex:
        """The index with these facts as columns; what has no row is unknown, and columns of these names give way."""
        held = self._get()
        rows = held.rows(index.keys())
        table = index.table
        for name, column in held.columns.items():
            found = column.take(rows)
            at = table.schema.get_field_index(name)
            field = pa.field(name, found.type)
            table = table.append_column(field, found) if at < 0 else table.set_column(at, field, found)
        return ShardIndex(table, index.facts)

    def of_key(self, key: str) -> dict[str, Any]:
        """A sample's facts, None where they are unknown."""
        held = self._get()
        row = held.rows([key])[0].as_py()
        return {name: None if row is None else column[row].as_py() for name, column in held.columns.items()}

    def _get(self) -> _Held:
        with self._lock:
            if self._held is None:
                held = _read(self.url, self.on, self.names, self.source)
                if self._stamp is not None:
                    self._check(self._stamp)
                self._held = held
            return self._held

    def _check(self, stamp: _Stamp) -> None:
        """Refuse a file that is not the one that was planned with. A copy of it on another machine has another date."""
        if self.source.version(self.url) != stamp.mark and _stamp(self.url, self.source).contents != stamp.contents:
            raise ShardChanged(
                f"{redact(self.url)} was written anew since the job that asks it (where(facts=)) was planned; run it "
                f"again"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_held": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class WithFacts:
    """A condition that also asks facts of the user's own; a condition like any other to ``Keep`` and to a stage."""

    def __init__(self, condition: Condition, url: str | os.PathLike[str], on: str, source: Source) -> None:
        self.condition = condition
        asked = condition.condition
        names = None
        if isinstance(asked, Expression):
            names = {each for name in asked.names for each in columns_of(name)}
        self.own = OwnFacts(url, on, names, source)

    @property
    def text(self) -> str:
        """The condition as written, the file's name and what is in it: answers are kept under this, and runs resumed.

        Raises:
            ShardMissing: the file is not there.
        """
        return f"{self._words()} {self.own.version()}]"

    def fingerprint(self) -> str:
        """What decides which samples are kept, for the record of a job."""
        return self.text

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of an index that it may look at; None: any."""
        asked = self.condition.columns
        return None if asked is None else asked | {"key"}

    def __repr__(self) -> str:
        return repr(f"{self._words()}]")  # no file is read to show a pipeline

    def _words(self) -> str:
        return f"{self.condition.text} [facts={redact(self.own.url).rpartition('/')[2]} on={self.own.on}"

    def of_index(self, index: ShardIndex, among: np.ndarray | None = None) -> Verdict:
        """Which rows of an index are kept, among all or those of a mask."""
        return self.condition.of_index(self.own.beside(index), among)

    def of_sample(self, facts: Mapping[str, Any]) -> Verdict:
        """Whether a sample with these facts is kept: one row."""
        return self.condition.of_sample({**facts, **self.own.of_key(str(facts.get("key")))})

    @property
    def wants_sizes(self) -> bool:
        """Whether the size of the image may matter."""
        return self.condition.wants_sizes

    def lacks(self, facts: Mapping[str, Any]) -> bool:
        """Whether facts from elsewhere could change the answer."""
        return self.condition.lacks({**facts, **self.own.of_key(str(facts.get("key")))})

    def names(self, there: Collection[str] | None = None) -> str:
        """What the condition's names stand for."""
        return self.condition.names(there)


class _Stamp(NamedTuple):
    """Of a file a digest of its contents (of an object that has a version, of that), and what it is known by again."""

    contents: str
    mark: str | None


class _Held(NamedTuple):
    """What was read of a file: keys sorted, the row of each, and the columns."""

    keys: np.ndarray
    order: np.ndarray
    columns: dict[str, pa.Array]

    def rows(self, keys: Sequence[str]) -> pa.Array:
        """The rows of these keys, null where there is none."""
        wanted = np.array([key.encode("utf-8", "surrogatepass") for key in keys], object)
        if not len(self.keys):
            return pa.nulls(len(wanted), pa.int64())
        wanted = wanted.astype("S")
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return pa.array(self.order[at], pa.int64(), mask=self.keys[at] != wanted)


def _stamp(url: str, source: Source) -> _Stamp:
    try:
        mark, path = source.version(url), local_path(url)
        digest = hashlib.blake2b(digest_size=8)
        if path is not None:
            with open(path, "rb", buffering=0) as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        else:
            digest.update(source.read(url) if mark is None else mark.encode())
    except ShardMissing as error:
        raise _missing(url) from error
    except OSError as error:
        raise IndexMismatch(
            f"{redact(url)} cannot be read ({error.strerror or error}); check who may read it"
        ) from error
    return _Stamp(digest.hexdigest(), mark)


def _missing(url: str) -> ShardMissing:
    return ShardMissing(f"{redact(url)} is not there: it is the file of where(facts=); check its place")


def _read(url: str, on: str, names: Sequence[str] | None, source: Source) -> _Held:
    shown = redact(url)
    kind = url.partition("?")[0].lower().rpartition(".")[2]
    try:
        table = (_of_parquet if kind == "parquet" else _of_csv if kind == "csv" else _of_lines)(url, on, names, source)
    except ShardMissing as error:
        raise _missing(url) from error
    except (pa.ArrowException, ValueError) as error:
        raise IndexMismatch(f"{shown} cannot be read ({error}); check that it is what its name says") from error
    texts = table.column(on).cast(pa.string()).cast(pa.binary()).combine_chunks()
    there = texts.is_valid()
    keys = texts.filter(there).to_numpy(zero_copy_only=False).astype("S") if len(texts) else np.empty(0, "S1")
    rows = np.flatnonzero(there.to_numpy(zero_copy_only=False))
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise DuplicateKey(f"{shown} has key {keys[twice[0]].decode()!r} twice: one row for each key is needed")
    others = [name for name in table.column_names if name != on]
    return _Held(keys, rows, {name: _plain(table.column(name), name, shown) for name in others})


def _of_parquet(url: str, on: str, names: Sequence[str] | None, source: Source) -> pa.Table:
    file = pq.ParquetFile(pa.PythonFile(_Ranged(url, source), mode="r"))
    return file.read(_chosen(file.schema_arrow.names, url, on, names))


def _of_csv(url: str, on: str, names: Sequence[str] | None, source: Source) -> pa.Table:
    data = source.read(url)

    def read(texts: Collection[str]) -> pa.Table:
        options = pc_csv.ConvertOptions(column_types=dict.fromkeys((on, *texts), pa.string()))
        return pc_csv.read_csv(io.BytesIO(data), convert_options=options)

    table = _of_texts(read, url, on, names)
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):  # "NA" is a text, and no value only where numbers are meant
            column = table.column(at)
            table = table.set_column(at, field, pc.if_else(pc.equal(column, ""), None, column))
    return table


def _of_lines(url: str, on: str, names: Sequence[str] | None, source: Source) -> pa.Table:
    data = source.read(url)
    longest = max(map(len, io.BytesIO(data)), default=0)  # no line may be longer than what is read at once
    how = pa_json.ReadOptions(block_size=max(_BLOCK, longest + 2))

    def read(texts: Collection[str]) -> pa.Table:
        schema = pa.schema([(each, pa.string()) for each in texts])
        return pa_json.read_json(io.BytesIO(data), how, pa_json.ParseOptions(explicit_schema=schema))

    return _of_texts(read, url, on, names)


def _of_texts(read: Callable[[Collection[str]], pa.Table], url: str, on: str, names: Sequence[str] | None) -> pa.Table:
    """The columns to read of a file of texts. What pyarrow takes for a date is left as it is written."""
    table = read(())
    chosen = _chosen(table.column_names, url, on, names)
    dates = [each for each in chosen if pa.types.is_temporal(table.schema.field(each).type)]
    return (read(dates) if dates else table).select(chosen)


def _chosen(there: Sequence[str], url: str, on: str, names: Sequence[str] | None) -> list[str]:
    """The columns to read."""
    if on not in there:
        raise IndexMismatch(
            f"{redact(url)} has no column {on!r} for the keys (it has {', '.join(there[:30])}); name it in on="
        )
    found = [each for each in there if names is None or each == on or each in names]
    twice = next((each for each in found if found.count(each) > 1), None)
    if twice is not None:
        raise IndexMismatch(f"{redact(url)} has {found.count(twice)} columns {twice!r}: give each a name of its own")
    return found


def _plain(column: pa.ChunkedArray, name: str, shown: str) -> pa.Array:
    """A column as an index has such: truth values, 64-bit numbers, texts."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        wanted = pa.bool_()
    elif pa.types.is_uint64(kind):  # some are larger than whole numbers are here
        return column.cast(kind).cast(pa.float64(), safe=False).combine_chunks()
    elif pa.types.is_integer(kind):
        wanted = pa.int64()
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        wanted = pa.float64()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        wanted = pa.string()
    else:
        raise IndexMismatch(f"{shown}: column {name!r} is {kind}, and where asks truth values, numbers and texts")
    return column.cast(wanted).combine_chunks()


class _Ranged(RangedFile):
    """An object of a store as a file that is read in parts: of the version that is there when it is opened."""

    def __init__(self, url: str, source: Source) -> None:
        self._version = Version(url, source.pin(url))
        size = (self._version.pin or Pin()).size
        self._data = source.read(url) if size is None else None  # the store does not say
        super().__init__(len(self._data) if self._data is not None else size or 0)
        self._source = source

    def between(self, start: int, end: int) -> bytes:
        """See ``RangedFile``."""
        if self._data is not None:
            return self._data[start:end]
        return self._source.read(self._version.url, start, end, self._version)
