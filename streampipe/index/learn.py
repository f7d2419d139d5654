"""Learning: the shards of a stream have no index yet, and get one each while they are streamed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from streampipe.errors import ConfigError, SourceError, StreampipeError
from streampipe.index.build import check_folders
from streampipe.index.find import SUFFIX, Finder, index_url
from streampipe.index.note import Note
from streampipe.kinds import checked_class
from streampipe.source import Source, has_query, local_path, redact
from streampipe.tar import Limits
from streampipe.urls import ShardList

_PROBE = "index.learning"


@checked_class
@dataclass(frozen=True)
class Learn:
    """Learn the index of the shards that are streamed: for ``sp.stream(..., index=)``.

    Args:
        folder: where the indexes go; beside the shards if not given. ``index="learn"`` is short for ``Learn()``.
    """

    folder: str | None = None


class LearningFinder(Finder):
    """Finds what was learnt, and notes what is not. It scans nothing. It holds settings and names, nothing live."""

    def __init__(self, source: Source, limits: Limits, learn: Learn, missing_shards: str = "error") -> None:
        if source.opener is not None:
            raise ConfigError("index='learn' needs shards that can be read anywhere later; opener= reads forward only")
        super().__init__(source, limits, learn.folder, missing_shards, scans=False)
        self._there: set[str] = set()
        self._writable = False

    def missing(self, shards: ShardList) -> int:
        """How many shards are not learnt yet, by one listing of each folder. The first time, where some are, it is
        checked that they can be.

        Raises:
            ConfigError: their indexes cannot be written, or would have one place.
        """
        places = self._places(shards)
        missing = [each for each in places if each not in self._there]
        for folder in dict.fromkeys(each.rpartition("/")[0] for each in missing):
            self._there |= self._listed(folder)
        missing = [each for each in missing if each not in self._there]
        if missing and not self._writable:
            self._check_writable(missing)
            self._writable = True
        return len(missing)

    def note_of(self, url: str) -> Note | None:
        """What takes note of a shard that is read now; None where it is learnt, by whomever."""
        place = index_url(url, self.folder)
        if place in self._there or self._is_there(place):
            self._there.add(place)
            return None
        return Note(self.source, self.limits, url, place, self._there.add)

    def _is_there(self, place: str) -> bool:
        path = local_path(place)
        if path is not None:
            return os.path.exists(path)
        try:
            return self.source.size(place) is not None
        except SourceError:  # not there, most likely; if it cannot be written either, that is said then
            return False

    def _places(self, shards: ShardList) -> list[str]:
        signed = next(filter(has_query, shards), None) if self.folder is None else None
        if signed is not None:
            raise ConfigError(
                f"{redact(signed)} has a query (a signature?), so nothing can be put beside it: give "
                f"index=sp.Learn(folder)"
            )
        places = [index_url(url, self.folder) for url in shards]
        if len(set(places)) < len(places):
            twice = next(place for place in places if places.count(place) > 1)
            raise ConfigError(f"two shards would have the index {redact(twice)}: stream their folders one by one")
        return places

    def _listed(self, folder: str) -> set[str]:
        path = local_path(folder)
        if path is None:
            names = {each.rpartition("/")[2] for each in self.source.glob(f"{folder}/*{SUFFIX}")}
        else:
            names = set(os.listdir(path or ".")) if os.path.isdir(path or ".") else set()
        return {f"{folder}/{name}" if folder else name for name in names if name.endswith(SUFFIX)}

    def _check_writable(self, places: Iterable[str]) -> None:
        advice = "give index=sp.Learn(folder), a folder for the indexes"
        check_folders(places, advice)
        for folder in dict.fromkeys(each.rpartition("/")[0] for each in places):
            path = local_path(folder)
            try:
                if path is not None:
                    os.makedirs(path or ".", exist_ok=True)
                    continue
                self.source.write(f"{folder}/{_PROBE}", b"streampipe puts the indexes of shards here\n")
            except (StreampipeError, OSError, NotImplementedError) as error:
                raise ConfigError(f"indexes cannot be written to {redact(folder)} ({error}): {advice}") from error
