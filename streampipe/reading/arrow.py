"""Arrow files with images in them as a source of samples: what Hugging Face's ``datasets`` keeps on the disk.

Local files alone: they are mapped, so any row is had without reading those before it.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from streampipe.counters import counters
from streampipe.errors import ConfigError, CorruptShard
from streampipe.reading.numbered import Numbered
from streampipe.reading.rows import check_names, fields_of, values_of
from streampipe.source import Source, local_path, redact
from streampipe.urls import expand

_OPEN = 16  # files that are mapped at once
_KEYS = ("__key__", "key")
_CACHE = "cache-"


class Arrow(Numbered):
    """The rows of Arrow files (streams and files of record batches), each a sample. A record batch is a shard.

    Columns become fields as those of Parquet files do. A column ``__key__`` or ``key`` of texts gives the keys, else
    file and number of the row do.

    Args:
        urls: files, globs or folders of this machine.

    Raises:
        ConfigError: nothing is there, or it is remote. CorruptShard: a file is damaged.
    """

    def __init__(self, urls: str | os.PathLike[str] | Sequence[str], source: Source | None = None) -> None:
        given = [os.fspath(urls)] if isinstance(urls, (str, os.PathLike)) else list(urls)
        names = [name for url in given for name in _in_folder(url)]
        self.files = []
        for url in expand(names, lambda: source or Source()):
            path = local_path(url)
            if path is None:
                raise ConfigError(
                    f"{redact(url)} is remote: Arrow files are mapped, so copy them to this machine first"
                )
            self.files.append(path)
        self._now: OrderedDict[int, list[pa.RecordBatch]] = OrderedDict()
        self._places = [(file, batch) for file in range(len(self.files)) for batch in range(len(self._batches(file)))]
        self.shards: Sequence[str] = [f"{self.files[file]}#{batch}" for file, batch in self._places]
        self._counts = [self._batches(file)[batch].num_rows for file, batch in self._places]

    def __repr__(self) -> str:
        return (
            f"Arrow({len(self.files)} files, {os.path.basename(self.files[0])} to {os.path.basename(self.files[-1])})"
        )

    def counts(self) -> list[int]:
        """The rows of each record batch."""
        return self._counts

    def sample(self, shard: int, number: int) -> dict[str, Any]:
        """A row.

        Raises:
            CorruptShard: the file is damaged, or an image is a path without its bytes.
        """
        file, batch = self._places[shard]
        row = values_of(self._batches(file)[batch].slice(number, 1), self.files[file])[0]
        key = next((row.pop(name) for name in _KEYS if isinstance(row.get(name), str)), None)
        stem = os.path.basename(self.files[file]).rpartition(".")[0]
        place = f"{self.files[file]}, record batch {batch}, row {number}"
        key = key or f"{stem}/{batch:05d}-{number:06d}"
        return {"__key__": key, "__url__": self.files[file], **fields_of(row, place)}

    def _batches(self, file: int) -> list[pa.RecordBatch]:
        """The record batches of a file, which lie in it."""
        found = self._now.pop(file, None)
        if found is None:
            path = self.files[file]
            try:
                mapped = pa.memory_map(path)
                if mapped.read(6) == b"ARROW1":
                    reader = pa.ipc.open_file(mapped)
                    found = [reader.get_batch(number) for number in range(reader.num_record_batches)]
                else:
                    mapped.seek(0)
                    found = list(pa.ipc.open_stream(mapped))
            except (pa.ArrowException, OSError, ValueError) as error:
                raise CorruptShard(f"{path} cannot be read as Arrow ({error}); fetch or write it again") from error
            if found:
                check_names(found[0].schema.names, path)
        self._now[file] = found
        while len(self._now) > _OPEN:
            self._now.popitem(last=False)
        return found


def _in_folder(url: str) -> list[str]:
    """The files of a folder that ``datasets`` wrote; anything else as it is.

    Its ``state.json`` names them, where there is one (``save_to_disk``). What ``map`` and ``filter`` left beside them
    (``cache-...``) is what they made of the same rows.

    Raises:
        ConfigError: they are of several splits, as in the cache of ``load_dataset``.
    """
    folder = local_path(url)
    if folder is None or not os.path.isdir(folder):
        return [url]
    state = _said(folder, "state.json", "_data_files")
    if isinstance(state, list) and all(isinstance(each, dict) and "filename" in each for each in state):
        return [os.path.join(folder, each["filename"]) for each in state]
    names = sorted(name for name in os.listdir(folder) if name.endswith(".arrow"))
    found = [name for name in names if not name.startswith(_CACHE)]
    splits = [name for name in _said(folder, "dataset_info.json", "splits") or () if _of_split(name, found)]
    if len(splits) > 1:
        raise ConfigError(
            f"{folder} holds the splits {', '.join(map(repr, splits))}: name the files of one, as in "
            f"{folder}/*-{splits[0]}*.arrow"
        )
    if found and len(found) < len(names):
        counters.add("listing", "caches of datasets passed over", len(names) - len(found))
    return [os.path.join(folder, name) for name in found or names] or [f"{url}/*.arrow"]


def _said(folder: str, name: str, what: str) -> Any:
    """What a file of ``datasets`` in a folder says of something; None if there is none that does."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return json.load(file)[what]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_split(split: object, names: Sequence[str]) -> bool:
    """Whether some of the files are those of a split: ``NAME-SPLIT.arrow``, ``NAME-SPLIT-00000-of-00002.arrow``."""
    form = re.compile(rf".*-{re.escape(str(split))}(-\d{{5}}-of-\d{{5}})?\.arrow")
    return any(form.fullmatch(name) for name in names)
