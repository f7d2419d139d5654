"""The proxy harms a connection exactly as it was told."""

import contextlib
import time
from http.client import HTTPConnection, IncompleteRead

import pytest

from streampipe.testing import (
    Bandwidth,
    ChaosProxy,
    Cut,
    FaultServer,
    Latency,
    LimitData,
    Reset,
    ResetPeer,
    Slicer,
    SlowClose,
    Stall,
    Timeout,
)
from tests.testing.client import ask, body, connect, drain, fetch, head, nothing_left, until

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def server():
    with nothing_left(), FaultServer({"a.tar": DATA, "b": b"b", "big": bytes(32 << 20)}) as server:
        yield server


@pytest.fixture
def proxy(server):
    with ChaosProxy(server.port) as proxy:
        yield proxy


def raw(port, name="a.tar", timeout=10):
    """All bytes of a response, headers too, and how it ended."""
    with connect(port) as sock:
        sock.settimeout(timeout)
        ask(sock, name, Connection="close")
        return drain(sock)


def test_a_healthy_connection_is_passed_through_and_kept(server, proxy):
    with contextlib.closing(HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as client:
        for name, wanted in (("a.tar", DATA), ("b", b"b"), ("big", bytes(32 << 20))):
            client.request("GET", f"/{name}")
            assert client.getresponse().read() == wanted
    assert proxy.connections == 1
    assert proxy.url("/a b.tar") == f"http://127.0.0.1:{proxy.port}/a%20b.tar"
    until(lambda: server.live == 0)


def test_the_ends_of_the_server_are_passed_on(server, proxy):
    server.script("a.tar", Reset(1000), Cut(1000), Stall(1000))
    assert body(proxy.port, "a.tar") == (DATA[:1000], "reset")
    assert body(proxy.port, "a.tar") == (DATA[:1000], "fin")
    assert body(proxy.port, "a.tar", timeout=0.2) == (DATA[:1000], "timeout")
    until(lambda: server.live == 0)


def test_toxics_go_to_the_next_connections_in_turn_then_always_applies(proxy):
    proxy.always = LimitData(20)
    proxy.next(None, LimitData(10))
    proxy.next(None)
    sizes = [len(raw(proxy.port)[0]) for _ in range(5)]
    assert sizes == [sizes[0], 10, sizes[0], 20, 20]
    assert sizes[0] > len(DATA)
    assert proxy.connections == 5


@pytest.mark.parametrize("after", [0, 1, 1000, 300_000, 1 << 20])
def test_a_reset_comes_after_exactly_so_many_bytes(server, proxy, after):
    whole, _ = raw(server.port)
    proxy.next(ResetPeer(after))
    assert raw(proxy.port) == (whole[:after], "reset")


def test_a_reset_at_once_is_not_seen_by_the_server(server, proxy):
    proxy.next(ResetPeer())
    with pytest.raises(ConnectionResetError):
        fetch(proxy.port, "a.tar")
    assert server.requests == []
    assert fetch(proxy.port, "a.tar")[2] == DATA


def test_limited_data_is_an_incomplete_read(server, proxy):
    proxy.next(LimitData(1000), LimitData(1000))
    assert raw(proxy.port)[1] == "fin"
    with pytest.raises(IncompleteRead):
        fetch(proxy.port, "a.tar")


def test_a_timeout_stalls_then_ends_the_connection(proxy):
    proxy.next(Timeout(1000), Timeout(0), Timeout(1000, seconds=0.2))
    for wanted in (1000, 0):
        data, end = raw(proxy.port, timeout=0.2)
        assert (len(data), end) == (wanted, "timeout")
    start = time.monotonic()
    data, end = raw(proxy.port)
    assert (len(data), end) == (1000, "fin")
    assert time.monotonic() - start >= 0.2


def test_latency_is_paid_once_and_leaves_the_bandwidth(proxy):
    proxy.next(Latency(0.3))
    with contextlib.closing(HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as client:
        start = time.monotonic()
        client.request("GET", "/big")
        response = client.getresponse()
        first = time.monotonic() - start
        assert response.read() == bytes(32 << 20)  # well over a hundred reads: each of them late would take a minute
        whole = time.monotonic() - start
    assert first >= 0.3
    assert whole < 30


def test_jitter_never_reorders_bytes(proxy):
    proxy.next(Latency(0.05, jitter=0.05))
    assert fetch(proxy.port, "a.tar")[2] == DATA


def test_bandwidth_limits_each_connection(proxy):
    proxy.always = Bandwidth(4 << 20)
    start = time.monotonic()
    assert fetch(proxy.port, "a.tar")[2] == DATA
    assert time.monotonic() - start > 0.15


def test_a_slicer_sends_pieces_apart(proxy):
    proxy.next(Slicer(100, delay=0.02), Slicer(1000))
    with connect(proxy.port) as sock:
        start = time.monotonic()
        ask(sock, "a.tar")
        count = 0
        while count < 1000:
            count += len(sock.recv(1 << 16))  # several pieces, where the reader comes late
        assert time.monotonic() - start >= 0.02 * (count // 100 - 1)
    assert fetch(proxy.port, "a.tar")[2] == DATA


def test_a_slow_close_delays_the_end_but_not_the_bytes(server, proxy):
    proxy.next(SlowClose(0.3))
    with connect(proxy.port) as sock:
        ask(sock, "a.tar", Connection="close")
        head(sock)
        assert drain(sock, len(DATA)) == (DATA, "enough")
        start = time.monotonic()
        assert drain(sock) == (b"", "fin")
        assert time.monotonic() - start > 0.15


def test_a_server_that_is_not_there_is_a_reset():
    with FaultServer() as gone:
        port = gone.port
    with nothing_left(), ChaosProxy(port) as proxy, pytest.raises(ConnectionResetError):
        fetch(proxy.port, "a.tar")


def test_a_client_that_leaves_early_leaves_nothing_open(server, proxy):
    for _ in range(3):
        with connect(proxy.port) as sock:
            ask(sock, "big")
            head(sock)
    until(lambda: server.live == 0)


def test_a_server_slower_than_its_proxy_gets_all_a_client_sends(server, proxy):
    with connect(proxy.port) as sock:
        sock.sendall(b"GET /b HTTP/1.1\r\nX: y\r\n\r\n" * 3000 + b"GET /b HTTP/1.0\r\n\r\n")
        data, end = drain(sock)
    assert (data.count(b"200 OK"), end) == (3001, "fin")


def test_closing_ends_stalled_and_waiting_connections_at_once():
    with nothing_left(), FaultServer({"a.tar": DATA, "big": bytes(32 << 20)}) as server:
        with ChaosProxy(server.port) as proxy:
            proxy.next(Timeout(10), Latency(60), SlowClose(60), Slicer(1, delay=60), None, None)
            socks = [connect(proxy.port) for _ in range(6)]
            for sock in socks[:5]:
                ask(sock, "big", Connection="close")
            until(lambda: len(server.requests) == 5)
            time.sleep(0.2)
            start = time.monotonic()
        assert time.monotonic() - start < 20  # not the minute that each of them waits
        for sock in socks:
            sock.close()
        until(lambda: server.live == 0)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy.port)
