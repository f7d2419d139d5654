"""Ask a dataset: how many samples of each shard does a question choose, by group?

Strategy: an answer that is kept is taken (``index.answers``). Else it is made: of the shards whose facts lie together,
from those files (``index.merged``); of all others from their own indexes, one by one. Then it is kept. What a
question finds does not depend on which of the ways it took, and is counted once in each.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice, starmap
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from streampipe.counters import counters
from streampipe.errors import IndexMismatch, ShardMissing, SourceError
from streampipe.index import Finder, ShardIndex
from streampipe.index.answers import Answers, Tally, fingerprint
from streampipe.index.dataset import Known, known_of
from streampipe.index.known import known_counts
from streampipe.index.merged import Untold, Wanted, facts_of
from streampipe.pool import Pool
from streampipe.source import local_path, redact
from streampipe.urls import ShardList, is_shard

T = TypeVar("T")
_THREADS, _FILES = 16, 4
log = logging.getLogger("streampipe")
_FEW = 64  # local shards that are as fast looked at as remembered
_LONG = 256  # rows a shard from which on each is counted for itself


class Uncounted(Exception):
    """Why the samples of a dataset cannot be counted without reading it: planning must do without."""


class Found(NamedTuple):
    """What a question finds in some rows of shards, as in ``Tally``.

    Of ``numbers`` those whose names are a stage, a line end and a reason are to be counted whenever the answer is used.
    """

    counts: np.ndarray
    numbers: Counter[str]
    sums: np.ndarray
    first: tuple[int, int] | None = None
    most: np.ndarray | None = None


class Question(Protocol):
    """What is asked of samples: which are wanted, and in which of so many groups they are.

    ``columns`` are those of the index that it looks at; None: any. ``text`` and ``groups`` are part of what an answer
    is kept under.
    """

    @property
    def text(self) -> str: ...
    @property
    def groups(self) -> int: ...
    @property
    def columns(self) -> frozenset[str] | None: ...
    def find(self, index: ShardIndex, ends: np.ndarray) -> Found:
        """Of the rows of several shards, one after the other; ``ends``: where each shard's end."""
        ...


class All:
    """Every sample is wanted."""

    text = ""
    groups = 1
    columns = frozenset[str]()

    def find(self, index: ShardIndex, ends: np.ndarray) -> Found:
        """All rows of each shard."""
        return Found(np.diff(ends, prepend=0)[:, None], Counter(), np.zeros(1))


def per_shard(numbers: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The sum of the rows' numbers in each shard; of a mask, how many are true.

    >>> per_shard(np.array([1, 0, 1]), np.array([2, 2, 3])).tolist()
    [1, 0, 1]
    >>> per_shard(np.arange(2000) % 3 == 0, np.array([999, 999, 2000])).tolist()
    [333, 0, 334]
    """
    starts = np.concatenate([[0], ends[:-1]])
    some = ends > starts
    found = np.zeros(len(ends), np.int64)
    if numbers.dtype == bool and len(numbers) > _LONG * len(ends):
        found[:] = [np.count_nonzero(numbers[start:end]) for start, end in zip(starts, ends, strict=True)]
    elif some.any():
        numbers = numbers.view(np.int8) if numbers.dtype == bool else numbers
        found[some] = np.add.reduceat(numbers, starts[some], dtype=np.int64)
    return found


def ask(shards: ShardList, finder: Finder, question: Question, job: str | None = "") -> Tally:
    """The answer to a question about shards; local ones without an index are scanned. What it says is counted.

    ``job`` names what means the same data as long as it lives; None: they are no tars, so only ``finder`` knows them.

    Raises:
        Uncounted: a shard cannot be counted, or single samples of it cannot be read: it is compressed, read through
            an ``opener``, or remote without an index.
        IndexMismatch, ShardError: an index or a shard is damaged.
    """
    if job is None:
        tally = _made(shards, finder, question, Known.nothing(len(shards)))
        return _told(tally)
    check_countable(shards, finder)
    if len(shards) <= _FEW and all(local_path(url) is not None for url in shards):
        known = Known.nothing(len(shards))
        tally = _made(shards, finder, question, known, finder.find_for_reading)
    else:
        known = known_of(shards, finder)
        at_once = isinstance(question, All) and bool((known.rows >= 0).all())
        tally = _made(shards, finder, question, known) if at_once else _kept(shards, finder, question, known, job)
    return _told(tally)


def _told(tally: Tally) -> Tally:
    """The answer, with what it says counted: for the process, as others who have the same data do not ask again."""
    for (stage, what), number in said(tally).items():
        counters.add_for_all(stage, what, number)
    return tally


def said(tally: Tally) -> dict[tuple[str, str], int]:
    """What stages drop of each epoch, and why, as an answer says it."""
    names = ((name.partition("\n"), number) for name, number in tally.numbers.items())
    return {(stage, what): number for (stage, line_end, what), number in names if line_end}


def _kept(shards: ShardList, finder: Finder, question: Question, known: Known, job: str) -> Tally:
    identity = known.identity or (job if finder.missing_shards == "error" else "")
    if not identity:
        return _made(shards, finder, question, known)
    beside = known.beside if known.identity else None
    mark, shape = _mark(identity, shards, finder, question), (len(shards), question.groups)
    found = once(finder, beside, mark, shape, lambda: _made(shards, finder, question, known))
    assert found is not None
    return found


def _mark(identity: str, shards: ShardList, finder: Finder, question: Question) -> str:
    """What an answer is kept under."""
    return fingerprint(identity, (len(shards), question.groups), question.text, repr(finder.limits))


def where_kept(shards: ShardList, finder: Finder, question: Question) -> str | None:
    """The file that an answer is kept in for later jobs; None where it is not: every job looks at a few local shards
    itself, and of some data nothing tells one state from another.
    """
    known = known_of(shards, finder)
    if known.identity is None:
        return None
    return Answers(finder.source, known.beside).place(_mark(known.identity, shards, finder, question))


def once(
    finder: Finder, beside: str | None, mark: str, shape: tuple[int, int], make: Callable[[], Tally | None]
) -> Tally | None:
    """The answer that is kept under ``mark``; if there is none, that which ``make`` gives, which is kept then."""
    answers = Answers(finder.source, beside)
    found = answers.find(mark, shape)
    if found is None:
        with answers.alone(mark):
            found = answers.find(mark, shape)  # somebody else may have made it meanwhile
            if found is None and (found := make()) is not None:
                answers.keep(mark, found)
    return found


def counted_by_others(shards: ShardList, finder: Finder, job: str) -> np.ndarray:
    """The samples of each shard, by what other tools left beside them; looked up once in a job.

    Raises:
        Uncounted: nobody counted them.
    """

    def make() -> Tally | None:
        counts = known_counts(shards, finder.source) if finder.source.opener is None else None
        return None if counts is None else Tally(counts[:, None].astype(np.int64), np.zeros(1))

    if local_path(shards[0]) is None and finder.source.opener is None:
        found = once(finder, None, fingerprint(job, "by others"), (len(shards), 1), make)
    else:
        found = make()
    if found is None:
        raise Uncounted("nobody counted the samples of its shards")
    return found.counts[:, 0].astype(np.int64)


def _made(
    shards: ShardList,
    finder: Finder,
    question: Question,
    known: Known,
    find: Callable[[str, Collection[str] | None], ShardIndex | None] | None = None,
) -> Tally:
    """The answer, made anew. ``find``: the index of a shard, as far as these columns."""
    find = find or (lambda url, columns: finder.find(url, columns=columns))
    counts = np.zeros((len(shards), question.groups), np.int32)
    tally = Tally(counts, np.zeros(question.groups))
    samples, sizes = known.column("samples"), known.column("bytes")
    left = known.rows < 0
    if isinstance(question, All):
        counts[:, 0] = samples
    else:
        left[:] = True
        for shards_of_file, found in _from_merged(known, finder, question):
            for each, at in found:
                add(tally, each, at)
            left[shards_of_file] = False

    def one(url: str) -> tuple[Found, int, int]:
        found = find(url, question.columns)
        if found is None:
            raise Uncounted(finder.why_not(url))
        return question.find(found, np.array([len(found)])), len(found), found.shard_bytes

    others = np.flatnonzero(left)
    everything = len(others) == len(shards)
    urls: Sequence[str] = shards if everything else [shards[i] for i in others.tolist()]
    there = not everything
    for i, (own, rows, size) in zip(others.tolist(), _in_order(one, urls), strict=True):
        add(tally, own, np.array([i]))
        samples[i], sizes[i] = rows, size
        there |= size > 0
    if finder.missing_shards == "skip" and not there:
        raise none_there(shards)
    tally.whole = int(sizes.sum())
    tally.wanted = int((counts.sum(1, dtype=np.int64) * sizes // np.maximum(samples, 1)).sum())
    return tally


def _from_merged(
    known: Known, finder: Finder, question: Question
) -> Iterator[tuple[np.ndarray, list[tuple[Found, np.ndarray]]]]:
    """Of each file with facts of many shards: the numbers of these, and what is found in them.

    A file that does not have what is asked for, or cannot be read, is passed over: its shards have indexes.
    """

    def one(job: tuple[Wanted, np.ndarray]) -> list[tuple[Found, np.ndarray]] | None:
        wanted, at = job
        number = np.full(len(wanted.samples), -1)
        number[wanted.shards] = at
        try:
            facts = facts_of(wanted, finder.source, finder.limits, question.columns)
            # without a name for each, which would be kept while the next one is read
            return list(starmap(lambda each, ends, at: (question.find(each, ends), number[at]), facts))
        except Untold:
            return None
        except (IndexMismatch, SourceError) as error:
            counters.add("index", "files of merged facts passed over")
            log.warning("%s; it is passed over: the shards' own indexes are read", error)
            return None

    jobs = list(known.merged())
    with Pool(_FILES, thread_name_prefix="streampipe-facts") as pool:
        done = tqdm(pool.map(one, jobs), total=len(jobs), unit=" files", desc="counting samples", delay=2)
        for (_, at), found in zip(jobs, done, strict=True):
            if found is not None:
                yield at, found


def add(tally: Tally, found: Found, at: np.ndarray) -> None:
    """Add what was found in the shards of these numbers."""
    tally.counts[at] = found.counts
    tally.sums += found.sums
    tally.numbers.update(found.numbers)
    if found.most is not None:
        tally.most = found.most if tally.most is None else np.maximum(tally.most, found.most)
    if found.first is not None:
        first = int(at[found.first[0]]), found.first[1]
        tally.first = first if tally.first is None else min(tally.first, first)


def _in_order(one: Callable[[str], T], urls: Sequence[str]) -> Iterator[T]:
    """A fact of each shard, several at once, in the order of the shards."""
    if not urls:
        return
    first = one(urls[0])  # the usual case of no index at all costs one look, not sixteen
    pool = Pool(_THREADS, thread_name_prefix="streampipe-index")
    try:
        rest = chain([first], pool.map(one, islice(urls, 1, None)))  # the first is not looked at, or counted, twice
        yield from tqdm(rest, total=len(urls), unit=" shards", desc="counting samples", delay=2)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def check_countable(shards: ShardList, finder: Finder) -> None:
    """Refuse shards of which single samples cannot be read.

    Raises:
        Uncounted: they are compressed, or read through an ``opener``.
    """
    if finder.source.opener is not None:
        raise Uncounted("shards come from opener=, which reads forward only")
    for url in some_of(shards):
        if is_shard(url) and not url.lower().endswith(".tar"):
            raise Uncounted(f"{redact(url)} is compressed: single samples of it cannot be read")


def none_there(shards: ShardList) -> ShardMissing:
    """The error where missing shards are skipped, and all are missing."""
    return ShardMissing(f"none of the {len(shards)} shards is there, {redact(shards[0])} and so on; check the URL")


def some_of(shards: ShardList) -> Iterator[str]:
    """All shards of a short list; of a long one (a pattern, mostly) the first and last."""
    yield from shards if len(shards) <= 10_000 else (shards[0], shards[len(shards) - 1])
