"""A dataset's repository on the Hugging Face hub, named by itself: which of its files are the shards of which split.

The rules are those of ``datasets``. The card (README.md) may name configs and their files. Where it does not, names do:
``data/NAME-00000-of-00010`` is split NAME; else a folder or a word of the file's name says train, validation or test;
where nothing says so, all is train.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence

from streampipe.card import MOST, Config, config_among, configs_of
from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.source import Source, local_path, redact
from streampipe.urls import is_shard

log = logging.getLogger("streampipe")

_REPOSITORY = re.compile(
    r"hf://datasets/[^/@]+/[^/@]+(@(refs/(pr|convert)/[^/]+|[^/]+))?/?",
)
_CARD = "README.md"
_SHARDED = re.compile(r"data/([\w.]+)-\d{5}-of-\d{5}\.")
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_OF_ALL = re.compile(r"(manifest|facts-[0-9a-f]{32})\.parquet")
_BETWEEN = re.compile(r"[-._ /0-9]+")


def is_repository(url: str) -> bool:
    """Whether a URL is a whole repository of data.

    >>> is_repository("hf://datasets/o/d"), is_repository("hf://datasets/o/d@v1/"), is_repository("hf://datasets/o/d/a.tar")
    (True, True, False)
    """
    return _REPOSITORY.fullmatch(url) is not None


def shards_of(
    url: str, source: Source, *, split: str | None = None, config: str | None = None, format: str | None = None
) -> list[str]:
    """The shards of a repository's split: tars or Parquet files, sorted. A local folder is a clone of one.

    Raises:
        ConfigError: there are none; there are several splits or configs and none was named, or there is no such; or
            both kinds.
    """
    root = url.rstrip("/")
    names = _names(root, source)
    said = _said(root, names, config, source)
    if said is not None and said.splits:
        of_split = said.chosen(names)
        names = sorted({name for each in of_split.values() for name in each})
    elif said is not None and said.folder:
        names = [name for name in names if name.startswith(f"{said.folder}/")]
    kind, found = _kind(root, names, format)
    if said is not None and said.splits:
        there = set(found)
        splits = {split: [name for name in each if name in there] for split, each in of_split.items()}
    else:
        splits = by_split(found)
    if split is None and len(splits) > 1:
        shown = ", ".join(f"{name!r} ({len(each)} shards)" for name, each in splits.items())
        raise ConfigError(f"{redact(root)} has the splits {shown}: say which, as in split={next(iter(splits))!r}")
    if split is not None and split not in splits:
        where = "its README.md names them" if said is not None else "they are found by the names of files and folders"
        raise ConfigError(
            f"{redact(root)} has no split {split!r}, but {', '.join(map(repr, splits))}; {where}, and others are named "
            f"by a pattern: {redact(root)}/PATH/*.{kind}"
        )
    chosen = split or next(iter(splits))
    if not splits[chosen]:
        raise ConfigError(f"{redact(root)}: its README.md names no file of split {chosen!r} that is there as {kind}")
    left = len(found) - len({name for each in splits.values() for name in each})
    if left:
        counters.add("listing", "files of no split passed over", left)
        log.warning("%d files of %s are passed over: their names name no split", left, redact(root))
    return [f"{root}/{name}" for name in splits[chosen]]


def _names(root: str, source: Source) -> list[str]:
    """The files below a repository, as paths below it."""
    path = local_path(root)
    if path is None:
        below = root + "/"
        found = [name.removeprefix(below) for name in source.glob(f"{root}/**") if name.startswith(below)]
    else:
        walked = os.walk(os.path.expanduser(path))
        found = [
            os.path.relpath(os.path.join(at, name), os.path.expanduser(path)) for at, _, all in walked for name in all
        ]
        found = [name.replace(os.sep, "/") for name in found]
    return [name for name in found if not _is_hidden(name)]


def _said(root: str, names: Sequence[str], config: str | None, source: Source) -> Config | None:
    """What the repository's card says of the files of a config, if it says anything."""
    try:
        text = source.read_if_there(f"{root}/{_CARD}", MOST) if _CARD in names else None
        configs = configs_of(text or b"")
        return config_among(configs, config) if configs or config is not None else None
    except ConfigError as error:
        raise ConfigError(f"{redact(root)}/{_CARD} {error}") from None


def by_split(names: Iterable[str]) -> dict[str, list[str]]:
    """Files by the split that their names name; train, if none does.

    >>> by_split(["data/train-00000-of-00001.parquet", "data/dpo-00000-of-00001.parquet"])
    {'train': ['data/train-00000-of-00001.parquet'], 'dpo': ['data/dpo-00000-of-00001.parquet']}
    >>> by_split(["val/0.tar", "training_0.tar", "training_1.tar", "more.tar"])
    {'train': ['training_0.tar', 'training_1.tar'], 'validation': ['val/0.tar']}
    >>> by_split(["0001.tar", "0000.tar"])
    {'train': ['0000.tar', '0001.tar']}
    """
    every = sorted(names)
    sharded = {name: found[1] for name in every if (found := _SHARDED.match(name))}
    said = sharded or {name: split for name in every if (split := _by_word(name))}
    splits: dict[str, list[str]] = {}
    for name in every:
        if name in said:
            splits.setdefault(said[name], []).append(name)
    first = [name for name in _WORDS if name in splits]
    return {name: splits[name] for name in (*first, *(each for each in splits if each not in first))} or (
        {"train": every} if every else {}
    )


def _by_word(name: str) -> str | None:
    words = _BETWEEN.split(name.lower().replace("_", "-"))
    return next((split for split, known in _WORDS.items() if any(word in known for word in words)), None)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in name.split("/"))


def _kind(root: str, names: Sequence[str], format: str | None) -> tuple[str, list[str]]:
    tars = [name for name in names if is_shard(name)]
    folders = {name.rpartition("/")[0] for name in tars}
    tables = [name for name in names if name.endswith(".parquet") and not name.endswith(".index.parquet")]
    kinds = {"tar": tars, "parquet": [name for name in tables if not _is_of_tars(name, folders)]}
    there = [kind for kind, found in kinds.items() if found]
    if format is not None:
        there = [kind for kind in there if kind == format]
    if len(there) > 1:
        raise ConfigError(f"{redact(root)} has tars and Parquet files: say which, by format='tar' or format='parquet'")
    if not there:
        what = "shards (.tar) and no Parquet files" if format is None else f"files of format {format!r}"
        raise ConfigError(f"{redact(root)} has no {what}")
    return there[0], kinds[there[0]]


def _is_of_tars(name: str, folders: set[str]) -> bool:
    """Whether a file is what ``streampipe index`` puts down of all tars of a folder: it holds no samples."""
    folder, _, base = name.rpartition("/")
    return folder in folders and _OF_ALL.fullmatch(base) is not None
