"""What a sample source knows of its samples, as the planner asks for it: an index of each shard."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from streampipe.errors import IndexMismatch
from streampipe.index import Finder, ShardIndex
from streampipe.index.table import LEFT_OUT, NESTED, VIDEOS
from streampipe.samplesource import Facts, SampleSource
from streampipe.source import Source, redact
from streampipe.tar import Limits


class SourceFinder(Finder):
    """The indexes of the shards of a sample source: what it says of them, and nothing beside them."""

    def __init__(self, given: SampleSource) -> None:
        source = getattr(given, "source", None)
        super().__init__(source if isinstance(source, Source) else Source(), Limits())
        self._given = given
        self._number: dict[str, int] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_number": None}

    def find(self, url: str, sized: bool = True, columns: Collection[str] | None = None) -> ShardIndex | None:
        """What the source knows of a shard; None if it does not know what is asked for.

        Raises:
            IndexMismatch: it gives a table without keys.
        """
        if self._number is None:
            self._number = {name: i for i, name in enumerate(self._given.shards)}
        if not isinstance(self._given, Facts):
            return None
        table = self._given.facts(self._number[url], columns)
        if table is None:
            return None
        rows = table.num_rows
        if "key" not in table.column_names or table.column("key").null_count:
            raise IndexMismatch(f"{redact(url)}: facts() of its source must have a column key with a text in each row")
        if "size" not in table.column_names:
            table = table.append_column("size", pa.array([0] * rows, pa.int64()))
        size = int(table.column("size").to_numpy().sum()) if rows else 0
        videos = "video.frames" in table.column_names
        return ShardIndex(table, {"bytes": size, NESTED: True, LEFT_OUT: False, VIDEOS: videos})

    def why_not(self, url: str) -> str:
        """Why ``find`` gave None."""
        why = getattr(self._given, "why_not", None)
        return str(why()) if why is not None else f"the source of {redact(url)} does not know what is asked of it"
