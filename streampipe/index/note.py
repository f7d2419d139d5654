"""What a shard holds, noted while its samples are streamed, and written as its index when it was read whole.

An index that was learnt is byte for byte the one that ``streampipe index`` writes: both are made by ``Rows``. It
appears at its place when it is whole, so whoever writes it (ranks and workers may, at the same time) writes the same
file, and what is killed leaves none. Damaged shards, compressed ones and those with hard links have
no index; they are counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from streampipe.context import Sample
from streampipe.counters import counters
from streampipe.errors import SourceError
from streampipe.index.known import columns_beside
from streampipe.index.scan import HasLinks, Rows, Tape
from streampipe.source import Source, redact
from streampipe.tar import Limits, Member

log = logging.getLogger("streampipe")
_COUNTED = "learning"


class Note:
    """Notes of one shard, while it is read front to back. What goes wrong with them never disturbs the reading.

    Args:
        place: where its index is to be written.
        learnt: is told when it was.
    """

    def __init__(self, source: Source, limits: Limits, url: str, place: str, learnt: Callable[[str], None]) -> None:
        self._source = source
        self._limits = limits
        self._url = url
        self._place = place
        self._learnt = learnt
        self._tape: Tape | None = None
        self._rows: Rows | None = None
        self.needs: set[str] = set()

    def bytes(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The bytes of a plain shard, on their way."""
        self._tape = Tape(chunks)
        known = columns_beside(self._url, self._source, self._limits)
        self._rows = Rows(redact(self._url), known, self._tape.crc32)
        return iter(self._tape)

    def members(self, members: Iterator[Member]) -> Iterator[Member]:
        """The members, on their way to become samples."""
        for member in members:
            if self._rows is not None:
                try:
                    self._rows.see(member)
                except HasLinks:
                    self.give_up("with hard links")
            yield member

    def sample(self, sample: Sample) -> None:
        """The next sample of the shard."""
        if self._rows is not None:
            self._rows.add(sample)

    def give_up(self, why: str) -> None:
        """The shard can have no index."""
        counters.add(_COUNTED, f"shards {why}, which have no index")
        if self._tape is not None:
            self._tape.stop()
        self._rows = None

    def end(self) -> None:
        """The shard was read whole: its index is written."""
        if self._rows is None or self._tape is None:
            return
        index = self._rows.to_index(self._tape.facts, self.needs)
        try:
            self._source.write(self._place, index.to_bytes())
        except (SourceError, OSError) as error:
            counters.add(_COUNTED, "indexes that could not be written")
            seen = int(counters.get(_COUNTED, "indexes that could not be written"))
            if seen & (seen - 1) == 0:
                log.warning("an index that was learnt is not written (number %d): %s", seen, error)
            return
        counters.add(_COUNTED, "shards learnt")
        self._learnt(self._place)
