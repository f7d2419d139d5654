"""An HTTP server whose responses break as a test has scripted them."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from urllib.parse import quote

from streampipe.testing.answer import Answer, Request, Stored, answer, parse_request, store
from streampipe.testing.faults import Fault, NoLength, Swap
from streampipe.testing.pace import Bucket, piece
from streampipe.testing.sockets import Acceptor, pause, reset, wait_delivered

_CHUNK = 1 << 16
"""Bytes in a chunk of a chunked body."""

_LONGEST = 1 << 16
"""Bytes that a request's headers may have."""


class FaultServer:
    """An HTTP/1.1 server on 127.0.0.1 that serves objects from memory, from when it is made until it is closed.

    Healthy as long as nothing is scripted: keep-alive, GET, HEAD, single ranges, If-Match, If-Range, strong ETags.

    >>> from http.client import HTTPConnection
    >>> from streampipe.testing import FaultServer, Status
    >>> with FaultServer({"a.tar": b"data"}) as server:
    ...     server.script("a.tar", Status(503))
    ...     client = HTTPConnection("127.0.0.1", server.port)
    ...     for _ in range(2):
    ...         client.request("GET", "/a.tar", headers={"Range": "bytes=1-2"})
    ...         print(client.getresponse().read())
    ...     client.close()
    b''
    b'at'
    >>> [(request.method, request.range, request.status) for request in server.requests]
    [('GET', (1, 3), 503), ('GET', (1, 3), 206)]

    Attributes:
        requests: all that came so far, each put here before it is answered.
        latency: seconds before each response; may be changed at any time.
        bandwidth: bytes per second that all connections share, None for no limit; may be changed at any time.
    """

    def __init__(self, objects: Mapping[str, bytes] | None = None, *, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.latency = 0.0
        self.bandwidth: float | None = None
        self._lock = threading.Lock()
        self._bucket = Bucket()
        self._objects: dict[str, Stored] = {}
        self._scripts: dict[str, tuple[deque[Fault | None], Fault | None]] = {}
        for name, data in (objects or {}).items():
            self.put(name, data)
        self._acceptor = Acceptor(self._serve, "FaultServer", port)
        self.port = self._acceptor.port

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections at once, stalled ones too."""
        self._acceptor.close()

    @property
    def live(self) -> int:
        """How many connections are open."""
        return self._acceptor.live

    def url(self, name: str) -> str:
        """Where an object is served."""
        return f"http://127.0.0.1:{self.port}/{quote(name)}"

    def put(self, name: str, data: bytes) -> None:
        """Add or replace an object."""
        self._objects[name] = store(data)

    def script(self, name: str, *faults: Fault | None, always: Fault | None = None) -> None:
        """One fault for each of the next GETs of this object, None for a healthy one; ``always`` for all after them.

        Replaces what was scripted for the object before.
        """
        with self._lock:
            self._scripts[name] = deque(faults), always

    def _meets(self, request: Request) -> tuple[Fault | None, Stored | None]:
        """The fault that this request meets, and the object that it finds.

        Both at once: of two requests at a time, one that comes before a swap must not find what comes with it.
        """
        with self._lock:
            fault, stored = self._fault(request), self._objects.get(request.name)
            if isinstance(fault, Swap):
                self.put(request.name, fault.data)
                stored = stored if fault.after is not None else self._objects[request.name]
            return fault, stored

    def _fault(self, request: Request) -> Fault | None:
        """A script moves on only with the requests that its faults are for."""
        faults, always = self._scripts.get(request.name, (deque[Fault | None](), None))
        fault = faults[0] if faults else always
        if request.method == "HEAD":
            if isinstance(fault, NoLength):
                return fault
            if fault is None or not fault.head:
                return None
        if faults:
            faults.popleft()
        return fault

    def _serve(self, sock: socket.socket) -> None:
        waiting = bytearray()
        while True:
            while (end := waiting.find(b"\r\n\r\n")) < 0:
                data = sock.recv(1 << 16)
                if not data or len(waiting) > _LONGEST:
                    return
                waiting += data
            request = parse_request(waiting[:end].decode("latin-1"))
            del waiting[: end + 4]
            if request is None:
                sock.sendall(Answer(400, {"Connection": "close"}, memoryview(b"")).head())
                return
            if not self._respond(sock, request):
                return

    def _respond(self, sock: socket.socket, request: Request) -> bool:
        """Answer a request; whether the connection goes on."""
        fault, stored = self._meets(request)
        given = answer(request, stored, fault)
        self.requests.append(replace(request, status=given.status))
        self._acceptor.closing.wait(self.latency)
        if given.delay and not pause(sock, given.delay, self._acceptor.closing):
            return False
        last = "close" in (request.headers.get("connection", "").lower(), given.headers.get("Connection"))
        if last:
            given.headers["Connection"] = "close"
        if request.method == "HEAD":
            if given.stop is not None and given.framing == "length" and not self._end(sock, given):
                return False
            sock.sendall(given.head())
            return given.framing != "close" and not last
        return self._send(sock, given) and not last

    def _send(self, sock: socket.socket, given: Answer) -> bool:
        """Send a response with its body; whether the connection goes on."""
        sock.sendall(given.head())
        own = Bucket()
        if given.framing == "chunked":
            for at in range(0, len(given.body), _CHUNK):
                chunk = given.body[at : at + _CHUNK]
                self._body(sock, memoryview(b"%x\r\n%b\r\n" % (len(chunk), bytes(chunk))), given.rate, own)
            sock.sendall(b"0\r\n\r\n")
            return True
        stop = len(given.body) if given.stop is None else given.stop
        self._body(sock, given.body[:stop], given.rate, own)
        if not self._end(sock, given):
            return False
        self._body(sock, given.body[stop:], given.rate, own)
        return given.framing == "length"

    def _end(self, sock: socket.socket, given: Answer) -> bool:
        """Break or stall the connection where a response says so; whether it goes on."""
        if given.end == "stall":
            return pause(sock, given.stall, self._acceptor.closing)
        if given.end == "reset":
            wait_delivered(sock, self._acceptor.closing)
            reset(sock)
        return given.end == "healthy" and (given.framing != "close" or given.stop is None)

    def _body(self, sock: socket.socket, body: memoryview, rate: float | None, own: Bucket) -> None:
        """Send bytes no faster than the response's own rate and that of the server."""
        at = 0
        while at < len(body):
            shared = self.bandwidth  # once: it may change between two looks
            rates = [each for each in (rate, shared) if each is not None]
            part = body[at : at + piece(min(rates, default=None))]
            wait = own.reserve(len(part), rate) if rate is not None else 0.0
            if shared is not None:
                wait = max(wait, self._bucket.reserve(len(part), shared))
            if wait > 0 and self._acceptor.closing.wait(wait):
                raise OSError("closing")
            sock.sendall(part)
            at += len(part)
