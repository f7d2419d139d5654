"""What a folder holds, found before a byte is read: its samples in the order of the shards, and all that is wrong.

Strategy: files stream from the folder into a database in a temporary file, and come back sorted so that those of one
sample follow each other; samples go into a second table and come back in the order of the shards. So memory stays flat
whatever the number of files, and names that no shard can hold, keys that collide, files that are empty or may not be
read are all known before the first shard is begun.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from operator import itemgetter

from streampipe.decoding.extensions import VIDEOS
from streampipe.decoding.movie import main_picture
from streampipe.errors import NameCollision, PackError
from streampipe.folders.blocks import Blocks, Sample
from streampipe.folders.duplicates import ALIKE, Seen, blocks_of
from streampipe.folders.facts import cut
from streampipe.folders.files import from_text, packed, packed_size, to_text
from streampipe.folders.layouts import CAPTIONS, PLAIN, Layout, with_caption
from streampipe.folders.names import File, Found, Incomplete, Item, Row, Simple, Taken, extension, folded, group, simple
from streampipe.folders.remote import RemoteWalk
from streampipe.folders.walk import Few, Walk, allowed, seen_from
from streampipe.rng import derive
from streampipe.source import Source, local_path
from streampipe.tar import Limits
from streampipe.threads import ordered

THREADS = 8
"""Images that are looked at at once."""
_SCHEMA = """
CREATE TABLE files(stem TEXT, rest TEXT, path TEXT, size INT, mtime INT, why TEXT);
CREATE TABLE found(key TEXT, fold TEXT, rank INT, size INT, image INT, files TEXT, part INT DEFAULT 0);
CREATE TABLE broken(path BLOB, why TEXT);
CREATE TABLE same(number INT, path TEXT, first TEXT);
"""

Sift = Callable[[str, list[Item], Sequence[str]], Iterable[int | None]]
"""Of a run of a folder's samples, in the order of their keys: the part of the dataset that each belongs to; None: none.
The folders come last that links may lead into.
"""


class Listing:
    """The samples of a folder, and what is not packed, with the reason. Closed, it is gone."""

    def __init__(self, folder: str, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self.roots: list[str] = []  # where links may lead
        self.samples = 0
        self.bytes = 0  # of all files
        self.fields: dict[str, int] = {}
        self.without_caption = 0
        self.hidden = 0
        self.broken = self.left_out = 0
        self.orphans, self.other, self.collisions, self.repeated = Few(), Few(), Few(), Few()
        self.repeated_in: Counter[int] = Counter()  # by part
        self._blocks: Blocks | None = None  # where the order in which they were found is that of the shards
        self._db = sqlite3.connect("", isolation_level=None)  # a temporary file, in memory as long as it is small
        self._db.text_factory = str
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;" + _SCHEMA)

    def close(self) -> None:
        """Let the temporary files go."""
        self._db.close()
        if self.layout.rows is not None:
            self.layout.rows.close()

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note_broken(self, path: str, why: str) -> None:
        """A file or folder, by its path below, that cannot be packed."""
        self._db.execute("INSERT INTO broken VALUES (?, ?)", (os.fsencode(os.path.join(self.folder, path)), why))

    def items(self, start: int = 0, count: int | None = None) -> Iterator[Item]:
        """The samples in the order of the shards, from one of them on."""
        for key, files in self.rows(start, count):
            yield Item(key, from_text(files))

    def rows(self, start: int = 0, count: int | None = None) -> Iterator[tuple[str, str]]:
        """The same as keys and texts, from which ``from_text`` makes files."""
        stop = self.samples if count is None else start + count
        if self._blocks is not None:
            return ((key, files) for key, _, _, _, _, files in self._blocks.read(start, stop))
        return self._db.execute(
            "SELECT key, files FROM items WHERE rowid > ? AND rowid <= ? ORDER BY rowid", (start, stop)
        )

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Of each its part, and the bytes that it takes in a shard, headers included; in the same order."""
        if self._blocks is not None:
            return ((0, size) for size in self._blocks.sizes())
        return self._db.execute("SELECT part, size FROM items ORDER BY rowid")

    def why_broken(self) -> Iterator[tuple[str, str]]:
        """The files that cannot be packed, sorted by path, each with the reason."""
        rows = self._db.execute("SELECT path, why FROM broken ORDER BY path")
        return ((os.fsdecode(path), why) for path, why in rows)

    def why_repeated(self) -> Iterator[tuple[str, str]]:
        """The images that are left out because another is the same, each with that one."""
        return self._db.execute("SELECT path, first FROM same ORDER BY rowid")


def scan(
    folder: str,
    *,
    follow_symlinks: str | None = None,
    layout: Layout = PLAIN,
    case_sensitive: bool = False,
    caption: str | None = None,
    beside: Mapping[str, str | os.PathLike[str]] | None = None,
    deduplicate: bool | str = False,
    seed: int | None = None,
    without: str | None = None,
    limits: Limits | None = None,
    sift: Sift | None = None,
    source: Source | None = None,
    tell: Callable[[int], object] = lambda count: None,
) -> Listing:
    """Find the samples of a folder: an image or a video and the files that share its name, in the order of their keys.

    Symbolic links to files are followed as long as they stay in the folder, or in the folder ``follow_symlinks``; one
    that leads elsewhere counts as a file that cannot be read, lest somebody else's files end up in a dataset. Links to
    folders are not followed. With a ``seed`` the order is shuffled, each key by itself. ``caption`` is that of images
    that have none. ``beside``: folders elsewhere that hold a part (``mask``, ``control``, ``caption``) of the images of
    the same path. ``source`` reads a folder of a store. With ``deduplicate``, of samples whose main images are the same
    (see ``Seen``), the first by key stays.
    ``sift`` says which samples stay, and in which part of the dataset: parts come one after the other. ``tell`` hears
    of files.

    Raises:
        PackError: the folder does not exist, or the disk has no room for the list of its files.
    """
    remote = local_path(folder) is None
    if not remote and not os.path.isdir(folder):
        raise PackError(f"{folder} is no folder; give the folder that holds the images")
    for root in (beside or {}).values():
        if not os.path.isdir(root):
            raise PackError(f"{os.fspath(root)} is no folder; give the folder that holds what belongs to the images")
    if follow_symlinks is not None and not os.path.isdir(follow_symlinks):
        raise PackError(f"{follow_symlinks} is no folder; give the folder that symbolic links may lead into")
    listing = Listing(folder, layout)
    try:
        listing._db.execute("BEGIN")
        roots = {role: os.fspath(root) for role, root in (beside or {}).items()}
        listing.roots = [] if remote else allowed(folder, follow_symlinks, *roots.values())
        walk = partial(
            RemoteWalk if remote else Walk,
            note_broken=listing.note_broken,
            follow=follow_symlinks,
            without=[each for each in (without, *roots.values()) if each is not None],
            most=(limits or Limits()).max_member_bytes,
            source=source,
            tell=tell,
        )
        walks = [(walk(folder, layout.place), "")]
        for role, root in roots.items():
            walks.append((walk(root, partial(_place_beside, role)), seen_from(folder, root)))
        apart = tuple(f"{seen_from(folder, root)}/" for root in roots.values())
        samples = _samples(listing, _together(listing, walks), _Rows(case_sensitive, seed), caption, apart)
        blocks = Blocks(listing._db, samples)
        listing._db.execute("DROP TABLE files")
        as_found = blocks.of_keys and seed is None and sift is None
        if as_found and blocks.of_folds and not deduplicate:  # no two are the same, and all are where they belong
            listing._blocks = blocks
        else:
            listing._db.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, 0)", blocks.read())
            blocks.drop()
            if not blocks.of_folds:  # else no two are the same
                _twins(listing)
            if sift is not None:
                _sift(listing, sift)
            if deduplicate:  # among those that are wanted: one that is not must not stand for one that is
                _without_repeated(listing, Seen(deduplicate), deduplicate == ALIKE, source)
            _put_in_order(listing, as_found and not listing.left_out)
        listing._db.execute("COMMIT")
        (listing.broken,) = listing._db.execute("SELECT count(*) FROM broken").fetchone()
    except sqlite3.Error as error:
        listing.close()
        raise PackError(
            f"the list of the files in {folder} could not be kept in a temporary file ({error}); make room where "
            f"temporary files are (TMPDIR), and run again"
        ) from error
    except BaseException:
        listing.close()
        raise
    return listing


def check(listing: Listing, on_error: str) -> None:
    """Raise what stands in the way of packing.

    Raises:
        NameCollision: two files would become the same member, on any file system.
        PackError: there is nothing to pack, or a file that cannot be packed (not under ``on_error="skip"``).
    """
    folder = listing.folder
    if listing.collisions.count:
        raise NameCollision(
            f"{folder}: {listing.collisions.count} name collisions, nothing was written; rename the files: "
            f"{listing.collisions}"
        )
    if listing.broken and on_error == "raise":
        path, why = next(listing.why_broken())
        more = f", nor can {listing.broken - 1} other files" if listing.broken > 1 else ""
        raise PackError(
            f"{shown(path)} cannot be packed ({why}){more}; nothing was written; mend it, or pass --on-error skip to "
            f"leave such files out (--dry-run lists them)"
        )
    if not listing.samples:
        none = f"none of its images can be packed ({listing.broken} files)"
        what = none if listing.broken else "it holds no image or video"
        if listing.left_out:
            raise PackError(f"{folder}: where= and bucket= leave none of its {listing.left_out} samples; ask for less")
        raise PackError(f"{folder}: {what}: {listing.layout.wants}")


def shown(path: str) -> str:
    """A path as a message can have it, whatever bytes it is made of.

    >>> print(shown("a b.jpg"), shown("a\\n.jpg"), shown("caf\\udce9.jpg"))
    a b.jpg 'a\\n.jpg' 'caf\\udce9.jpg'
    """
    return path if path.isprintable() else repr(path)


def _together(listing: Listing, walks: Sequence[tuple[Walk, str]]) -> Iterator[list[Row]]:
    """The files of each stem, of all walks. Those of a directory are sorted as it comes, where they stay in it; others
    go through a table. With each walk goes where its folder lies, as seen from that of the images.
    """
    db, stem = listing._db, itemgetter(0)
    at_once = listing.layout.stays and len(walks) == 1
    for walk, root in walks:
        for whole, rows in walk.runs():
            if whole and at_once:
                rows.sort(key=stem)
                yield from (list(files) for _, files in groupby(rows, key=stem))
            else:
                moved = (_seen(row, root) for row in rows) if root else rows
                db.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", moved)
        listing.hidden += walk.hidden
        listing.other.count += walk.other.count
        listing.other.examples += [os.path.join(root, each) for each in walk.other.examples]
    yield from (list(files) for _, files in groupby(db.execute("SELECT * FROM files ORDER BY stem"), key=stem))


def _seen(row: Row, root: str) -> Row:
    """A file of the folder ``root``, as it is seen from that of the images."""
    stem, rest, path, size, mtime, why = row
    return stem, rest, os.path.join(root, stem + rest if path is None else path), size, mtime, why


def _place_beside(role: str, path: str) -> str | None:
    """The place of a file in a folder that holds a part of the samples.

    >>> _place_beside("mask", "a/b.png"), _place_beside("caption", "a/b.txt")
    ('a/b.mask.png', 'a/b.txt')
    """
    ext = extension(path)
    if ext is None or role == "caption":
        return path
    return f"{path[: -len(ext) - 1]}.{role}.{ext}"


class _Rows:
    """Samples as rows of the next table; and how many there are, by the fields that they have."""

    def __init__(self, case_sensitive: bool, seed: int | None) -> None:
        self._case_sensitive = case_sensitive
        self._shuffle = None if seed is None else derive(seed, "pack")
        self._kinds: dict[tuple[str, ...], list[int]] = {}  # samples, and the bytes of their files

    def simple(self, found: Simple, files: Sequence[Row]) -> Sample:
        """Of one that is simple."""
        size, text = packed(files[0][0], found, files)
        return self._row(files[0][0], found.names, sum([file[3] for file in files]), size, files[found.main][3], text)

    def of(self, item: Item) -> Sample:
        """Of any."""
        key, files = item
        main = files[main_picture(files)].size
        return self._row(
            key, tuple(files), sum([file.size for file in files.values()]), packed_size(item), main, to_text(files)
        )

    def _row(self, key: str, names: tuple[str, ...], of_files: int, size: int, main: int, text: str) -> Sample:
        if (kind := self._kinds.get(names)) is None:
            kind = self._kinds[names] = [0, 0]
        kind[0] += 1
        kind[1] += of_files
        rank = 0 if self._shuffle is None else derive(self._shuffle, key) >> 1
        fold = folded(key, self._case_sensitive)
        return key, (None if fold == key else fold), rank, size, main, text

    def count_in(self, listing: Listing) -> None:
        """Tell a listing what there was."""
        for names, (samples, of_files) in self._kinds.items():
            listing.samples += samples
            listing.bytes += of_files
            listing.without_caption += samples * CAPTIONS.isdisjoint(names)
            for name in names:
                listing.fields[name] = listing.fields.get(name, 0) + samples


def _samples(
    listing: Listing, stems: Iterable[list[Row]], rows: _Rows, caption: str | None, apart: tuple[str, ...]
) -> Iterator[Sample]:
    """Of the files of each stem the samples, as rows of the next table; what is wrong is noted. ``apart``: where files
    lie that are no sample by themselves.
    """
    as_they_are = listing.layout.stays and caption is None and not apart
    for files in stems:
        found = simple(files) if len(files) < 3 else None
        if found is not None and as_they_are:
            yield rows.simple(found, files)
            continue
        for item in (found.item(files),) if found is not None else _grouped(listing, files):
            if (finished := _finished(listing, item, caption, apart)) is not None:
                yield rows.of(finished)
    rows.count_in(listing)


def _finished(listing: Listing, found: Item, caption: str | None, apart: tuple[str, ...]) -> Item | None:
    """A sample with what its layout says of it; None for one that is none, which is noted."""
    try:
        item = found if listing.layout.stays else listing.layout.finish(found)
    except Incomplete as error:
        listing.note_broken(error.path, error.why)
        return None
    except Taken as error:
        listing.collisions.add(str(error))
        return None
    if item is None or (apart and all(file.path.startswith(apart) for file in item.files.values() if file.path)):
        for file in found.files.values():
            listing.orphans.add(file.path)
        return None
    return item if caption is None else with_caption(item, caption)


def _grouped(listing: Listing, rows: Sequence[Row]) -> Sequence[Item]:
    """The samples of the files of one first part; what is wrong with others is noted."""
    found = [Found(rest, File(path or stem + rest, size, mtime), why) for stem, rest, path, size, mtime, why in rows]
    result = group(rows[0][0], found)
    for path in result.orphans:
        listing.orphans.add(path)
    for collision in result.collisions:
        listing.collisions.add(collision)
    for path, why in result.broken:
        listing.note_broken(path, why)
    return result.items


def _without_repeated(listing: Listing, seen: Seen, alike: bool, source: Source | None) -> None:
    """Take out the samples whose image is the same as an earlier one. Only images of one size can be equal."""
    equal = "WHERE image IN (SELECT image FROM found GROUP BY image HAVING count(*) > 1)"
    rows = listing._db.execute(f"SELECT rowid, files FROM found {'' if alike else equal} ORDER BY key")

    def marked(row: tuple[int, str]) -> tuple[int, str, bytes | None]:
        files = from_text(row[1])
        path = files[main_picture(files)].path
        video = alike and extension(path) in VIDEOS
        return row[0], path, None if video else seen.mark(blocks_of(listing.folder, path, source))

    with closing(seen):
        for number, path, mark in ordered(marked, rows, THREADS):
            first = None if mark is None else seen.first(mark, path)
            if first is not None:
                listing.repeated.add(f"{path} is {first}")
                listing._db.execute("INSERT INTO same VALUES (?, ?, ?)", (number, path, first))
    again = "SELECT number, part FROM same JOIN found ON found.rowid = number"
    for number, part in listing._db.execute(again).fetchall():
        listing.repeated_in[part] += 1
        _leave_out(listing, number)


def _sift(listing: Listing, sift: Sift) -> None:
    """Leave out the samples that are not wanted, and note the part that each of the others belongs to."""
    rows = listing._db.execute("SELECT rowid, key, files FROM found ORDER BY key")
    numbers: deque[int] = deque()

    def items() -> Iterator[Item]:
        for number, key, files in rows:
            numbers.append(number)
            yield Item(key, from_text(files))

    def parts() -> Iterator[tuple[int, int | None]]:
        for run in cut(items()):
            for part in sift(listing.folder, run, listing.roots):
                yield numbers.popleft(), part

    db = listing._db
    db.execute("CREATE TABLE sifted(number INTEGER PRIMARY KEY, part INT)")
    db.executemany("INSERT INTO sifted VALUES (?, ?)", parts())
    for (number,) in db.execute("SELECT number FROM sifted WHERE part IS NULL"):
        _leave_out(listing, number)
    db.execute("UPDATE found SET part = (SELECT part FROM sifted WHERE number = found.rowid)")
    db.execute("DROP TABLE sifted")


def _leave_out(listing: Listing, number: int) -> None:
    """A sample is not packed after all."""
    (text,) = listing._db.execute("SELECT files FROM found WHERE rowid = ?", (number,)).fetchone()
    files = from_text(text)
    for name, file in files.items():
        listing.fields[name] -= 1
        listing.bytes -= file.size
        if not listing.fields[name]:
            del listing.fields[name]
    listing.samples -= 1
    listing.left_out += 1
    listing.without_caption -= CAPTIONS.isdisjoint(files)
    listing._db.execute("DELETE FROM found WHERE rowid = ?", (number,))


def _put_in_order(listing: Listing, is_in_order: bool) -> None:
    """The samples as the table ``items``, in the order of the shards."""
    if is_in_order:
        listing._db.execute("ALTER TABLE found RENAME TO items")
        return
    order = "SELECT key, size, files, part FROM found ORDER BY part, rank, key"
    listing._db.execute(f"CREATE TABLE items AS {order}")
    listing._db.execute("DROP TABLE found")


def _twins(listing: Listing) -> None:
    """Note the keys that readers or file systems would take for the same."""
    fold = "coalesce(fold, key)"
    listing._db.execute(f"CREATE INDEX by_fold ON found({fold})")
    twins = listing._db.execute(
        f"SELECT {fold}, key, files FROM found WHERE {fold} IN "
        f"(SELECT {fold} FROM found GROUP BY {fold} HAVING count(*) > 1) ORDER BY {fold}, key"
    )
    for _, rows in groupby(twins, key=itemgetter(0)):
        same = list(rows)
        paths = " and ".join(next(iter(from_text(files).values())).path for _, _, files in same)
        keys = " and ".join(dict.fromkeys(repr(key) for _, key, _ in same))
        hint = "" if len({key for _, key, _ in same}) < len(same) else " (--case-sensitive-keys allows it)"
        listing.collisions.add(f"{paths} would have key {keys}{hint}")
