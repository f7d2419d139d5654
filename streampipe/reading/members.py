"""One shard read front to back: bytes become members, members samples, and what they are is learnt on the way."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from streampipe.context import Sample
from streampipe.index import Finder
from streampipe.index.note import Note
from streampipe.samples import group
from streampipe.source import redact
from streampipe.tar import Member, begun, compression_of, decompress, stream_members


def samples_of(
    finder: Finder, url: str, coming: Sequence[str] = (), learn: bool = True, **options: Any
) -> Generator[Sample, None, None]:
    """The samples of a shard; ``options`` are those of ``group``. ``coming``: the shards that will be read after it.

    Where its index is learnt (and nobody else does: ``learn``) it is written when all of the shard was read, whichever
    of its samples were wanted.

    Raises:
        ShardError: it is damaged, or missing.
    """
    note = finder.note_of(url) if learn else None
    members = _members(finder, url, coming, note)
    watch, needs = (note.sample, note.needs) if note is not None else (None, None)
    yield from group(members, redact(url), limits=finder.limits, watch=watch, needs=needs, **options)
    if note is not None:
        note.end()


def _members(finder: Finder, url: str, coming: Sequence[str], note: Note | None) -> Iterator[Member]:
    """The members of a shard."""
    shown, limits = redact(url), finder.limits
    head, whole = begun(finder.source.chunks(url, coming))
    kind = compression_of(url, head)
    if kind is not None:
        if note is not None:
            note.give_up("that are compressed")
        return stream_members(decompress(whole, shard=shown, kind=kind, limits=limits), shard=shown, limits=limits)
    if note is None:
        return stream_members(whole, shard=shown, limits=limits)
    return note.members(stream_members(note.bytes(whole), shard=shown, limits=limits, needs=note.needs))
