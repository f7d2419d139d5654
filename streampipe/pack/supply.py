"""What is packed, whatever it is: samples in the order of the shards, of which everything is known but their bytes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from streampipe.folders.listing import Listing, check
from streampipe.folders.walk import Few
from streampipe.pack.contents import Contents, FilesOf
from streampipe.source import Source


class Supply(Protocol):
    """The samples to be packed, numbered in the order of the shards. A folder's listing, or a source's catalog."""

    samples: int
    bytes: int
    fields: dict[str, int]
    collisions: Few
    repeated: Few
    repeated_in: Counter[int]

    @property
    def name(self) -> str:
        """What it is, for messages."""
        ...

    def check(self, on_error: str) -> None:
        """Raise what stands in the way of packing."""
        ...

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Of each sample the part of the dataset that it belongs to, and the bytes that it takes in a shard."""
        ...

    def contents(self, start: int, count: int) -> Contents:
        """The samples of a shard."""
        ...

    def why_broken(self) -> Iterator[tuple[str, str]]:
        """What cannot be packed, sorted, each with the reason."""
        ...

    def why_repeated(self) -> Iterator[tuple[str, str]]:
        """What is left out because another is the same, each with that one."""
        ...

    def examples(self) -> list[str]:
        """The first samples, in words."""
        ...

    def close(self) -> None:
        """Let temporary files go."""
        ...


class Files:
    """The samples of a folder; ``source`` reads one of a store."""

    def __init__(self, listing: Listing, source: Source | None = None) -> None:
        self.listing = listing
        self._source = source
        self.samples, self.bytes, self.fields = listing.samples, listing.bytes, listing.fields
        self.collisions, self.repeated, self.repeated_in = listing.collisions, listing.repeated, listing.repeated_in

    @property
    def name(self) -> str:
        """The folder."""
        return self.listing.folder

    def check(self, on_error: str) -> None:
        """See ``folders.listing.check``."""
        check(self.listing, on_error)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Of each sample its part and its bytes."""
        return self.listing.sizes()

    def contents(self, start: int, count: int) -> FilesOf:
        """The files of a shard."""
        return FilesOf(self.listing.folder, list(self.listing.rows(start, count)), self._source, self.listing.roots)

    def why_broken(self) -> Iterator[tuple[str, str]]:
        """The files that cannot be packed."""
        return self.listing.why_broken()

    def why_repeated(self) -> Iterator[tuple[str, str]]:
        """The images that are left out because another is the same, each with that one."""
        return self.listing.why_repeated()

    def examples(self) -> list[str]:
        """Keys and fields, and where they come from."""
        return [
            f"{item.key}: " + ", ".join(f"{name} <- {_origin(file.path)}" for name, file in item.files.items())
            for item in islice(self.listing.items(), 3)
        ]

    def close(self) -> None:
        """Let the listing go."""
        self.listing.close()


def _origin(path: str) -> str:
    return os.path.normpath(path) if path else "the layout"
