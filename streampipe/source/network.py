"""The settings of everything that crosses a network."""

from __future__ import annotations

from dataclasses import dataclass

from streampipe.errors import ConfigError


@dataclass(frozen=True)
class Network:
    """How remote shards are read. The defaults are safe and fast; times are in seconds, sizes in bytes.

    There is no limit on how long a shard may take, only on how long nothing may come.

    Args:
        tries: how often a request is made that brings nothing new; each byte that arrives begins the count anew.
        stall: how long a connection may bring nothing before it is given up and opened again where it was.
        connect: how long opening a connection may take.
        first_wait: the longest first pause between two tries; it doubles with each try (full jitter).
        longest_wait: the longest pause; also what a server may ask for with Retry-After, times three.
        window: how much of a shard is asked for at once.
        memory: how many bytes a process may have in flight or waiting to be used.
        requests: how many requests a process may have in flight.
        gap: how many unneeded bytes between two samples are read rather than asked for separately.
        schemes: URL schemes to allow beside the usual ones.
        redirects_to: link-local hosts that a server may redirect to (none by default).
    """

    tries: int = 8
    stall: float = 30.0
    connect: float = 10.0
    first_wait: float = 0.25
    longest_wait: float = 20.0
    window: int = 8 << 20
    memory: int = 256 << 20
    requests: int = 32
    gap: int = 64 << 10
    schemes: tuple[str, ...] = ()
    redirects_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("stall", "connect", "longest_wait", "first_wait"):
            value, least = getattr(self, name), 0 if name == "first_wait" else 1e-3
            if not isinstance(value, (int, float)) or not least <= value < float("inf"):
                raise ConfigError(f"Network({name}=) is a time in seconds, {least:g} or more, not {value!r}")
        for name in ("tries", "window", "memory", "requests", "gap"):
            value, least = getattr(self, name), 0 if name == "gap" else 1
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"Network({name}=) is a whole number, {least:g} or more, not {value!r}")
        if isinstance(self.schemes, str) or isinstance(self.redirects_to, str):
            raise ConfigError("Network(schemes=, redirects_to=) are tuples of names")
        object.__setattr__(self, "schemes", tuple(self.schemes))
        object.__setattr__(self, "redirects_to", tuple(self.redirects_to))
