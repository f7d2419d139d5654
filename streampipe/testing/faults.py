"""What can go wrong with one response of a ``FaultServer``. Plain data: the server does what they say.

A fault meets a GET. With ``head=True`` it meets whichever comes first, a HEAD or a GET; what it would do to the body
(break, stall) then happens to a HEAD before its headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """The base of all faults.

    >>> Reset(after=10, head=True)
    Reset(after=10)
    """

    head: bool = field(default=False, kw_only=True, repr=False)


@dataclass(frozen=True)
class Reset(Fault):
    """The connection is reset (RST) once the client's kernel has the headers and this many body bytes."""

    after: int = 0


@dataclass(frozen=True)
class Cut(Fault):
    """The connection is ended (FIN) after this many body bytes, though Content-Length promised more."""

    after: int = 0


@dataclass(frozen=True)
class Stall(Fault):
    """Nothing more is sent after this many body bytes, for so many seconds; then the rest follows."""

    after: int = 0
    seconds: float = 3600.0


@dataclass(frozen=True)
class Status(Fault):
    """This status, whatever was asked for."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: bytes = b""


@dataclass(frozen=True)
class IgnoreRange(Fault):
    """200 and the whole object, though a range was asked for."""


@dataclass(frozen=True)
class NoLength(Fault):
    """200 with neither length nor chunks: the end of the connection ends the body, after ``cut`` bytes if given.

    A HEAD gives no length either, and leaves the fault for the GET after it.
    """

    cut: int | None = None


@dataclass(frozen=True)
class Chunked(Fault):
    """200 and the whole object with Transfer-Encoding: chunked, so without a length."""


@dataclass(frozen=True)
class WrongRange(Fault):
    """206 whose Content-Range and bytes agree with each other, but lie so far off the range asked for."""

    shift: int = 1


@dataclass(frozen=True)
class WrongLength(Fault):
    """A Content-Length larger than the body by ``delta`` (smaller if negative); then the connection is ended."""

    delta: int


@dataclass(frozen=True)
class Swap(Fault):
    """The object is replaced from this request on; with ``after``, this response is reset after so many old bytes."""

    data: bytes = field(repr=False)
    after: int | None = None


@dataclass(frozen=True)
class Encoded(Fault):
    """200 and the whole object as Content-Encoding: gzip, whatever was asked for."""


@dataclass(frozen=True)
class Redirect(Fault):
    """A redirect to another URL."""

    to: str
    code: int = 302


@dataclass(frozen=True)
class Throttle(Fault):
    """The body comes at this rate."""

    bytes_per_second: float


@dataclass(frozen=True)
class Delay(Fault):
    """The headers come so many seconds late."""

    seconds: float


@dataclass(frozen=True)
class Corrupt(Fault):
    """One bit of the byte at this offset of the object is flipped, where the response contains it."""

    at: int
