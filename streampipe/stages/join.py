"""``join``: more about every sample, from a file beside its shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from streampipe.context import FILLED_IN, Run, Sample, epoch_of, key_of, where
from streampipe.counters import counters
from streampipe.errors import ConfigError, DecodeError, StageError
from streampipe.index.beside import Beside
from streampipe.index.sidecar import Columns, Place, Rows, read
from streampipe.source import redact
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.stages.values import MISSING, check_choice
from streampipe.values import Fields

_COUNTED = "sidecars read"
_URLS = 1000  # shards whose sidecar's URL is remembered


def _asked(
    sidecar: Any, on: Any = "key", columns: Any = None, missing: str = "error", prefix: str = "", beside: Any = None
) -> tuple[Place, str, str, Columns]:
    """The sidecar's place, its column of keys, the sample's key, and the columns, from the stage's parameters."""
    check_choice("join", "missing", missing, MISSING)
    pair = (on, "__key__" if on in ("key", "__key__") else on) if isinstance(on, str) else on
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(each, str) and each for each in pair)):
        raise ConfigError(f"join: on is a column, or a column and the sample's key for it, not {on!r}")
    if not isinstance(prefix, str) or prefix.startswith("__"):
        raise ConfigError(f"join: prefix is what fields begin with, not {prefix!r}")
    return Place(sidecar), *pair, _by_new_name(columns)


@stage(rows="each", state="nothing", takes="samples", views=True, check=_asked)
def join(
    samples: Iterable[Sample],
    sidecar: str | os.PathLike[str] | Callable[[str], str | None],
    on: str | tuple[str, str] = "key",
    *,
    columns: str | Sequence[str] | Mapping[str, str] | None = None,
    missing: str = "error",
    prefix: str = "",
    beside: Beside | None = None,
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """The sample with the values that a sidecar has for it as fields: recaptions, scores, embeddings, latents.

    A sidecar is read once for each shard in use, whole, and held as long as the shard is; so several are in memory in a
    shuffled stream, and one for all shards is held by every worker. It is read as the shards are: remote too, with the
    stream's storage options.

    Args:
        sidecar: ``"{stem}.recap.json"``, ``{stem}`` being the shard's URL without ``.tar`` (``{folder}/{name}`` are its
            parts); a function from the shard's URL to the sidecar's (None: it has none); or one file for all shards.
            By its ending: ``.json`` (an object of rows by key, or a list of rows), ``.jsonl``, ``.csv`` and ``.tsv``
            (names in the first line; all values are texts), each perhaps with ``.gz`` behind, ``.parquet``, or a
            ``.tar``, whose members become fields. Rows that are no objects have one column, ``value``.
        on: the sidecar's column of keys. ``"key"`` (or ``__key__``) is matched with the sample's key; any other column
            with the sample's field or json value of that name (as a key of ``caption`` is found); ``("id",
            "json.uid")`` names both.
        columns: those to take, or ``{"new name": "column"}``; all, if none are named.
        missing: where the sidecar has no row for a sample: ``"error"``, ``"keep"`` it with None in every column, or
            ``"drop"`` it; both counted.
        prefix: before the names of the new fields.

    Lists of numbers become numpy arrays (in Parquet of the column's type), other values Python's, members bytes. Texts
    are read as ``decode`` reads them (``streampipe.decoding.text``).

    Raises:
        ShardMissing: a shard's sidecar is not there.
        IndexMismatch: a sidecar is damaged, or lacks a column.
        DuplicateKey: a key has two rows.
        ConfigError: a sample has a field of that name already.
        StageError: there is no row for a sample.
        DecodeError: the json that has a sample's key is damaged.
    """
    rows_of = _Sidecars(sidecar, on, columns, beside or Beside(), run)
    if run.fill and rows_of.is_remote:  # a batch of a plan: all of it is wanted, and its shards may be many
        samples = list(samples)
        rows_of.prepare(samples)
    drops = Drops(run, ", because the sidecar has no row for any; check on=")
    for sample in samples:
        rows = rows_of(sample)
        try:
            key = Fields(sample).value(rows_of.key)
        except DecodeError as error:
            run.policy.failed(DecodeError(f"stage {run.stage!r}, {where(sample)}: {error}"), run.stage)
            continue
        found = rows.get(str(key)) if rows is not None and key is not None else None
        if found is None and missing == "error":
            run.policy.failed(rows_of.no_row(sample, key, rows), run.stage)
            continue
        if found is None and missing == "drop":
            counters.add(run.stage, "without a row (sample dropped)", example=key_of(sample))
            drops.drop()
            continue
        if found is None:
            counters.add(run.stage, "without a row (kept)", example=key_of(sample))
            found = rows_of.nothing(sample, rows)
        run.policy.passed(run.stage)
        drops.keep()
        yield _with(sample, found, prefix, run)
    drops.end()


class _Sidecars:
    """From samples to the rows of their sidecars."""

    def __init__(self, sidecar: Any, on: Any, columns: Any, beside: Beside, run: Run) -> None:
        self.place, self.column, self.key, self.wanted = _asked(sidecar, on, columns)
        self.beside = beside
        self.run = run
        self._shards: dict[str, str] = {}  # of a sidecar
        self._urls: dict[str, str | None] = {}  # of a shard: a function need not be asked for every sample

    @property
    def is_remote(self) -> bool:
        """Whether the shards come from afar."""
        shards = self.beside.shards
        return shards is not None and self.beside.source.is_remote(shards[0])

    def __call__(self, sample: Sample) -> Rows | None:
        """The rows of a sample's sidecar; None if its shard has none."""
        url = self._url(sample)
        if url is None:
            return None
        rows: Rows = self.beside.held(url, self._read, epoch_of(sample), self.run, _COUNTED)
        return rows

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Read what samples need that comes from afar, several files at once."""
        urls = [url for url in map(self._url, samples) if url is not None and self.beside.source.is_remote(url)]
        if urls:
            self.beside.together(urls, self._read, epoch_of(samples[0]), self.run, _COUNTED)

    def nothing(self, sample: Sample, rows: Rows | None) -> dict[str, Any]:
        """None in every column."""
        if rows is None and self.wanted is None:
            raise ConfigError(
                f"stage {self.run.stage!r}, {where(sample)}: its shard has no sidecar, so which columns it lacks is "
                f"not known; name them in columns="
            )
        return dict.fromkeys(rows.columns if rows is not None else self.wanted or ())

    def no_row(self, sample: Sample, key: Any, rows: Rows | None) -> StageError:
        """The error for a sample without a row."""
        place = f"stage {self.run.stage!r}, {where(sample)}"
        advice = "say missing='keep' or missing='drop' if that is meant"
        url = self._url(sample)
        if key is None:
            return StageError(f"{place}: it has no {self.key!r} to join on; name another in on=, or {advice}")
        if rows is None or url is None:
            return StageError(f"{place}: its shard has no sidecar; {advice}")
        some = ", ".join(map(repr, rows.some())) or "none"
        return StageError(f"{place}: {redact(url)} has no row for {str(key)!r} (it has {some}, ...); {advice}")

    def _url(self, sample: Sample) -> str | None:
        shard = self.beside.shard_of(sample, self.run)
        if shard not in self._urls:
            if len(self._urls) >= _URLS:
                self._urls.clear()
                self._shards.clear()
            url = self._urls[shard] = self.place(shard)
            if url is not None:
                self._shards.setdefault(url, shard)
        return self._urls[shard]

    def _read(self, url: str) -> Rows:
        return read(url, self._shards.get(url, url), self.beside.source, self.column, self.wanted, self.beside.limits)


def _with(sample: Sample, found: Mapping[str, Any], prefix: str, run: Run) -> Sample:
    """The sample with the new fields."""
    joined = dict(sample)
    for name, value in found.items():
        if prefix + name in joined:
            raise ConfigError(
                f"stage {run.stage!r}, {where(sample)}: it has a field {prefix + name!r} already; say prefix= or "
                f"columns={{'new name': {name!r}}}"
            )
        joined[prefix + name] = value
    return joined


def _by_new_name(columns: str | Sequence[str] | Mapping[str, str] | None) -> Columns:
    if columns is None:
        return None
    given: Any = columns.split(";") if isinstance(columns, str) else columns
    pairs = list(given.items()) if isinstance(given, Mapping) else []
    pairs = [(name, name) for name in given] if isinstance(given, (list, tuple, set, frozenset)) else pairs
    named = dict(pairs) if all(isinstance(name, str) and name for pair in pairs for name in pair) else {}
    if not named:
        raise ConfigError(f"join: columns are names, or new names with their columns, not {columns!r}")
    return named
