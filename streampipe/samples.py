"""Members become samples: dicts of the fields that share a key.

The rule is webdataset's: key and field are split at the first dot of the member's base name, neighbours with the same
key form a sample, field names are lower-cased. A sample is given out only when the next key, or a valid end of the
archive, has been seen; an archive that breaks takes the sample it was in the middle of with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from streampipe.context import Position, Sample
from streampipe.counters import counters
from streampipe.errors import CorruptShard, DuplicateKey, LimitExceeded
from streampipe.tar import Limits, Member, MissingEnd
from streampipe.tar.names import JUNK, passed_over

log = logging.getLogger("streampipe")


def split_name(name: str) -> tuple[str, str] | None:
    """Key and field of a member name, or None where it has none.

    >>> split_name("a/b.seg.PNG"), split_name("/x/22.0/1.1.png"), split_name("README"), split_name("a.b/c")
    (('a/b', 'seg.png'), ('/x/22.0/1', '1.png'), None, None)
    """
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    return (name[:dot], name[dot + 1 :].lower()) if dot > base else None


def size_of(item: object) -> int:
    """The bytes that a sample's fields take, or a value's: nearly, where only its owner knows.

    >>> size_of({"__key__": "a", "jpg": b"xyz", "json": {"a": ["b", 1]}})
    13
    """
    if isinstance(item, (bytes, bytearray, memoryview, str)):
        return item.nbytes if isinstance(item, memoryview) else len(item)
    if isinstance(item, Mapping):
        return sum(map(size_of, item.values()))
    if isinstance(item, (list, tuple)):
        return sum(map(size_of, item))
    size = getattr(item, "nbytes", None)  # arrays and tensors
    return size if isinstance(size, int) else 8


def to_bytes(sample: Sample) -> Sample:
    """The sample with every memoryview copied into bytes, in place."""
    for name, value in sample.items():
        if type(value) is memoryview:
            sample[name] = bytes(value)
    return sample


def group(
    members: Iterable[Member],
    url: str,
    *,
    epoch: int = 0,
    shard: int = 0,
    part: int = 0,
    parts: int = 1,
    first: int = 0,
    views: bool = False,
    limits: Limits | None = None,
    place: str | None = "reading",
    needs: set[str] | None = None,
    watch: Callable[[Sample], None] | None = None,
) -> Iterator[Sample]:
    """The samples of one shard's members: ``__key__``, ``__url__``, ``__position__`` and the fields.

    With ``parts`` only the samples whose number is ``part`` modulo ``parts`` are made, and none before ``first``.
    Fields are bytes; with ``views`` they may be memoryviews of the shard. Hidden files, those of operating systems
    (``._x``, ``Thumbs.db``) and members without a field are passed over and counted; samples are counted under
    ``place``, or not at all. A shard without samples is counted and logged. ``needs`` is told which of the options of
    ``limits`` were needed. ``watch`` is shown every sample, also those that are not given out, before it is.

    Raises:
        DuplicateKey: a field twice in a sample, or a key that comes back after another key.
        CorruptShard: a field with a reserved name (``__key__``).
        LimitExceeded: more members in a sample than ``limits.max_sample_members``.
    """
    most = (limits or Limits()).max_sample_members
    keys: set[str] = set()
    # start: the key and its dot, how the names of a sample begin; made: its fields are gathered, for whomever
    start, number, wanted, made, given = "/", -1, False, False, 0
    sample: Sample = {}
    usual = 0  # entries of the sample before
    try:
        try:
            for member in members:  # this loop is what reading bytes costs
                name = member.name
                field = name[len(start) :]
                if not name.startswith(start) or "/" in field:
                    base = name.rfind("/") + 1  # split_name, written out
                    dot = name.find(".", base)
                    odd = dot <= base or name.startswith("__") or name[base:] in JUNK or "PaxHeader" in name
                    if odd and (what := passed_over(name)) is not None:
                        counters.add("ignored members", what)
                        continue
                    if made:
                        usual = len(sample)
                        if watch is not None:
                            watch(sample)
                        if wanted:
                            yield sample
                            given += 1
                    key, start, field = name[:dot], name[: dot + 1], name[dot + 1 :]
                    if key in keys:
                        wanted = made = False
                        raise _twice(url, key, member)
                    keys.add(key)
                    number += 1
                    wanted = number >= first and (parts == 1 or number % parts == part)
                    made = wanted or watch is not None
                    sample = {"__key__": key, "__url__": url, "__position__": Position(epoch, shard, number)}
                if made:
                    field = field.lower()
                    if field in sample or field.startswith("__") or len(sample) >= most + 3:
                        _refuse(sample, field, url, member, most)
                    sample[field] = member.data if views else bytes(member.data)
        except MissingEnd:
            # The last sample is whole if it has as many fields as the one before it.
            if not (limits and limits.missing_end) or number < 0 or (made and not 0 < usual <= len(sample)):
                raise
            counters.add(place or "reading", "shards without an end marker")
            if needs is not None:
                needs.add("missing_end")
        if made and watch is not None:
            watch(sample)
        if wanted:
            yield sample
            given += 1
        if number < 0:
            counters.add(place or "reading", "empty shards")
            log.warning("%s holds no sample: an empty archive, or nothing in it has a key and a field", url)
    finally:
        if place is not None:
            counters.add(place, "samples", given)


def _twice(url: str, key: str, member: Member) -> DuplicateKey:
    return DuplicateKey(
        f"{url} has key {key!r} a second time, at byte {member.offset}, after other keys: the members of a sample must "
        f"be neighbours (tar --sort=name), and a key must be unique in its shard"
    )


def _refuse(sample: Sample, field: str, url: str, member: Member, most: int) -> None:
    place = f"{url}, sample {sample['__key__']!r}, byte {member.offset}"
    if len(sample) >= most + 3:
        raise LimitExceeded(
            f"{place}: more than {most} members in one sample; raise Limits.max_sample_members if meant"
        )
    if field.startswith("__"):
        raise CorruptShard(f"{place}: member {member.name!r} uses the reserved field name {field!r}; rename the member")
    raise DuplicateKey(f"{place}: field {field!r} comes twice (member {member.name!r}); keep one of the two")
