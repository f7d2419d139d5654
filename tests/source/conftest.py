"""What the tests of the source share: a server that breaks, and settings that do not wait long."""

import random
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from streampipe.source import Network, Source
from streampipe.testing import FaultServer

DATA = random.Random(0).randbytes(700_001)
"""More than one window of ``QUICK``, and no round number."""

QUICK = Network(
    tries=4, stall=0.5, connect=5.0, first_wait=0.0, longest_wait=0.2, window=128 << 10, memory=1 << 20, requests=8
)


@pytest.fixture
def server():
    with FaultServer({"a.tar": DATA, "b.tar": DATA[::-1], "empty.tar": b""}) as server:
        yield server


@pytest.fixture
def source():
    return Source(network=QUICK)


class Scripted:
    """A server of one function: (method, path, headers) to (status, headers, body). For stores that answer oddly.

    ``asked`` holds what came.
    """

    def __init__(self, answer):
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                sent = {name.lower(): value for name, value in self.headers.items()}
                outer.asked.append((self.command, self.path, sent))
                self.rfile.read(int(sent.get("content-length", 0)))
                status, headers, body = answer(self.command, self.path, sent)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_POST = do_CONNECT = do_GET

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a client that has what it wants may go

        self._server = Server(("127.0.0.1", 0), Handler)
        self.at = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def ranged(data, sent, **headers):
    """The answer of a server without faults to a Range."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", sent.get("range", ""))
    if found is None:
        return 200, headers, data
    start, end = int(found[1]), min(len(data), int(found[2]) + 1 if found[2] else len(data))
    if start >= len(data):
        return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
    return 206, {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}", **headers}, data[start:end]


def whole(source, url, then=()):
    """All bytes of an object, by way of windows ahead of need."""
    return b"".join(source.chunks(url, then))


def bounded(function, *arguments, seconds=30.0):
    """The result of a call, or its error; a call that hangs is a failure, not a wait without end."""
    result = []

    def run():
        try:
            result.append((function(*arguments), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert result, f"it hangs: nothing came in {seconds} s"
    if result[0][1] is not None:
        raise result[0][1]
    return result[0][0]


def until(condition, seconds=20.0):
    """Wait for something that other threads or processes do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
