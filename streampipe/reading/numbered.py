"""What sources share that find any sample by its number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any


class Numbered:
    """A source that has ``counts`` and ``sample``: reading forward is asking for one number after the other.

    ``_now`` has what is open or unpacked now, by shard or file. It does not travel to workers.
    """

    _now: OrderedDict[int, Any]

    def counts(self) -> Sequence[int]:
        """The samples of each shard."""
        raise NotImplementedError

    def sample(self, shard: int, number: int) -> dict[str, Any]:
        """The sample of a number in a shard."""
        raise NotImplementedError

    def read(self, shard: int, first: int = 0) -> Iterator[dict[str, Any]]:
        """The samples of a shard in order, from a number on."""
        for number in range(first, self.counts()[shard]):
            yield self.sample(shard, number)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_now": OrderedDict()}
