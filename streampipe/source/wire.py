"""One request and its answer over a connection of urllib3's: HTTP/1.1, as far as reading objects needs it.

urllib3 finds the host, opens the connection, and speaks to proxies and TLS; what goes over it is written and read here.
Its own answers and those of the standard library cost several hundred calls of Python each, more than all else of a
request together, and take the end of a connection for the end of the headers.

A body whose length is known is received where it is wanted, straight from the socket: each byte of it is news. What
brings an object no further (headers, what stands around chunks, a body nobody wants) could come for ever, byte by byte:
from the first such byte on it may for as long as a connection may bring nothing.
"""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Mapping, Sequence
from http.client import BadStatusLine, HTTPException, LineTooLong, RemoteDisconnected, UnknownProtocol
from typing import Any

from urllib3.exceptions import ProxyError

from streampipe.errors import ConfigError
from streampipe.source.address import Address
from streampipe.source.failures import Ended

_STATUS = re.compile(r"(HTTP/\S*)[ \t]+(\d{3})(?:[ \t]+(.*?))?[ \t]*\r?\n", re.ASCII)
_FIELD = re.compile(r"^([!-9;-~]+):[ \t]*(.*?)[ \t]*\r?$", re.ASCII | re.MULTILINE)
_FOLDED = re.compile(r"\r?\n[ \t]+")
_END = re.compile(rb"\n\r?\n")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,15}")
_MOST_LINES, _LONGEST = 100, 65536  # as the standard library has it
_BLOCK = 4096  # bytes that are received at once of what is no body: what of a body comes with them is copied
_EMPTY = (204, 304)


class Headers(dict[str, str]):
    """Headers by name, in any case of letters. Those of one name are joined.

    >>> Headers({"etag": '"1"'}).get("ETag")
    '"1"'
    """

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())


class Reply:
    """An answer: its head is here, its body is received by who wants it. ``finish`` or ``close`` it.

    Args:
        sock: connected, with the timeout after which a connection that brings nothing is given up.
        pool: which gets the connection ``owner`` of the socket back, once all of the body was received.
    """

    __slots__ = (
        "_chunk", "_left", "_owner", "_pool", "_sock", "_until",
        "chunked", "headers", "is_over", "length", "reason", "status", "will_close",
    )  # fmt: skip

    def __init__(self, sock: Any, method: str, owner: Any = None, pool: Any = None) -> None:
        self._sock = sock
        self._owner = owner
        self._pool = pool
        self._left = b""  # what came and was not used
        self._until = math.inf
        self._chunk = -1  # bytes that are left of a chunk; -1: before the first one
        status = 100
        while 100 <= status < 200:
            status, text = self._head()
        self.status = status
        found: dict[str, str] = {}
        for name, value in _FIELD.findall(_FOLDED.sub(" ", text) if "\n " in text or "\n\t" in text else text):
            name = name.lower()
            found[name] = f"{found[name]}, {value}" if name in found else value
        self.headers = headers = Headers(found)
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if self.chunked:  # beside it a length means nothing: who unpacked the body on its way may have left the old one
            headers.pop("content-length", None)
        self.length = _length(headers)  # bytes of the body that did not come yet; None: not known
        if status in _EMPTY or method == "HEAD":
            self.length, self.chunked = 0, False
        self.is_over = False  # of a body whose length is not known, that it ended
        self.will_close = self._closes() or (not self.chunked and self.length is None)
        self._until = math.inf

    def _head(self) -> tuple[int, str]:
        """The status, and all lines behind that."""
        searched = 0
        while (end := _END.search(self._left, searched)) is None:
            if len(self._left) > _LONGEST or self._left.count(b"\n") > _MOST_LINES + 2:
                break
            searched = max(0, len(self._left) - 2)
            if not self._more():
                raise RemoteDisconnected(f"the connection ended {'amid the headers' if self._left else 'unanswered'}")
            if not self._left.startswith(b"HTTP/"[: len(self._left)]):
                break
        head = (self._left if end is None else self._left[: end.end()]).decode("latin-1")
        found = _STATUS.match(head)
        if (found is None and "\n" in head) or not head.startswith("HTTP/"[: len(head)]):
            raise BadStatusLine(repr(head.partition("\n")[0][:80]))
        if found is not None and not found[1].startswith("HTTP/1."):
            raise UnknownProtocol(found[1])
        if head.count("\n") > _MOST_LINES + 2:
            raise HTTPException(f"got more than {_MOST_LINES} headers")
        if end is None or found is None:
            raise LineTooLong("header line")
        self._left = self._left[end.end() :]
        self.reason = found[3] or ""
        self.will_close = found[1] == "HTTP/1.0"
        return int(found[2]), head[found.end() :]

    def _closes(self) -> bool:
        """Whether the connection ends with this answer."""
        said = self.headers.get("connection", "").lower()
        if self.will_close:
            return "keep-alive" not in said and "keep-alive" not in self.headers
        return "close" in said

    def _more(self) -> bool:
        """Receive some of what is no body. Whether the connection goes on."""
        if self._until < time.monotonic():
            raise TimeoutError(f"bytes came, but nothing new in {self._sock.gettimeout():g} s")
        came = self._sock.recv(_BLOCK)
        if self._until == math.inf and (stall := self._sock.gettimeout()) is not None:
            self._until = time.monotonic() + stall
        self._left += came
        return bool(came)

    def read(self, most: int) -> bytes:
        """What has come of the body, at least one byte; nothing at its end.

        Raises:
            Ended: the connection ended before that.
        """
        if self.chunked:
            return self._of_chunk(most)
        if self.length is not None:
            most = min(most, self.length)
        piece = self._taken(most) if most else b""
        if self.length is not None:
            if most and not piece:
                raise Ended(f"the connection ended early: {self.length} more bytes were to come")
            self.length -= len(piece)
        elif not piece:
            self.is_over = True
        return piece

    def _taken(self, most: int) -> bytes:
        if self._left:
            piece, self._left = self._left[:most], self._left[most:]
        else:
            piece = self._sock.recv(most)
        self._until = math.inf
        return bytes(piece)

    def _of_chunk(self, most: int) -> bytes:
        if self.is_over:
            return b""
        if self._chunk <= 0:
            if self._chunk == 0 and self._line():
                raise HTTPException("a chunk is longer than it says")
            said = self._line().partition(b";")[0].strip()
            if not _CHUNK.fullmatch(said):
                raise HTTPException(f"a chunk of {said[:20]!r} bytes")
            self._chunk = int(said, 16)
            if self._chunk == 0:
                while self._line():
                    pass
                self.is_over = True
                return b""
        piece = self._taken(min(most, self._chunk))
        if not piece:
            raise Ended("the connection ended early, within a chunk")
        self._chunk -= len(piece)
        return piece

    def _line(self) -> bytes:
        """The next line of what stands around chunks, without its end."""
        while (end := self._left.find(b"\n")) < 0:
            if len(self._left) > _LONGEST:
                raise LineTooLong("line between chunks")
            if not self._more():
                raise Ended("the connection ended early, between chunks")
        line, self._left = self._left[:end], self._left[end + 1 :]
        return line.removesuffix(b"\r")

    def receive(self, pieces: Sequence[memoryview], most: int) -> int:
        """How many bytes came of a body of known length, ``most`` at most, 0 at the end. They fill the pieces in order.

        Several pieces are filled by one call, where that can be: a call of the system for each sample, of which a
        request brings many, costs more than all else together.
        """
        assert self.length is not None
        first = pieces[0]
        if self._left:
            got = min(len(self._left), len(first), most)
            first[:got] = self._left[:got]
            self._left = self._left[got:]
        elif len(pieces) > 1 and type(self._sock) is socket.socket and sum(map(len, pieces)) <= most:
            got = self._sock.recvmsg_into(pieces)[0]
        else:
            got = self._sock.recv_into(first, min(len(first), most))
        self.length -= got
        return int(got)

    def drain(self, most: int) -> bytes:
        """Let the answer go, whose body may say why it is none. One longer than ``most`` costs its connection."""
        body = b""
        try:
            if self.length is not None and self.length <= most:
                while len(self._left) < self.length and self._more():
                    pass
                body, self._left = self._left[: self.length], self._left[self.length :]
                self.length -= len(body)
        except (OSError, HTTPException):
            pass  # its status says enough
        self.finish()
        return body

    def finish(self) -> None:
        """Give the connection back, if all of the body was received; else it is closed."""
        if self._owner is None:
            return
        whole = self.is_over if self.length is None else not self.length
        if not whole or self.will_close or self._left:
            self.close()
        else:
            owner, self._owner = self._owner, None
            self._pool._put_conn(owner)

    def close(self) -> None:
        """End the connection."""
        if self._owner is not None:
            owner, self._owner = self._owner, None
            owner.close()
            self._pool._put_conn(None)


def exchange(pool: Any, method: str, to: Address, headers: Mapping[str, str]) -> Reply:
    """Ask, and read the head of the answer.

    A connection that was kept may have been ended by the server, which is seen only when it is used: then it is asked
    again over another one.
    """
    forwarded = pool.proxy is not None and to.scheme == "http"
    sent = _written(method, to, {**pool.proxy_headers, **headers} if forwarded else headers, forwarded)
    while True:
        owner = pool._get_conn()
        kept = owner.sock is not None
        try:
            if not kept:
                _connect(pool, owner, to)
            owner.sock.sendall(sent)
            return Reply(owner.sock, method, owner, pool)
        except BaseException as error:
            owner.close()
            pool._put_conn(None)
            if not kept or not isinstance(error, ConnectionError):
                raise


def _connect(pool: Any, owner: Any, to: Address) -> None:
    try:
        if pool.proxy is not None and to.scheme == "https":
            pool._prepare_proxy(owner)
        else:
            owner.connect()
    except (OSError, HTTPException) as error:
        if pool.proxy is not None and not owner.has_connected_to_proxy:
            raise ProxyError("Unable to connect to proxy", error) from error
        raise
    owner.sock.settimeout(pool.timeout.read_timeout)


def _written(method: str, to: Address, headers: Mapping[str, str], forwarded: bool) -> bytes:
    lines = [f"{method} {to.url if forwarded else to.target} HTTP/1.1"]
    if not any(name.lower() == "host" for name in headers):
        lines.append(f"Host: {to.named}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join(lines)
    if text.count("\n") >= len(lines) or text.count("\r") >= len(lines):
        raise ConfigError("a header of a request holds the end of a line; check the credentials and storage_options")
    return text.encode("latin-1") + b"\r\n\r\n"


def number(text: str | None) -> int | None:
    """What a header says that is a number of bytes; None if it says something else.

    >>> number("17"), number("-1"), number("\\xb2"), number(None)
    (17, None, None, None)
    """
    return int(text) if text and text.isdecimal() and text.isascii() and len(text) < 20 else None


def _length(headers: Headers) -> int | None:
    said = headers.get("content-length")
    if said is None or "," not in said:
        return number(said)
    lengths = {each.strip() for each in said.split(",")}  # it may be said twice
    if len(lengths) > 1:
        raise HTTPException(f"an answer of two lengths ({said[:40]})")
    headers["content-length"] = lengths.pop()
    return number(headers["content-length"])
