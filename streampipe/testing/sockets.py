"""TCP connections that end exactly as a test wants, and a server of them that leaves nothing behind."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

if sys.platform == "linux":
    import fcntl
    import termios

_LOCK = threading.Lock()
"""Held while a descriptor is made, closed or shut down, and during a fork: no other thread meets a reused number."""


def reset(sock: socket.socket) -> None:
    """Close with a RST: what the peer does next fails with "connection reset"."""
    with _LOCK:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.shutdown(socket.SHUT_RD)
        sock.close()


def wait_delivered(sock: socket.socket, closing: threading.Event) -> None:
    """Wait until the peer's kernel has all that was sent: a RST would take back what is still on its way."""
    with suppress(OSError):  # the peer has gone: nothing to wait for
        while not closing.is_set() and _on_their_way(sock):
            closing.wait(0.0005)


def _on_their_way(sock: socket.socket) -> int:
    if sys.platform != "linux":  # no portable way to ask
        time.sleep(0.05)
        return 0
    with suppress(BlockingIOError):  # a peer that has gone acknowledges nothing: this raises then
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])


def pause(sock: socket.socket, seconds: float, closing: threading.Event) -> bool:
    """Do nothing for so long, or until the peer leaves; whether it is still there."""
    if seconds <= 0:
        return not closing.is_set()
    until = time.monotonic() + seconds
    sock.settimeout(seconds)
    try:
        there = bool(sock.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        there = True
    finally:
        sock.settimeout(None)
    if there:  # at once if it has sent its next request already: then only the server's close ends the pause
        closing.wait(max(0.0, until - time.monotonic()))
    return there and not closing.is_set()


class Acceptor:
    """A TCP server on 127.0.0.1 with a thread per connection. ``close`` ends them all, at once.

    A forked child closes its copies of the sockets: while any copy is open, a close in the parent sends nothing.
    """

    def __init__(self, serve: Callable[[socket.socket], None], name: str, port: int = 0) -> None:
        self.closing = threading.Event()
        self._serve = serve
        self._name = name
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        with _LOCK:
            self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
            self._listener.setblocking(False)
            self._wake, self._waker = socket.socketpair()
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(self._wake, selectors.EVENT_READ)
            _ACCEPTORS.add(self)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)
        self._thread.start()

    @property
    def live(self) -> int:
        """How many sockets of connections are open."""
        return len(self._sockets)

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to elsewhere that ends at close too; ``finish`` it.

        Raises:
            OSError: nobody answers, or the server is closing.
        """
        with _LOCK:
            if self.closing.is_set():
                raise OSError("closing")
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            self._sockets.add(sock)
        try:
            sock.settimeout(10)
            sock.connect((host, port))
            sock.settimeout(None)
        except OSError:
            self.finish(sock)
            raise
        return sock

    def finish(self, sock: socket.socket) -> None:
        """Close with a FIN. Fine on a socket that is closed already."""
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            sock.setblocking(False)
            for _ in range(64):  # a close with unread bytes would be a RST
                if not sock.recv(1 << 16):
                    break
        with _LOCK:
            self._sockets.discard(sock)
            sock.close()

    def close(self) -> None:
        """End all connections and threads; returns when they have ended."""
        with _LOCK:
            if self.closing.is_set():
                return
            self.closing.set()
        self._waker.send(b"x")
        self._thread.join()
        with _LOCK:
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in recv or send; close would not
        for thread in self._threads:
            thread.join()
        with _LOCK:
            self._let_go()

    def _accept(self) -> None:
        while True:
            self._selector.select()
            if self.closing.is_set():
                return
            try:
                with _LOCK:
                    sock, _ = self._listener.accept()
                    self._sockets.add(sock)
            except OSError:  # the client has gone, or we are out of descriptors: not at full speed
                self.closing.wait(0.01)
                continue
            sock.setblocking(True)
            thread = threading.Thread(target=self._run, args=(sock,), name=f"{self._name}-connection", daemon=True)
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(sock)
        except OSError:
            pass  # the peer left first
        finally:
            self.finish(sock)

    def _let_go(self) -> None:
        self._selector.close()
        for sock in (self._listener, self._wake, self._waker, *self._sockets):
            sock.close()
        self._sockets.clear()


_ACCEPTORS: WeakSet[Acceptor] = WeakSet()


def _in_child() -> None:
    for acceptor in list(_ACCEPTORS):
        acceptor.closing.set()
        acceptor._let_go()
    _LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_in_child)
