"""The settings of everything that crosses a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streampipe.errors import ConfigError
from streampipe.kinds import checked_class


@checked_class
@dataclass(frozen=True)
class Network:
    """How remote shards are read. The defaults are safe and fast; times are in seconds, sizes in bytes.

    There is no limit on how long a shard may take, only on how long nothing may come.

    Args:
        patience: how long nothing new may come before reading is given up; each byte that arrives begins it anew. A
            pause that the store asks for (Retry-After) is kept if it is no longer than this. As long as a store has
            never given anything to this job, it is 30 seconds at most: there may be a mistake in the URL.
        tries: give up after so many requests that bring nothing new, too. None: only when the patience is used up.
        stall: how long a connection may bring nothing before it is given up and opened again where it was.
        connect: how long opening a connection may take.
        first_wait: the longest first pause between two tries; it doubles with each try (full jitter).
        longest_wait: the longest pause of our own.
        window: how much of a shard is asked for at once.
        memory: how many bytes a process may have in flight or waiting to be used. Where whole shards are read front to
            back, the windows of ``shuffle=`` hold half of it at most: the more it is, the further large samples move.
        requests: how many requests a process may have in flight; more than 32 only where the latency is long.
        gap: how many unneeded bytes between two samples are read rather than asked for separately.
        schemes: URL schemes to allow beside the usual ones.
        redirects_to: link-local and metadata hosts that may be reached, and redirected to (none by default).
        stores: which store reads the URLs of a scheme, where it is not the usual one: ``{"s3": "obstore"}``,
            ``{"gs": "fsspec"}``, or one that was registered (``sp.register_store``).
    """

    patience: float = 600.0
    tries: int | None = None
    stall: float = 30.0
    connect: float = 10.0
    first_wait: float = 0.25
    longest_wait: float = 20.0
    window: int = 8 << 20
    memory: int = 256 << 20
    requests: int = 64
    gap: int = 64 << 10
    schemes: tuple[str, ...] = ()
    redirects_to: tuple[str, ...] = ()
    stores: Mapping[str, str] | tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("patience", "stall", "connect", "longest_wait", "first_wait"):
            value, least = getattr(self, name), 0 if name in ("first_wait", "patience") else 1e-3
            if not isinstance(value, (int, float)) or not least <= value < float("inf"):
                raise ConfigError(f"Network({name}=) is a time in seconds, {least:g} or more, not {value!r}")
        for name in ("tries", "window", "memory", "requests", "gap"):
            value, least = getattr(self, name), 0 if name == "gap" else 1
            if name == "tries" and value is None:
                continue
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"Network({name}=) is a whole number, {least:g} or more, not {value!r}")
        if isinstance(self.schemes, str) or isinstance(self.redirects_to, str):
            raise ConfigError("Network(schemes=, redirects_to=) are tuples of names")
        object.__setattr__(self, "schemes", tuple(self.schemes))
        object.__setattr__(self, "redirects_to", tuple(self.redirects_to))
        try:
            given = self.stores.items() if isinstance(self.stores, Mapping) else tuple(self.stores)
            pairs = tuple(sorted((str(scheme), str(name)) for scheme, name in given))
            if isinstance(self.stores, (str, set)):
                raise TypeError("neither a mapping nor pairs")
        except (TypeError, ValueError):
            raise ConfigError(
                f'Network(stores=) says by scheme which store reads it, {{"s3": "obstore"}}, not {self.stores!r}'
            ) from None
        object.__setattr__(self, "stores", pairs)  # pairs, because a Network is a key
