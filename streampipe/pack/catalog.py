"""The samples of a source, found before the first is packed: their keys, sizes and places, in the order of the shards.

Strategy: what the source knows (its indexes, its columns) is asked shard by shard and goes into a database in a
temporary file, so memory is flat. Where a source knows nothing of its samples they are read once for that: no shard is
begun before it is known that no two keys collide. Then each output shard is a list of places.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from streampipe.decoding.extensions import VIDEOS
from streampipe.decoding.movie import main_picture
from streampipe.errors import NameCollision, PackError, ShardError
from streampipe.folders.duplicates import ALIKE, Seen
from streampipe.folders.files import Unreadable
from streampipe.folders.names import folded, unsafe
from streampipe.folders.walk import Few
from streampipe.index import ShardIndex
from streampipe.index.columns import Columns
from streampipe.index.facts import facts_of
from streampipe.index.table import make
from streampipe.pack.contents import THREADS, Loaded, Place, SamplesOf, main_of, members
from streampipe.pack.sift import Sift
from streampipe.reading.finder import SourceFinder
from streampipe.reading.tars import Tars
from streampipe.rng import derive
from streampipe.samplesource import RandomAccess, SampleSource
from streampipe.source import local_path, redact
from streampipe.threads import ordered

_RUN = 2048  # samples whose facts are held at once, where they are found by reading
_SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;
CREATE TABLE found(key TEXT, fold TEXT, part INT, rank INT, size INT, image INT, shard INT, number INT);
CREATE TABLE items(key TEXT, size INT, part INT, shard INT, number INT);
CREATE TABLE broken(path TEXT, why TEXT);
CREATE TABLE same(key TEXT, first TEXT);
"""


class Catalog:
    """What is packed of a sample source. Closed, it is gone.

    Raises:
        PackError: it cannot be read, or not in the order that is asked for.
    """

    def __init__(
        self,
        given: SampleSource,
        *,
        sift: Sift,
        seed: int | None = None,
        deduplicate: bool | str = False,
        case_sensitive: bool = False,
        tell: Callable[[int], object] = lambda count: None,
    ) -> None:
        self.given = given
        self.samples = self.bytes = self.broken = 0
        self.fields: dict[str, int] = {}
        self.collisions, self.repeated = Few(), Few()
        self.repeated_in: Counter[int] = Counter()  # by part
        self._sift, self._tell = sift, tell
        self._case_sensitive = case_sensitive
        self._shuffle = None if seed is None else derive(seed, "pack")
        self._finder = given.finder if isinstance(given, Tars) else SourceFinder(given)
        self.alone = isinstance(given, RandomAccess)
        self._stamps: dict[int, str] = {}  # of each shard, as it was when it was looked at
        self.looked = 0  # shards that were read to find out what they hold
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_SCHEMA)
        try:
            self._fill(deduplicate)
        except sqlite3.Error as error:
            self.close()
            raise PackError(
                f"the list of the samples of {self.name} could not be kept in a temporary file ({error}); make room "
                f"where temporary files are (TMPDIR), and run again"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The source, for messages."""
        return repr(self.given)

    def close(self) -> None:
        """Let the temporary file go."""
        self._db.close()

    def check(self, on_error: str) -> None:
        """Raise what stands in the way of packing.

        Raises:
            NameCollision: two samples would have one key.
            PackError: there is nothing to pack, or what cannot be packed (not under ``on_error="skip"``).
        """
        if self.collisions.count:
            raise NameCollision(
                f"{self.name}: {self.collisions.count} keys collide, nothing was written; rename the samples, or pack "
                f"the sources one by one: {self.collisions}"
            )
        if self.broken and on_error == "raise":
            path, why = next(self.why_broken())
            raise PackError(
                f"{path} cannot be packed ({why}); nothing was written; mend it, or pass --on-error skip to leave it "
                f"out"
            )
        if not self.samples:
            raise PackError(f"{self.name}: it holds no sample that is to be packed")

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Of each sample its part, and about how many bytes it takes."""
        return self._db.execute("SELECT part, size FROM items ORDER BY rowid")

    def contents(self, start: int, count: int) -> SamplesOf:
        """The samples of a shard."""
        rows = self._rows(start, count)
        places = [Place(key, shard, number) for key, _, shard, number in rows]
        remote = self.alone and self._finder.source.is_remote(self.given.shards[places[0].shard])
        needed = sum(size for _, size, _, _ in rows)
        exact = isinstance(self.given, Tars)
        threads, digest = THREADS if remote else 0, self._digest(rows)
        return SamplesOf(self.given, places, needed, self.alone, threads, exact, digest)

    def _digest(self, rows: Iterable[tuple[str, int, int, int]]) -> str:
        """Of everything that decides a shard's bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for key, size, shard, number in rows:
            digest.update(f"{key}\0{size}\0{self._stamps[shard]}\0{number}\n".encode())
        return digest.hexdigest()

    def why_broken(self) -> Iterator[tuple[str, str]]:
        """What cannot be read, with the reason."""
        return self._db.execute("SELECT path, why FROM broken ORDER BY path")

    def why_repeated(self) -> Iterator[tuple[str, str]]:
        """The samples that are left out because the image of another is the same, each with that one."""
        return self._db.execute("SELECT key, first FROM same ORDER BY rowid")

    def examples(self) -> list[str]:
        """The keys and fields of the first samples, which are read for that."""
        found = self.contents(0, min(3, self.samples)) if self.samples else ()
        return [f"{each.key}: {', '.join(each.fields)}" if isinstance(each, Loaded) else str(each) for each in found]

    def stamp(self) -> str:
        """Of all that is given."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in range(len(self.given.shards)):
            digest.update(f"{self._stamps[shard]}\n".encode())
        return digest.hexdigest()

    def _stamp(self, shard: int) -> str:
        """What tells one version of a shard from another, where no index has its checksum and that costs nothing: its
        name, a file's size and date.
        """
        url = self.given.shards[shard]
        path = local_path(url.partition("#")[0])
        if path is None:
            return redact(url)
        try:
            stat = os.stat(path)
        except OSError:
            return url
        return f"{url}\0{stat.st_size}\0{stat.st_mtime_ns}"

    def _rows(self, start: int, count: int) -> list[tuple[str, int, int, int]]:
        return self._db.execute(
            "SELECT key, size, shard, number FROM items WHERE rowid > ? AND rowid <= ? ORDER BY rowid",
            (start, start + count),
        ).fetchall()

    def _fill(self, deduplicate: bool | str) -> None:
        db = self._db
        db.execute("BEGIN")
        db.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._found())
        self._twins()
        if deduplicate:
            self._without_repeated(Seen(deduplicate), deduplicate == ALIKE)
        order = "part, rank, shard, number" if self.alone else "shard, number"
        db.execute(f"INSERT INTO items SELECT key, size, part, shard, number FROM found ORDER BY {order}")
        if not self.alone:
            db.execute("UPDATE items SET part = 0")
        db.execute("DROP TABLE found")
        db.execute("COMMIT")
        self.samples, self.bytes = db.execute("SELECT count(*), coalesce(sum(size), 0) FROM items").fetchone()
        (self.broken,) = db.execute("SELECT count(*) FROM broken").fetchone()

    def _found(self) -> Iterator[tuple[str, str, int, int, int, int, int, int]]:
        for shard in range(len(self.given.shards)):
            self._stamps[shard] = self._stamp(shard)
            try:
                for first, index in self._indexes(shard):
                    yield from self._of_index(shard, first, index)
            except ShardError as error:
                self._db.execute("INSERT INTO broken VALUES (?, ?)", (redact(self.given.shards[shard]), str(error)))

    def _of_index(
        self, shard: int, first: int, index: ShardIndex
    ) -> Iterator[tuple[str, str, int, int, int, int, int, int]]:
        sizes = index.table.column("size").to_numpy()
        names = index.table.column("fields").to_pylist() if "fields" in index.table.column_names else None
        for row, (key, part) in enumerate(zip(index.keys(), self._sift(index), strict=True)):
            if part is None:
                continue
            key = key_of(key)
            if why := unsafe(key, ()):
                self._db.execute("INSERT INTO broken VALUES (?, ?)", (redact(self.given.shards[shard]), why))
                continue
            image = -1  # not known
            if names is not None:
                fields = {each["name"]: each["size"] for each in names[row]}
                for name in fields:
                    self.fields[name] = self.fields.get(name, 0) + 1
                images = main_of(fields)
                image = fields[main_picture(images)] if images else -1
            rank = 0 if self._shuffle is None else derive(self._shuffle, key) >> 1
            yield key, folded(key, self._case_sensitive), part, rank, int(sizes[row]), image, shard, first + row
        self._tell(len(index))

    def _indexes(self, shard: int) -> Iterator[tuple[int, ShardIndex]]:
        """What is known of a shard; where nothing is, its samples are read."""
        index = self._finder.find(self.given.shards[shard], columns=self._sift.columns)
        if index is not None:
            if "sha256" in index.facts:
                self._stamps[shard] = str(index.facts["sha256"])
            yield 0, index
            return
        self.alone = self.alone and not isinstance(self.given, Tars)
        self.looked += 1
        samples, first = enumerate(self.given.read(shard)), 0
        while run := list(islice(_facts(samples), _RUN)):
            yield first, _index(run)
            first += len(run)

    def _twins(self) -> None:
        self._db.execute("CREATE INDEX by_fold ON found(fold)")
        twins = self._db.execute(
            "SELECT fold, key, shard FROM found WHERE fold IN "
            "(SELECT fold FROM found GROUP BY fold HAVING count(*) > 1) ORDER BY fold, shard, number"
        )
        for _, rows in groupby(twins, key=itemgetter(0)):
            same = list(rows)
            keys = list(dict.fromkeys(repr(key) for _, key, _ in same))
            shards = " and ".join(redact(self.given.shards[shard]) for _, _, shard in same[:3])
            hint = "" if len(keys) < len(same) else " (--case-sensitive-keys allows it)"
            self.collisions.add(f"{' and '.join(keys)} in {shards}{hint}")

    def _without_repeated(self, seen: Seen, alike: bool) -> None:
        """Take out the samples whose main image is the same as an earlier one. Only images of one size can be equal."""
        equal = "WHERE image < 0 OR image IN (SELECT image FROM found GROUP BY image HAVING count(*) > 1)"
        rows = self._db.execute(
            f"SELECT rowid, part, key, shard, number FROM found {'' if alike else equal} ORDER BY shard, number"
        ).fetchall()
        places = [Place(key, shard, number) for _, _, key, shard, number in rows]
        samples = SamplesOf(self.given, places, 0, self.alone, 0, isinstance(self.given, Tars))

        def marked(each: Loaded | Unreadable) -> tuple[bytes | None, list[str]]:
            if isinstance(each, Unreadable) or not (images := main_of(each.fields)):
                return None, []
            main = main_picture(images)
            video = alike and main.rpartition(".")[2] in VIDEOS
            return None if video else seen.mark([each.fields[main]]), list(each.fields)

        with closing(seen):
            for (number, part, key, *_), (mark, names) in zip(rows, ordered(marked, samples, THREADS), strict=True):
                first = None if mark is None else seen.first(mark, key)
                if first is None:
                    continue
                self.repeated.add(f"{key} is {first}")
                self.repeated_in[part] += 1
                self._db.execute("INSERT INTO same VALUES (?, ?)", (key, first))
                for name in names if self.fields else ():
                    self.fields[name] -= 1
                self._db.execute("DELETE FROM found WHERE rowid = ?", (number,))
        self.fields = {name: count for name, count in self.fields.items() if count}


def key_of(key: str) -> str:
    """A source's key as shards can have it: no dots in its last part.

    >>> key_of("a.b/0001.jpg")
    'a.b/0001_jpg'
    """
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.replace('.', '_')}"


def _facts(samples: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Of samples that are read for that: the row of an index, and the columns of their json."""
    for _, sample in samples:
        fields = members(sample)
        facts = facts_of({**fields, "__key__": sample["__key__"]})
        own = {name: facts.pop(name, None) for name in ("key", "width", "height")}
        places = [{"name": name, "offset": 0, "size": len(data)} for name, data in fields.items()]
        size = sum(1024 + len(data) for data in fields.values())
        yield {**own, "offset": 0, "size": size, "crc32": None, "fields": places}, facts


def _index(rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> ShardIndex:
    columns = Columns()
    for _, facts in rows:
        columns.add(facts)
    return make([row for row, _ in rows], columns, {"bytes": 0})
