"""The files below a folder, as they stream from the disk: what each is, and why it cannot be packed."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from streampipe.folders.names import TEXTS, Row, ending, first_dot
from streampipe.source import Source
from streampipe.urls import PACK_LOCK

_PASSED_OVER = frozenset(("__MACOSX", "Thumbs.db", "desktop.ini", "_latent_cache", "_t_e_cache"))
_EXAMPLES = 10
_RUN = 10_000  # files that are held at once


@dataclass
class Few:
    """How many there are, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(text)

    def __str__(self) -> str:
        more = f"; and {self.count - len(self.examples)} more" if self.count > len(self.examples) else ""
        return "; ".join(self.examples) + more


class Walk:
    """The files below a folder, as rows of the database."""

    _in_turn = True  # whether a directory's files come one after the other

    def __init__(
        self,
        folder: str,
        place: Callable[[str], str | tuple[str, ...] | None],
        note_broken: Callable[[str, str], None],
        *,
        follow: str | None,
        without: Iterable[str],
        most: int,
        source: Source | None = None,
        tell: Callable[[int], object],
    ) -> None:
        self.hidden = 0
        self.other = Few()
        self._folder, self._place, self._note_broken = folder, place, note_broken
        self._allowed = allowed(folder, follow)
        self._without = frozenset(map(os.path.realpath, without))
        self._names = frozenset(map(os.path.basename, self._without))
        self._most = most
        self._source = source or Source()
        self._tell = tell
        self._user = os.geteuid()

    def runs(self) -> Iterator[tuple[bool, list[Row]]]:
        """The files, so many at a time, and whether these are all of a directory and there is none of their stems
        elsewhere, as long as places are paths. One that has several places comes several times.
        """
        for below, entries in self._folders():
            rows = self._rows(below, entries)
            run = list(islice(rows, _RUN))
            whole = self._in_turn and below.isascii() and len(run) < _RUN  # in others two forms of a name may meet
            while run:
                yield whole, run
                run = list(islice(rows, _RUN))

    def _rows(self, below: str, entries: Iterable[Any]) -> Iterator[Row]:
        place, facts, base = self._place, self._facts, len(below)
        for entry in entries:
            path = below + entry.name
            places = place(path)
            for placed in places if isinstance(places, tuple) else (places,):
                stays = placed is path
                dot = path.find(".", base) if stays else -1 if placed is None else first_dot(placed)
                if placed is None or dot < 0 or (ext := ending(rest := placed[dot:])) is None:
                    if placed != "":
                        self.other.add(path)
                    continue
                size, mtime, why = facts(path, entry, ext)
                if size < 0:
                    self.other.add(path)
                elif path.isascii():
                    yield placed[:dot], rest, (None if stays or placed == path else path), size, mtime, why
                elif _is_text(path):
                    composed = unicodedata.normalize("NFC", placed)
                    dot = first_dot(composed)
                    yield composed[:dot], composed[dot:], (None if composed == path else path), size, mtime, why
                else:
                    self._note_broken(path, "its name is no valid text (UTF-8); rename it")

    def _folders(self) -> Iterator[tuple[str, Iterable[Any]]]:
        """One directory after the other, and what is in it and no directory, as the disk has it."""
        folders = [""]
        while folders:
            below = folders.pop()
            inside: list[str] = []
            yield below, self._entries(below, inside)
            folders += sorted(inside, reverse=True)

    def _entries(self, below: str, inside: list[str]) -> Iterator[os.DirEntry[str]]:
        """What is in a directory and none itself; those that are go into ``inside``.

        A directory is open while it is listed: a file's facts are then asked for by its mere name, which is a fifth of
        the time less than by its path.
        """
        here = os.path.join(self._folder, below)  # with a slash at its end
        count = 0
        try:
            with _opened(here) as handle, os.scandir(handle) as found:
                for entry in found:
                    name = entry.name
                    if name[0] == "." or name in _PASSED_OVER:
                        self.hidden += 1
                    elif entry.is_dir(follow_symlinks=False):
                        if name not in self._names or os.path.realpath(here + name) not in self._without:
                            inside.append(f"{below}{name}/")
                    else:
                        count += 1
                        yield entry
        except OSError as error:
            self._note_broken(below.rstrip("/"), _why(error))
        self._tell(count)

    def _facts(self, path: str, entry: os.DirEntry[str], ext: str) -> tuple[int, int, str | None]:
        """Size, modification time, and why a file cannot be packed; a size below 0 for what is no file."""
        try:
            facts = entry.stat()
        except OSError as error:
            return 0, 0, _why(error)
        if not stat.S_ISREG(facts.st_mode):
            return -1, 0, None
        why = None
        if entry.is_symlink():
            why = leads_out(os.path.join(self._folder, path), self._allowed)
        size = facts.st_size
        if why is None and not 0 < size <= self._most:
            why = self._why_not(size, ext)
        if why is None and self._user and not self._may_read(path, facts):  # root may read all
            why = "Permission denied"
        return size, facts.st_mtime_ns, why

    def _may_read(self, path: str, facts: os.stat_result) -> bool:
        """Whether a file may be read. An owner may what its mode says; of others the system is asked."""
        if facts.st_uid == self._user and facts.st_mode & stat.S_IRUSR:
            return True
        return os.access(os.path.join(self._folder, path), os.R_OK, effective_ids=True)

    def _why_not(self, size: int, ext: str) -> str | None:
        """Why a file of this size and kind cannot be packed."""
        if not size and ext.removesuffix(".gz") not in TEXTS:
            return "it is empty"
        if size > self._most:
            return f"its {size} bytes are more than readers take, which is {self._most} (max_member_bytes)"
        return None


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def allowed(*roots: str | None) -> list[str]:
    """Where the symbolic links of a folder may lead: to what is in it, and in the folders that follow it."""
    return [os.path.realpath(each) for each in roots if each is not None]


def leads_out(path: str, roots: Iterable[str]) -> str | None:
    """Why a file is not read that leads out of what is ``allowed``: nobody else's files end up in a dataset."""
    target = os.path.realpath(path)
    if any(os.path.commonpath((target, root)) == root for root in roots):
        return None
    return f"a symbolic link out of the folder, to {target}; --follow-symlinks {os.path.dirname(target)} allows it"


def folders_in(folder: str, without: Iterable[str] = ()) -> list[str]:
    """The names of the folders in a folder that say how it is laid out; none where it cannot be listed, which a walk
    says. ``without``: folders that are not of it, wherever they are. Nor is what ``pack`` has written.
    """
    apart = frozenset(map(os.path.realpath, without))
    try:
        with os.scandir(folder) as entries:
            there = [each for each in entries if each.is_dir(follow_symlinks=False) and not is_passed_over(each.name)]
    except OSError:
        return []
    there = [each for each in there if not os.path.lexists(os.path.join(each.path, PACK_LOCK))]
    return sorted(each.name for each in there if not apart or os.path.realpath(each.path) not in apart)


def seen_from(folder: str, path: str) -> str:
    """The path of a file or folder as it is seen from a folder: ``..`` leads where it leads, whatever is a link.

    >>> seen_from("/data/images", "/data/masks/a.png")
    '../masks/a.png'
    """
    there = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return os.path.relpath(there, os.path.realpath(folder))


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or what a system or a trainer leaves."""
    return name.startswith(".") or name in _PASSED_OVER


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
