"""A TCP proxy that harms the connections through it as a test says."""

from __future__ import annotations

import math
import random
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Literal
from urllib.parse import quote

from streampipe.testing.pace import Bucket, piece
from streampipe.testing.sockets import Acceptor, pause, reset, wait_delivered
from streampipe.testing.toxics import Bandwidth, Latency, LimitData, ResetPeer, Slicer, SlowClose, Timeout, Toxic

_WINDOW = 1 << 18
"""Bytes read at once."""

_TICK = 0.1
"""Seconds after which a connection looks whether the proxy is closing, whatever it waits for."""


class ChaosProxy:
    """A proxy on 127.0.0.1 before any TCP server, from when it is made until it is closed.

    >>> from http.client import HTTPConnection
    >>> from streampipe.testing import ChaosProxy, FaultServer, ResetPeer
    >>> with FaultServer({"a.tar": b"data"}) as server, ChaosProxy(server.port) as proxy:
    ...     proxy.next(ResetPeer())
    ...     client = HTTPConnection("127.0.0.1", proxy.port)
    ...     client.request("GET", "/a.tar")
    ...     client.getresponse()
    Traceback (most recent call last):
    ConnectionResetError: ...

    Attributes:
        always: what happens to the connections after those given to ``next``; None for healthy ones.
        connections: how many came so far.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.always: Toxic | None = None
        self.connections = 0
        self._there = host, port
        self._lock = threading.Lock()
        self._next: deque[Toxic | None] = deque()
        self._random = random.Random(0)
        self._acceptor = Acceptor(self._serve, "ChaosProxy")
        self.port = self._acceptor.port

    def __enter__(self) -> ChaosProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections at once, stalled ones too."""
        self._acceptor.close()

    def url(self, path: str) -> str:
        """A path of the server, through the proxy."""
        return f"http://127.0.0.1:{self.port}/{quote(path.removeprefix('/'))}"

    def next(self, *toxics: Toxic | None) -> None:
        """One toxic for each of the next connections, None for a healthy one, after those given before."""
        with self._lock:
            self._next.extend(toxics)

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            toxic = self._next.popleft() if self._next else self.always
        try:
            server = self._acceptor.connect(*self._there)
        except OSError:
            reset(client)
            return
        try:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end: Literal["toxic", "fin", "left", "reset"] = "left"
            end = _Pump(client, server, _Way(toxic, self._random)).run(self._acceptor.closing)
            if end == "toxic" and isinstance(toxic, Timeout):
                pause(client, toxic.seconds, self._acceptor.closing)
            if end == "reset" or (end == "toxic" and isinstance(toxic, ResetPeer)):
                wait_delivered(client, self._acceptor.closing)
                reset(client)
        finally:
            if end != "fin":
                reset(server)  # it may wait to send more: after a mere FIN it would wait on
            self._acceptor.finish(server)


class _Way:
    """The bytes between server and client, each with the time when it may go on."""

    def __init__(self, toxic: Toxic | None, rng: random.Random) -> None:
        self.end: Literal["open", "fin", "reset"] = "open"
        self.left = _limit(toxic)
        self._toxic = toxic
        self._random = rng
        self._bucket = Bucket()
        self._queue: deque[tuple[float, memoryview]] = deque()
        self._held = 0
        self._last = 0.0
        self._free = 0.0
        # with a delay, a whole second of a fast connection is under way
        self._room = 64 << 20 if isinstance(toxic, Latency) else 1 << 20

    @property
    def room(self) -> bool:
        """Whether more may come in."""
        return self.end == "open" and self._held < self._room

    def push(self, data: bytes) -> None:
        """Bytes have come."""
        self._queue.append((self._due(), memoryview(data)))
        self._held += len(data)

    def close(self, end: Literal["fin", "reset"]) -> None:
        """The server has ended the connection."""
        self.end = end
        self._last = self._due()

    def _due(self) -> float:
        late = 0.0
        if isinstance(self._toxic, Latency):
            late = self._toxic.seconds + self._random.uniform(-1, 1) * self._toxic.jitter
        elif isinstance(self._toxic, SlowClose) and self.end != "open":
            late = self._toxic.seconds
        self._last = max(self._last, time.monotonic() + late)  # jitter never reorders bytes
        return self._last

    def wait(self) -> float | None:
        """Seconds until something may go on, bytes or the end; None if there is nothing."""
        if not self._queue:
            return None if self.end == "open" else max(0.0, self._last - time.monotonic())
        return max(0.0, max(self._queue[0][0], self._free) - time.monotonic())

    @property
    def empty(self) -> bool:
        """Whether all bytes have gone on."""
        return not self._queue

    def send(self, client: socket.socket) -> None:
        """Send the bytes whose turn it is."""
        due, data = self._queue.popleft()
        part = data if self.left is None else data[: self.left]
        if isinstance(self._toxic, Slicer):
            part = part[: self._toxic.size]
        elif isinstance(self._toxic, Bandwidth):
            part = part[: piece(self._toxic.rate)]
        count = client.send(part)
        if count < len(data):
            self._queue.appendleft((due, data[count:]))
        self._held -= count
        if self.left is not None:
            self.left -= count
        if isinstance(self._toxic, Slicer):
            self._free = time.monotonic() + self._toxic.delay
        elif isinstance(self._toxic, Bandwidth):
            self._free = time.monotonic() + self._bucket.reserve(count, self._toxic.rate)


class _Pump:
    """Moves bytes both ways, in one thread: a socket that another thread reads could not be reset."""

    def __init__(self, client: socket.socket, server: socket.socket, way: _Way) -> None:
        self.client, self.server, self.way = client, server, way
        self.up = bytearray()
        self.heard = False
        self.listening = True
        self.broken = False

    def run(self, closing: threading.Event) -> Literal["toxic", "fin", "left", "reset"]:
        """Until the connection ends; how it does."""
        self.client.setblocking(False)
        self.server.setblocking(False)
        while not closing.is_set():
            if self.way.left == 0 and self.heard:
                return "toxic"
            wait = self.way.wait()
            if wait == 0 and self.way.empty:
                return "fin" if self.way.end == "fin" else "reset"
            ready = self._poll(wait)
            if ready.get(self.client.fileno(), 0) & select.POLLOUT and wait == 0:
                self.way.send(self.client)
            there = ready.get(self.server.fileno(), 0)
            if there & select.POLLOUT and self.up:
                self._send_up()
            if there & ~select.POLLOUT and self.way.room:
                self._read_server()
            if ready.get(self.client.fileno(), 0) & ~select.POLLOUT and self.listening:
                self._read_client()
        return "left"

    def _poll(self, wait: float | None) -> dict[int, int]:
        """Which sockets are ready for what we want of them; with nothing wanted of one, its end does not wake us."""
        poll = select.poll()
        here = select.POLLIN * (self.listening and len(self.up) < _WINDOW) | select.POLLOUT * (wait == 0)
        there = select.POLLIN * self.way.room | select.POLLOUT * bool(self.up)
        for sock, wanted in ((self.client, here), (self.server, there)):
            if wanted:
                poll.register(sock, wanted)
        seconds = wait if wait else _TICK  # 0: it is the socket that we wait for
        return dict(poll.poll(math.ceil(min(seconds, _TICK) * 1000)))

    def _read_client(self) -> None:
        data = self.client.recv(_WINDOW)
        self.heard = self.heard or bool(data)
        self.up += data
        if not data:
            self.listening = False
            self._pass_on_end()

    def _send_up(self) -> None:
        try:
            del self.up[: self.server.send(self.up)]
        except OSError:  # what it has sent may still be read
            self.up.clear()
            self.listening = False
            self.broken = True  # the error is told once only: the read after this one finds a mere end
        if not self.listening:
            self._pass_on_end()

    def _pass_on_end(self) -> None:
        if not self.up:
            with suppress(OSError):
                self.server.shutdown(socket.SHUT_WR)

    def _read_server(self) -> None:
        try:
            data = self.server.recv(_WINDOW)
        except ConnectionResetError:
            self.way.close("reset")
            return
        self.heard = True  # a server that speaks first
        if data:
            self.way.push(data)
        else:
            self.way.close("reset" if self.broken else "fin")


def _limit(toxic: Toxic | None) -> int | None:
    if isinstance(toxic, LimitData):
        return toxic.bytes
    return toxic.after if isinstance(toxic, (ResetPeer, Timeout)) else None
