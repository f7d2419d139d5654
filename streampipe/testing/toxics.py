"""What a ``ChaosProxy`` can do to one connection, in toxiproxy's words. Bytes are those from the server to the client.

Those with a limit of 0 strike when the client's first bytes come, before the server has seen them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Toxic:
    """The base of all toxics."""


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """The connection is reset (RST) once the client's kernel has this many bytes."""

    after: int = 0


@dataclass(frozen=True)
class LimitData(Toxic):
    """The connection is ended (FIN) after this many bytes."""

    bytes: int


@dataclass(frozen=True)
class Timeout(Toxic):
    """Nothing more comes through after this many bytes; after so many seconds the connection is ended."""

    after: int = 0
    seconds: float = 3600.0


@dataclass(frozen=True)
class Latency(Toxic):
    """Every byte comes so much later, plus or minus the jitter; bandwidth stays, and so does the order."""

    seconds: float
    jitter: float = 0.0


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """At most so many bytes per second come through."""

    rate: float


@dataclass(frozen=True)
class Slicer(Toxic):
    """The bytes come in pieces of this size, so many seconds apart."""

    size: int
    delay: float = 0.0


@dataclass(frozen=True)
class SlowClose(Toxic):
    """The server's end of the connection is passed on so many seconds late."""

    seconds: float
