"""The files below a folder, as they stream from the disk: what each is, and why it cannot be packed."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from streampipe.folders.names import TEXTS, extension
from streampipe.source import Source
from streampipe.urls import PACK_LOCK

_PASSED_OVER = frozenset(("__MACOSX", "Thumbs.db", "desktop.ini", "_latent_cache", "_t_e_cache"))
_EXAMPLES = 10
Row = tuple[str, str, str | None, int, int, str | None]
"""Of a file: folder and first part of its name, the rest, its path if that is not both, size, time, why not."""


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
        self._most = most
        self._source = source or Source()
        self._tell = tell
        self._ask = os.geteuid() != 0  # root may read all

    def rows(self) -> Iterator[Row]:
        """The files; one that has several places comes several times."""
        place = self._place
        for below, entry in self._entries():
            path = below + entry.name
            places = place(path)
            for placed in places if isinstance(places, tuple) else (places,):
                if placed is None or (ext := extension(placed)) is None:
                    if placed != "":
                        self.other.add(path)
                    continue
                size, mtime, why = self._facts(entry, ext)
                if size < 0:
                    self.other.add(path)
                    continue
                if not path.isascii():
                    if not _is_text(path):
                        self._note_broken(path, "its name is no valid text (UTF-8); rename it")
                        continue
                    placed = unicodedata.normalize("NFC", placed)
                dot = placed.index(".", placed.rfind("/") + 1)
                yield placed[:dot], placed[dot:], (None if placed == path else path), size, mtime, why

    def _entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """What is below the folder and no folder, one directory after the other, as the disk has it."""
        folders = [""]
        while folders:
            below = folders.pop()
            here = os.path.join(self._folder, below)
            count = 0
            try:
                with os.scandir(here) as found:
                    for entry in found:
                        if is_passed_over(entry.name):
                            self.hidden += 1
                        elif entry.is_dir(follow_symlinks=False):
                            if not self._without or os.path.realpath(entry.path) not in self._without:
                                folders.append(f"{below}{entry.name}/")
                        else:
                            count += 1
                            yield below, entry
            except OSError as error:
                self._note_broken(below.rstrip("/"), _why(error))
            self._tell(count)

    def _facts(self, entry: os.DirEntry[str], ext: str) -> tuple[int, int, str | None]:
        """Size, modification time, and why a file cannot be packed; a size below 0 for what is no file."""
        try:
            facts = entry.stat()
        except OSError as error:
            return 0, 0, _why(error)
        if not stat.S_ISREG(facts.st_mode):
            return -1, 0, None
        why = leads_out(entry.path, self._allowed) if entry.is_symlink() else None
        why = why or self._why_not(facts.st_size, ext)
        if why is None and self._ask and not os.access(entry.path, os.R_OK, effective_ids=True):
            why = "Permission denied"
        return facts.st_size, facts.st_mtime_ns, why

    def _why_not(self, size: int, ext: str) -> str | None:
        """Why a file of this size and kind cannot be packed."""
        if not size and ext.removesuffix(".gz") not in TEXTS:
            return "it is empty"
        if size > self._most:
            return f"its {size} bytes are more than readers take, which is {self._most} (max_member_bytes)"
        return None


def allowed(folder: str, follow: str | None) -> list[str]:
    """Where the symbolic links of a folder may lead: to what is in it, and in the folder ``follow``."""
    return [os.path.realpath(each) for each in (folder, follow) if each is not None]


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
