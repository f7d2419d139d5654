"""Shard URLs: what a user writes becomes a sequence that is expanded one URL at a time.

``"data-{000000..999999}.tar"`` names a million shards; the sequence holds the pattern, not the names.
"""

from __future__ import annotations

import glob
import itertools
import logging
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from typing import Protocol, overload

from streampipe.counters import counters
from streampipe.errors import ConfigError, StreampipeError
from streampipe.source.location import has_query, local_path, redact

log = logging.getLogger("streampipe")

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz")
_ARCHIVE = re.compile(r"\.(tar|tgz|zip|7z|rar)(\W|\Z)", re.IGNORECASE)  # what looks like a shard, but is none
PACK_LOCK = ".pack.lock"  # what pack leaves in the folder it writes: hidden, and nobody's shard
_JUNK = ("__MACOSX",)
_WEB = ("http://", "https://")
_NO_LISTING = (
    ": web servers have no folders that can be relied on; name the shards, as in https://.../{00000..01999}.tar"
)
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\Z")
_LETTERS = re.compile(r"(?:([a-z])\.\.([a-z])|([A-Z])\.\.([A-Z]))(?:\.\.(-?\d+))?\Z")
_JOINT = re.compile(r"::(?![^\[\]]*\])")  # but not within the brackets of an IPv6 address
_CHAIN = re.compile(r"[a-z][a-z0-9+_-]*\Z")  # "simplecache" in "simplecache::s3://...": fsspec's chaining


def is_shard(name: str) -> bool:
    """Whether a name ends as those of shards do.

    >>> is_shard("00000.TAR"), is_shard("00000.tar.xz"), is_shard("00000.parquet")
    (True, True, False)
    """
    return name.lower().endswith(SHARD_SUFFIXES)


def stem_of(url: str) -> str:
    """A shard's URL without the ending that says that it is one.

    >>> stem_of("s3://b/00000.tar.gz"), stem_of("00000.TAR")
    ('s3://b/00000', '00000')
    """
    if url.endswith(".tar"):  # nearly all; no other ending ends so
        return url[:-4]
    lower = url.lower()
    suffix = max((each for each in SHARD_SUFFIXES if lower.endswith(each)), key=len, default="")
    return url[: len(url) - len(suffix)]


class Lister(Protocol):
    """Looks into a store: the names that match a glob, or None where the path is no directory."""

    def glob(self, pattern: str) -> list[str]: ...
    def is_directory(self, path: str) -> bool: ...


class _Range:
    """The texts of ``{first..last..step}``, zero-padded as the first or last is written."""

    def __init__(self, first: str, last: str, step: str | None) -> None:
        self.values = _through(int(first), int(last), step)
        padded = any(len(text.lstrip("-")) > 1 and text.lstrip("-").startswith("0") for text in (first, last))
        self.width = max(len(first), len(last)) if padded else 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> str:
        return f"{self.values[i]:0{self.width}d}"

    def __iter__(self) -> Iterator[str]:
        return map(f"%0{self.width}d".__mod__, self.values)


def _through(first: int, last: int, step: str | None) -> range:
    """The numbers from the first to the last, up or down."""
    size = abs(int(step or 1)) or 1
    return range(first, last + 1, size) if first <= last else range(first, last - 1, -size)


class _Product:
    """A pattern: its parts one after the other, each a choice of texts. The last part turns fastest, as in a shell."""

    def __init__(self, parts: list[_Range | _Product | _Union | list[str]]) -> None:
        self.parts = parts
        self.size = 1
        for part in parts:
            self.size *= len(part)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> str:
        texts = []
        for part in reversed(self.parts):
            i, digit = divmod(i, len(part))
            texts.append(part[digit])
        return "".join(reversed(texts))

    def __iter__(self) -> Iterator[str]:
        """The same one after the other, as fast as it goes: where one part is a choice it is not held as a whole."""
        choices = [part for part in self.parts if len(part) != 1]
        if len(choices) != 1:
            return map("".join, itertools.product(*self.parts))
        texts = (part if part is choices[0] else itertools.repeat(part[0]) for part in self.parts)
        return map("".join, zip(*texts, strict=False))


class _Union:
    """Several choices, one after the other."""

    def __init__(self, choices: Sequence[_Product | _Union | list[str]]) -> None:
        self.choices = choices
        self.ends = list(itertools.accumulate(len(choice) for choice in choices))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, i: int) -> str:
        which = bisect_right(self.ends, i)
        return self.choices[which][i - (self.ends[which - 1] if which else 0)]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self.choices)


class ShardList(Sequence[str]):
    """The URLs of a dataset's shards, in order, made when asked for.

    >>> shards = ShardList(["s3://b/{a,b}-{000..499}.tar", "more.tar"])
    >>> len(shards), shards[0], shards[999], shards[1000]
    (1001, 's3://b/a-000.tar', 's3://b/b-499.tar', 'more.tar')
    """

    def __init__(self, urls: Iterable[str]) -> None:
        # Plain names stay one list: a list of a million must not become a million patterns.
        choices: list[_Product | _Union | list[str]] = []
        for url in urls:
            if "{" in url:
                choices.append(_pattern(url))
            elif choices and isinstance(choices[-1], list):
                choices[-1].append(url)
            else:
                choices.append([url])
        self._urls = _Union(choices)

    @classmethod
    def of(cls, names: Iterable[str]) -> ShardList:
        """Of names as they are: braces in them are no pattern."""
        return cls.joined([list(names)])

    @classmethod
    def joined(cls, choices: Iterable[str | list[str]]) -> ShardList:
        """Of patterns, and lists of names as they are, one after the other."""
        made = cls(())
        made._urls = _Union([_pattern(each) if isinstance(each, str) else each for each in choices])
        return made

    def __len__(self) -> int:
        return len(self._urls)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self._urls[j] for j in range(len(self))[i]]
        return self._urls[range(len(self))[i]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._urls)

    def __repr__(self) -> str:
        if not len(self):
            return "ShardList([])"
        first, last = redact(self[0]), redact(self[-1])
        return f"<{len(self)} shards, {first!r} to {last!r}>" if len(self) > 1 else f"<1 shard, {first!r}>"


def _pattern(text: str) -> _Product:
    try:
        return _parse(text)
    except RecursionError:
        raise ConfigError(f"{redact(text)[:60]!r}... nests its braces too deep; list the shards instead") from None


def _parse(pattern: str) -> _Product:
    """A brace pattern as nested choices: ranges of numbers or letters, and lists. Other braces stand for themselves, as
    in a shell.
    """
    parts: list[_Range | _Product | _Union | list[str]] = []
    at = 0
    while (start := pattern.find("{", at)) >= 0:
        end = _closing(pattern, start)
        if end is None:
            break
        inside = pattern[start + 1 : end]
        parts.append([pattern[at:start]])
        options = _split(inside)
        if found := _RANGE.match(inside):
            parts.append(_Range(*found.groups()))
        elif found := _LETTERS.match(inside):
            first, last = (each for each in found.groups()[:4] if each)
            parts.append([*map(chr, _through(ord(first), ord(last), found[5]))])
        elif len(options) > 1:
            parts.append(_Union([_parse(option) for option in options]))
        else:
            parts.append(_Product([["{"], _parse(inside), ["}"]]))
        at = end + 1
    parts.append([pattern[at:]])
    return _Product(parts)


def _closing(text: str, start: int) -> int | None:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return i
    return None


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside inner braces."""
    parts, depth, at = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(text[at:i])
            at = i + 1
    return [*parts, text[at:]]


def split_joined(urls: str) -> list[str]:
    """Split ``a::b`` into its parts, and leave fsspec's chains (``simplecache::s3://...``) whole.

    >>> split_joined("a-{0..3}.tar::simplecache::s3://b/c.tar")
    ['a-{0..3}.tar', 'simplecache::s3://b/c.tar']
    >>> split_joined("http://[::1]:80/a.tar::http://[fe80::2]/b.tar")
    ['http://[::1]:80/a.tar', 'http://[fe80::2]/b.tar']
    """
    parts: list[str] = []
    chain = ""
    for part in _JOINT.split(urls):
        if _CHAIN.match(part):
            chain += part + "::"
        else:
            parts.append(chain + part)
            chain = ""
    return [part for part in [*parts, chain.removesuffix("::")] if part]


def expand(urls: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], lister: Callable[[], Lister]) -> ShardList:
    """The shards that ``urls`` names: a URL or several joined by ``::``, or an iterable of URLs; each may hold brace
    ranges, a glob, or be a directory, and begin with ``~`` or hold ``$VAR`` or ``${VAR}``. A local name that is there
    as it stands is taken as it stands, whatever signs it holds. The store is asked (``lister``) only for globs and
    directories. Hidden files and what is no shard are left out of these, counted and logged.
    """
    names = split_joined(urls) if isinstance(urls, str) else names_of(urls)
    found: list[str | list[str]] = []
    for given in names:
        name = given if _is_there(given) else _filled_in(given)
        there = _is_there(name)
        if not there and _is_glob(name):
            # A brace pattern around a glob is expanded first: stores know no braces.
            found.append(_matches(list(_each(_pattern(name))), lister()))
        elif (there or not is_shard(name)) and _may_be_folder(name) and lister().is_directory(name):
            found.append(_matches([glob.escape(name.rstrip("/")) + "/*"], lister(), shards_only=True))
        elif there:
            found.append([name])
        else:
            found.append(name)
    shards = ShardList.joined(_runs(found))
    if not len(shards):
        shown = redact(urls) if isinstance(urls, str) else [redact(name) for name in names][:3]
        raise ConfigError(f"no shards in {shown!r}: nothing there ends in one of {', '.join(SHARD_SUFFIXES)}")
    return shards


def _runs(found: Iterable[str | list[str]]) -> Iterable[str | list[str]]:
    """The same, plain names that follow each other in one list: a million of them must not be a million patterns."""
    run: list[str] = []
    for each in found:
        if isinstance(each, str) and "{" in each:
            if run:
                yield run
            yield each
            run = []
        else:
            run += [each] if isinstance(each, str) else each
    if run:
        yield run


def _each(pattern: _Product) -> Iterable[str]:
    return pattern


def _is_there(name: str) -> bool:
    """Whether a local file or folder has this very name; asked only where the name could mean something else."""
    path = local_path(name) if "://" not in name and any(char in name for char in "{}*?[]$~") else None
    return path is not None and os.path.lexists(path)


def _filled_in(name: str) -> str:
    """A name with the user's folder for ``~``, and variables of the environment in it."""
    if "$" in name and not has_query(name):
        name = os.path.expandvars(name)
    return os.path.expanduser(name) if name.startswith("~") else name


def _may_be_folder(name: str) -> bool:
    return "://" not in name or name.endswith("/")


def names_of(urls: object, advice: str = "") -> list[str]:
    """What was given for one or several shards, as texts. ``advice`` ends the message where it is something else.

    Raises:
        ConfigError: it is neither a text nor a path nor several of these.
    """
    if isinstance(urls, (str, os.PathLike)):
        return [str(urls)]
    if isinstance(urls, (bytes, Mapping)) or not isinstance(urls, Iterable):
        raise ConfigError(f"urls is a folder, a pattern or a list of shards, not {urls!r:.80}{advice}")
    names = list(urls)
    odd = [name for name in names if not isinstance(name, (str, os.PathLike))]
    if odd:
        raise ConfigError(f"a shard's URL is a text or a path, not {odd[0]!r:.80}{advice}")
    return [str(name) for name in names]


def _is_glob(name: str) -> bool:
    return "*" in name or ("://" not in name and any(char in name for char in "?["))


def _matches(patterns: Sequence[str], lister: Lister, shards_only: bool = False) -> list[str]:
    """What matches, sorted, without hidden files; and of what is left the shards alone, if there are any."""
    found = sorted({url for pattern in patterns for url in _found(pattern, lister)})
    meant = {part for pattern in patterns for part in pattern.split("/")}
    visible = [url for url in found if not _is_hidden(url, meant)]
    shards = [url for url in visible if is_shard(url)]
    taken = shards if shards or shards_only else visible
    others = [url for url in set(visible) - set(taken) if _ARCHIVE.search(url.rpartition("/")[2])]
    hidden = sorted(url for url in set(found) - set(visible) if url.rpartition("/")[2] != PACK_LOCK)
    _say("hidden files", hidden, "they begin with a dot, or lie in a hidden folder")
    _say("archives of other kinds", sorted(others), f"a shard ends in one of {', '.join(SHARD_SUFFIXES)}")
    if not taken:
        shown = patterns[0].replace("[[]", "[") if shards_only else patterns[0]
        raise ConfigError(
            f"no shard matches {redact(shown)!r}"
            + (f" (of {len(found)} files that do, none is a shard)" if found else "")
            + (_NO_LISTING if patterns[0].startswith(_WEB) else ": check the folder and the pattern")
        )
    return taken


def _found(pattern: str, lister: Lister) -> list[str]:
    """What matches a pattern; of a relative one the folder that it starts from is no part."""
    here = os.getcwd() if "://" not in pattern and not os.path.isabs(pattern) else ""
    if not any(char in here for char in "*?["):
        try:
            return lister.glob(pattern)
        except StreampipeError as error:
            if not pattern.startswith(_WEB):
                raise
            raise type(error)(f"{error}{_NO_LISTING}") from error
    return [os.path.relpath(each) for each in lister.glob(f"{glob.escape(here)}/{os.path.normpath(pattern)}")]


def _is_hidden(url: str, meant: set[str]) -> bool:
    """Whether a part of a URL begins with a dot, or is a system's own, and was not written so in the pattern."""
    odd = (part for part in url.split("/") if part[:1] == "." or part in _JUNK)
    return any(part not in meant and not any(each[:1] == "." and fnmatch(part, each) for each in meant) for part in odd)


def _say(what: str, left_out: Sequence[str], why: str) -> None:
    """Count and log what is left out of a listing."""
    if left_out:
        counters.add("listing", f"{what} passed over", len(left_out))
        log.warning("%d %s are passed over (%s): %s, ...", len(left_out), what, why, redact(left_out[0]))
