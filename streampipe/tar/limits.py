"""How large things in a shard may be."""

from __future__ import annotations

from dataclasses import dataclass, fields

from streampipe.errors import ConfigError
from streampipe.kinds import checked_class


@checked_class
@dataclass(frozen=True)
class Limits:
    """Bounds that keep a damaged or hostile shard from eating memory, and what is read although it is odd. In bytes.

    >>> Limits(max_member_bytes=10 << 20).max_member_bytes
    10485760
    """

    max_member_bytes: int = 2 << 30
    max_header_bytes: int = 64 << 10  # the PAX headers and long names before one member
    max_sample_members: int = 1024
    max_inflate_ratio: int = 200  # output to input of a compressed shard, once inflate_floor bytes came out
    inflate_floor: int = 64 << 20
    max_index_bytes: int = 1 << 30  # an index or a manifest, unpacked
    concatenated: bool = False  # whether another archive may follow the end of one
    missing_end: bool = False  # whether a shard may end without its end marker, behind a whole sample; counted
    hard_links: bool = False  # whether a hard link to an earlier member of the same shard is read as that member

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise ConfigError(f"Limits: {each.name} is 0 or more, not {getattr(self, each.name)}")
