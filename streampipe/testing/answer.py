"""What a server says to a request: HTTP's rules for ranges and conditions, and how a fault breaks them."""

from __future__ import annotations

import gzip
import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Literal
from urllib.parse import unquote

from streampipe.testing.faults import (
    Chunked,
    Corrupt,
    Cut,
    Delay,
    Encoded,
    Fault,
    IgnoreRange,
    NoLength,
    Redirect,
    Reset,
    Stall,
    Status,
    Swap,
    Throttle,
    WrongLength,
    WrongRange,
)


@dataclass(frozen=True)
class Request:
    """A request as it came, and the status it was answered with."""

    method: str
    path: str
    """The target with its query, still quoted."""
    headers: Mapping[str, str]
    """By lower-case name."""
    range: tuple[int, int | None] | None = None
    """What ``slice`` takes: ``bytes=2-5`` is (2, 6), ``bytes=2-`` (2, None), ``bytes=-3`` (-3, None)."""
    status: int = 0

    @property
    def name(self) -> str:
        """The object asked for."""
        return unquote(self.path.partition("?")[0]).removeprefix("/")


@dataclass(frozen=True)
class Stored:
    """An object as a server keeps it."""

    data: bytes
    etag: str
    modified: str


@dataclass
class Answer:
    """A response, and how it is to be sent."""

    status: int
    headers: dict[str, str]
    body: memoryview
    framing: Literal["length", "chunked", "close"] = "length"
    delay: float = 0.0
    rate: float | None = None
    stop: int | None = None
    """Body bytes to send before the end comes; None for all."""
    end: Literal["healthy", "cut", "reset", "stall"] = "healthy"
    stall: float = 0.0

    def head(self) -> bytes:
        """The status line and the headers."""
        headers = dict(self.headers)
        if self.framing == "length":
            headers.setdefault("Content-Length", str(len(self.body)))
        elif self.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Connection"] = "close"
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def store(data: bytes) -> Stored:
    """An object with its ETag and date.

    >>> store(b"abc").etag
    '"a9993e364706816aba3e25717850c26c9cd0d89d"'
    """
    etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return Stored(data, f'"{etag}"', formatdate(time.time(), usegmt=True))


def parse_range(value: str | None) -> tuple[int, int | None] | None:
    """A Range header with one range, as [start, end); None for what a server may ignore.

    >>> [parse_range(f"bytes={text}") for text in ("2-5", "2-", "-3", "-0", "5-2", "0-1,4-5")]
    [(2, 6), (2, None), (-3, None), (0, 0), None, None]
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (value or "").strip())
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return (-int(last), None if int(last) else 0) if last else None
    if not last:
        return int(first), None
    return (int(first), int(last) + 1) if int(first) <= int(last) else None


def parse_request(text: str) -> Request | None:
    """A request from its header block; None if it is none.

    >>> request = parse_request("GET /a%20b?x=1 HTTP/1.1\\r\\nRange: bytes=1-")
    >>> request.name, request.headers, request.range
    ('a b', {'range': 'bytes=1-'}, (1, None))
    """
    first, *lines = text.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if words[2] == "HTTP/1.0":
        headers.setdefault("connection", "close")  # which is what 1.0 means by saying nothing
    return Request(words[0], words[1], headers, parse_range(headers.get("range")))


def healthy(request: Request, stored: Stored | None) -> Answer:
    """What a server without faults says."""
    if request.method not in ("GET", "HEAD"):
        return _short(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD", "Connection": "close"})
    if stored is None:
        return _short(HTTPStatus.NOT_FOUND, {})
    about = {"ETag": stored.etag, "Last-Modified": stored.modified, "Accept-Ranges": "bytes"}
    wanted = request.headers.get("if-match")
    if wanted is not None and not {"*", stored.etag} & {tag.strip() for tag in wanted.split(",")}:
        return _short(HTTPStatus.PRECONDITION_FAILED, about)
    body, size = memoryview(stored.data), len(stored.data)
    about["Content-Type"] = "application/octet-stream"
    same = request.headers.get("if-range", stored.etag) in (stored.etag, stored.modified)
    if request.range is None or request.method == "HEAD" or not same:
        return Answer(200, about, body)
    start, end, _ = slice(*request.range).indices(size)
    if start >= end:
        return _short(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
    return Answer(206, {**about, "Content-Range": f"bytes {start}-{end - 1}/{size}"}, body[start:end])


def answer(request: Request, stored: Stored | None, fault: Fault | None) -> Answer:
    """What a server with this fault says."""
    match fault:
        case Status(code, headers, body):
            return Answer(code, dict(headers), memoryview(body))
        case Redirect(to, code):
            return Answer(code, {"Location": to}, memoryview(b""))
        case IgnoreRange() | NoLength() | Chunked() | Encoded():
            request = replace(request, range=None)
        case WrongRange(shift) if request.range is not None and stored is not None:
            request = replace(request, range=_shifted(request.range, len(stored.data), shift))
    given = healthy(request, stored)
    if given.status in (200, 206):
        _body_fault(given, fault)
    _way_fault(given, fault)
    return given


def _body_fault(given: Answer, fault: Fault | None) -> None:
    """Change what is said."""
    match fault:
        case NoLength(cut):
            del given.headers["Accept-Ranges"]
            given.framing, given.stop = "close", cut
        case Chunked():
            given.framing = "chunked"
        case WrongLength(delta):
            given.headers["Content-Length"] = str(max(0, len(given.body) + delta))
            given.end = "cut"
        case Encoded():
            given.headers["Content-Encoding"] = "gzip"
            given.body = memoryview(gzip.compress(given.body, 1, mtime=0))
        case Corrupt(at):
            place = at - int(re.split("[ -]", given.headers.get("Content-Range", "bytes 0-"))[1])
            if 0 <= place < len(given.body):
                changed = bytearray(given.body)
                changed[place] ^= 1
                given.body = memoryview(changed)


def _way_fault(given: Answer, fault: Fault | None) -> None:
    """Change how it is said."""
    match fault:
        case Reset(after) | Swap(_, int(after)):
            given.stop, given.end = after, "reset"
        case Cut(after):
            given.stop, given.end = after, "cut"
        case Stall(after, seconds):
            given.stop, given.end, given.stall = after, "stall", seconds
        case Throttle(rate):
            given.rate = rate
        case Delay(seconds):
            given.delay = seconds


def _shifted(wanted: tuple[int, int | None], size: int, shift: int) -> tuple[int, int]:
    """A range of the object off by so much, but never empty where the one asked for is not."""
    start, end, _ = slice(*wanted).indices(size)
    if start >= end:
        return start, end
    moved = min(max(start + shift, 0), size - 1)
    return moved, max(min(end + shift, size), moved + 1)


def _short(status: int, headers: dict[str, str]) -> Answer:
    return Answer(status, headers, memoryview(HTTPStatus(status).phrase.encode()))
