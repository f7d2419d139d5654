"""A client that sees what really came over the wire."""

import contextlib
import gc
import os
import socket
import threading
import time
from http.client import HTTPConnection


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ask(sock, name, method="GET", **headers):
    lines = [f"{method} /{name} HTTP/1.1", "Host: x", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())


def drain(sock, most=1 << 30):
    """All that comes, and how it ended: "fin", "reset", "timeout" or, with so many bytes here, "enough"."""
    data = bytearray()
    while len(data) < most:
        try:
            part = sock.recv(min(1 << 16, most - len(data)))
        except ConnectionResetError:
            return bytes(data), "reset"
        except TimeoutError:
            return bytes(data), "timeout"
        if not part:
            return bytes(data), "fin"
        data += part
    return bytes(data), "enough"


def head(sock):
    """The status line and the headers, no byte more."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        part = sock.recv(1)
        assert part, data
        data += part
    return data


def body(port, name, method="GET", timeout=10, **headers):
    """What comes of a body, and how it ends."""
    with connect(port) as sock:
        sock.settimeout(timeout)
        ask(sock, name, method, **headers)
        head(sock)
        return drain(sock)


def fetch(port, name, method="GET", **headers):
    """Status, headers by lower-case name, and body, as the standard library sees them."""
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request(method, f"/{name}", headers={k.replace("_", "-"): v for k, v in headers.items()})
        with client.getresponse() as response:
            data = response.read()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, data


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def open_sockets():
    """The sockets of this process by their inodes: numbers of descriptors are used again, inodes are not."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own, or closed meanwhile
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}


@contextlib.contextmanager
def nothing_left():
    """Neither a thread nor a socket more after than before; other files that the process opens are no matter."""
    gc.collect()
    threads, sockets = set(threading.enumerate()), open_sockets()
    yield
    until(lambda: not set(threading.enumerate()) - threads)  # those of other tests may begin and end meanwhile
    until(lambda: not open_sockets() - sockets)
