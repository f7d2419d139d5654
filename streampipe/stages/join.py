"""``join``: more about every sample, from a file beside its shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from streampipe.beside import Beside
from streampipe.captions import Fields
from streampipe.context import Run, Sample, where
from streampipe.counters import counters
from streampipe.errors import ConfigError, StageError
from streampipe.sidecar import Columns, Place, Rows, read
from streampipe.source import redact
from streampipe.stages.stage import stage

MISSING = ("error", "keep", "drop")


def _asked(
    sidecar: Any, on: Any = "key", columns: Any = None, missing: str = "error", prefix: str = "", beside: Any = None
) -> tuple[Place, str, str, Columns]:
    """The sidecar's place, its column of keys, the sample's key, and the columns, from the stage's parameters."""
    if missing not in MISSING:
        raise ConfigError(f"join: missing is one of {', '.join(MISSING)}, not {missing!r}")
    pair = (on, "__key__" if on in ("key", "__key__") else on) if isinstance(on, str) else on
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(each, str) and each for each in pair)):
        raise ConfigError(f"join: on is a column, or a column and the sample's key for it, not {on!r}")
    if not isinstance(prefix, str) or prefix.startswith("__"):
        raise ConfigError(f"join: prefix is what fields begin with, not {prefix!r}")
    return Place(sidecar), *pair, _by_new_name(columns)


@stage(views=True, check=_asked)
def join(
    samples: Iterable[Sample],
    sidecar: str | os.PathLike[str] | Callable[[str], str | None],
    on: str | tuple[str, str] = "key",
    columns: str | Sequence[str] | Mapping[str, str] | None = None,
    missing: str = "error",
    prefix: str = "",
    beside: Beside | None = None,
    *,
    run: Run,
) -> Iterator[Sample]:
    """The sample with the values that a sidecar has for it as fields: recaptions, scores, embeddings, latents.

    A sidecar is read once for each shard in use, whole, and held as long as the shard is; so several are in memory in a
    shuffled stream, and one for all shards is held by every worker. It is read as the shards are: remote too, with the
    stream's storage options.

    Args:
        sidecar: ``"{stem}.recap.json"``, ``{stem}`` being the shard's URL without ``.tar`` (``{folder}/{name}`` are its
            parts); a function from the shard's URL to the sidecar's (None: it has none); or one file for all shards.
            By its ending: ``.json`` (an object of rows by key, or a list of rows), ``.jsonl``, ``.parquet``, or a
            ``.tar``, whose members become fields. Rows that are no objects have one column, ``value``.
        on: the sidecar's column of keys. ``"key"`` (or ``__key__``) is matched with the sample's key; any other column
            with the sample's field or json value of that name (as a key of ``caption`` is found); ``("id",
            "json.uid")`` names both.
        columns: those to take, or ``{"new name": "column"}``; all, if none are named.
        missing: where the sidecar has no row for a sample: ``"error"``, ``"keep"`` it with None in every column, or
            ``"drop"`` it; both counted.
        prefix: before the names of the new fields.

    Lists of numbers become numpy arrays (in Parquet of the column's type), other values Python's, members bytes.

    Raises:
        ShardMissing: a shard's sidecar is not there.
        IndexMismatch: a sidecar is damaged, or lacks a column.
        DuplicateKey: a key has two rows.
        ConfigError: a sample has a field of that name already.
        StageError: there is no row for a sample.
    """
    place, key_column, key_of, wanted = _asked(sidecar, on, columns, missing, prefix)
    beside = beside or Beside()
    known: dict[str, str | None] = {}  # the sidecars of the last shards: a function need not be asked for every sample
    for sample in samples:
        shard = beside.shard_of(sample, run)
        if shard not in known:
            if len(known) >= 1000:
                known.clear()
            known[shard] = place(shard)
        url = known[shard]
        rows: Rows | None = None
        if url is not None:
            position = sample.get("__position__")
            rows = beside.held(
                url,
                lambda url=url, shard=shard: read(  # type: ignore[misc]
                    url, shard, beside.source, key_column, wanted, beside.limits
                ),
                position.epoch if position else 0,
                run,
                "sidecars read",
            )
        key = sample.get("__key__") if key_of == "__key__" else Fields(sample).value(key_of)
        found = rows.get(str(key)) if rows is not None and key is not None else None
        if found is None and missing != "keep":
            if missing == "drop":
                counters.add(run.stage, "without a row (sample dropped)")
            else:
                run.policy.failed(_no_row(sample, run, key_of, key, url, rows), run.stage)
            continue
        if found is None:
            counters.add(run.stage, "without a row (kept)")
            if rows is None and wanted is None:
                raise ConfigError(
                    f"stage {run.stage!r}, {where(sample)}: its shard has no sidecar, so which columns it lacks is not "
                    f"known; name them in columns="
                )
            found = dict.fromkeys(rows.columns if rows is not None else wanted or ())
        run.policy.passed(run.stage)
        yield _with(sample, found, prefix, run)


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
    if isinstance(columns, str):
        columns = columns.split(";")
    named = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    if not named or not all(isinstance(name, str) and name for pair in named.items() for name in pair):
        raise ConfigError(f"join: columns are names, or new names with their columns, not {columns!r}")
    return named


def _no_row(sample: Sample, run: Run, key_of: str, key: Any, url: str | None, rows: Rows | None) -> StageError:
    place = f"stage {run.stage!r}, {where(sample)}"
    advice = "say missing='keep' or missing='drop' if that is meant"
    if key is None:
        return StageError(f"{place}: it has no {key_of!r} to join on; name another in on=, or {advice}")
    if rows is None or url is None:
        return StageError(f"{place}: its shard has no sidecar; {advice}")
    some = ", ".join(map(repr, rows.some())) or "none"
    return StageError(f"{place}: {redact(url)} has no row for {str(key)!r} (it has {some}, ...); {advice}")
