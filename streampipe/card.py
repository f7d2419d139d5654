"""What a dataset's card says of its files: the ``configs`` in the YAML at the head of a repository's README.md.

``datasets`` reads them as is written here. A config (the hub says subset) has ``data_files``: patterns below the
repository, or below its ``data_dir``, by split. ``*`` matches within a folder, ``**`` folders too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import yaml

from streampipe.errors import ConfigError
from streampipe.spelling import similar

MOST = 4 << 20
"""Bytes of a README that are read at most."""
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # makes plain values alone; in C where that was built


class Config(NamedTuple):
    """The files of one config: patterns by split, in their order; none where their names say the splits."""

    folder: str
    splits: dict[str, list[str]]
    default: bool

    def chosen(self, names: Iterable[str]) -> dict[str, list[str]]:
        """The files of each split, sorted."""
        every = sorted(names)
        return {split: [name for name in every if _any(patterns, name)] for split, patterns in self.splits.items()}


def configs_of(readme: bytes) -> dict[str, Config]:
    """The configs that a README names; none where it names none.

    Raises:
        ConfigError: what stands there is no YAML, or not what ``datasets`` understands.

    >>> configs_of(b"---\\nconfigs:\\n- config_name: en\\n  data_files: en/*.tar\\n---\\n# A dataset")
    {'en': Config(folder='', splits={'train': ['en/*.tar']}, default=False)}
    """
    head = _HEAD.match(readme.decode("utf-8", "replace"))
    try:
        said = yaml.load(head[1], _LOADER) if head else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"begins with YAML that cannot be read: {' '.join(str(error).split())[:200]}") from None
    rows = said.get("configs") if isinstance(said, Mapping) else None
    if rows is None:
        return {}
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError("has configs that are no list; each is written with config_name and data_files")
    return {str(row.get("config_name", "default")): _config(row) for row in rows}


def config_among(configs: Mapping[str, Config], name: str | None) -> Config:
    """The config of a name; without one the only one, or the default.

    Raises:
        ConfigError: there is no such config, or several and none is the default.
    """
    known = ", ".join(map(repr, configs))
    if name is not None:
        if name not in configs:
            raise ConfigError(f"has no config {name!r}, but {known or 'none at all'}{similar(name, configs)}")
        return configs[name]
    default = [each for key, each in configs.items() if each.default or key == "default"]
    if len(configs) > 1 and len(default) != 1:
        raise ConfigError(f"has the configs {known}: say which, as in config={next(iter(configs))!r}")
    return default[0] if default else next(iter(configs.values()))


def _config(row: Mapping[str, Any]) -> Config:
    folder = str(row.get("data_dir") or "")
    given = row.get("data_files")
    listed = given if isinstance(given, list) else [] if given is None else [given]
    splits: dict[str, list[str]] = {}
    for each in listed:
        split, paths = (each.get("split", "train"), each.get("path")) if isinstance(each, Mapping) else ("train", each)
        for path in paths if isinstance(paths, list) else [paths]:
            if not isinstance(path, str):
                raise ConfigError(f"has data_files that are no pattern, and no split with a path: {path!r:.80}")
            if "://" in path:
                raise ConfigError(f"has data_files elsewhere, at {path!r:.80}: stream them by their URLs")
            splits.setdefault(str(split), []).append(posixpath.normpath(posixpath.join(folder, path)))
    return Config("" if folder in ("", ".") else posixpath.normpath(folder), splits, row.get("default") is True)


def _any(patterns: Iterable[str], name: str) -> bool:
    return any(_matches(pattern, name) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    """Whether a path matches a glob, part by part: its work is bounded, whatever the pattern.

    >>> [_matches("data/**/train*.tar", name) for name in ("data/train0.tar", "data/a/b/train1.tar", "train2.tar")]
    [True, True, False]
    """
    parts = pattern.split("/")
    reached = _past_any(parts, {0})  # how many parts of the pattern are matched, each way that it can be
    for folder in name.split("/"):
        on = {i if parts[i] == "**" else i + 1 for i in reached if i < len(parts) and fnmatchcase(folder, parts[i])}
        reached = _past_any(parts, on)
    return len(parts) in reached


def _past_any(parts: list[str], reached: set[int]) -> set[int]:
    """With the parts ``**`` that match nothing."""
    found = set(reached)
    for i, part in enumerate(parts):
        if part == "**" and i in found:
            found.add(i + 1)
    return found
