"""Proxies of the environment, as other programs read them; and where a connection must not lead."""

import itertools
import socket
from contextlib import contextmanager, nullcontext
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from types import SimpleNamespace

import pytest

import streampipe as sp
from streampipe.source import Network, Source, wire
from streampipe.source.address import address
from streampipe.source.connections import proxy_of
from streampipe.source.failures import Ended
from streampipe.testing import FaultServer, Redirect
from tests.source.conftest import DATA, QUICK, Scripted, bounded, ranged, whole


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


def proxy(method, path, sent):
    """A proxy that knows one user."""
    if sent.get("proxy-authorization") != "Basic bWU6czNjcmV0":
        return 407, {"Proxy-Authenticate": "Basic"}, b""
    return ranged(DATA, sent, ETag='"1"')


def test_user_and_password_of_a_proxy_are_sent_to_it_alone(monkeypatch):
    with Scripted(proxy) as server:
        monkeypatch.setenv("http_proxy", server.at.replace("://", "://me:s3cret@"))
        assert whole(Source(network=QUICK), "http://elsewhere.test/a.tar") == DATA
        assert {path for _, path, _ in server.asked} == {"http://elsewhere.test/a.tar"}
        assert not any("authorization" in sent for _, _, sent in server.asked)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_user_says_so_at_once(monkeypatch, scheme):
    with Scripted(proxy) as server:
        monkeypatch.setenv(f"{scheme}_proxy", server.at)
        with pytest.raises(sp.AccessDenied, match="the proxy of the environment wants a user and password"):
            bounded(whole, Source(network=Network(first_wait=0)), f"{scheme}://elsewhere.test/a.tar")


def test_a_password_of_a_proxy_is_never_shown(monkeypatch):
    with FaultServer() as gone:
        port = gone.port
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@127.0.0.1:{port}")
    with pytest.raises(sp.SourceUnavailable) as caught:
        whole(Source(network=QUICK), "http://elsewhere.test/a.tar")
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("http_proxy", "socks5://me:s3cret@127.0.0.1:9")
    with pytest.raises(sp.ConfigError, match="of scheme socks5") as caught:
        whole(Source(network=QUICK), "http://elsewhere.test/a.tar")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "url", "wanted"),
    [
        ({"http_proxy": "p:3128"}, "http://h/a", "http://p:3128"),
        ({"http_proxy": "http://p:3128"}, "https://h/a", None),
        ({"all_proxy": "http://p:3128"}, "https://h/a", "http://p:3128"),
        ({"http_proxy": "http://p", "all_proxy": "http://q"}, "http://h/a", "http://p"),
        ({"http_proxy": "http://p", "no_proxy": "h:81"}, "http://h/a", "http://p"),
        ({"http_proxy": "http://p", "no_proxy": "h:81"}, "http://h:81/a", None),
        ({"http_proxy": "http://p", "no_proxy": "h"}, "http://sub.h/a", None),
        ({"http_proxy": "http://p", "no_proxy": "10.0.0.0/8,fd00::/8"}, "http://10.1.2.3/a", None),
        ({"http_proxy": "http://p", "no_proxy": "10.0.0.0/8, fd00::/8"}, "http://[fd00::1]:99/a", None),
        ({"http_proxy": "http://p", "no_proxy": "10.0.0.0/8,nonsense/x"}, "http://11.1.2.3/a", "http://p"),
        ({"http_proxy": "http://p", "no_proxy": "*"}, "http://h/a", None),
        ({"http_proxy": "http://p", "no_proxy": "x, *.H.example"}, "http://sub.h.example/a", None),
        ({"http_proxy": "http://p", "no_proxy": "*.h.example"}, "http://oh.example/a", "http://p"),
        ({"http_proxy": "http://p", "no_proxy": "[fd00::1]"}, "http://[fd00::1]:99/a", None),
        ({"http_proxy": "http://p", "no_proxy": "[fd00::1]:99"}, "http://[fd00::1]:99/a", None),
        ({"http_proxy": "http://p", "no_proxy": "[fd00::1]:99"}, "http://[fd00::1]/a", "http://p"),
    ],
)
def test_which_proxy_is_used(monkeypatch, environment, url, wanted):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(address(url)) == wanted


def test_a_name_that_leads_to_a_metadata_service_when_it_is_connected_to_is_left(monkeypatch):
    """It was resolved to something harmless when it was checked: what counts is where the connection is."""
    real = socket.socket.getpeername
    with FaultServer({"a.tar": DATA}) as server, FaultServer({"a.tar": DATA}) as other:
        server.script("a.tar", always=Redirect(other.url("a.tar").replace("127.0.0.1", "localhost")))

        def getpeername(self):
            found = real(self)
            return ("169.254.169.254", 80) if found[1] == other.port else found

        monkeypatch.setattr(socket.socket, "getpeername", getpeername)
        with pytest.raises(sp.SourceError, match=r"the connection to localhost leads to 169\.254\.169\.254"):
            bounded(whole, Source(network=QUICK), server.url("a.tar"))
        assert other.requests == []
        allowed = Network(tries=2, redirects_to=("localhost",))
        assert bounded(whole, Source(network=allowed), server.url("a.tar")) == DATA


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.google.internal", "2852039166", "[fd00:ec2::254]"])
def test_a_metadata_service_is_no_store_whoever_gives_its_url(host):
    with pytest.raises(sp.SourceError, match="metadata service"):
        bounded(Source(network=QUICK).read, f"http://{host}/latest/meta-data")


def _answer(data):
    """What a client makes of an answer's beginning, by the standard library and by ours."""
    found = []
    for kind in (HTTPResponse, wire.Reply):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            try:
                response = kind(ours, method="GET")
                if kind is HTTPResponse:
                    response.begin()
                headers = sorted((name.lower(), " ".join(value.split())) for name, value in response.headers.items())
                found.append((response.status, response.reason, response.length, headers))
                found[-1] += (response.chunked, response.will_close)
            except Exception as error:
                found.append(type(error))
            response.close()
    return found


@pytest.mark.parametrize(
    "data",
    [
        b'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/9\r\nETag:"x:y" \r\n\r\nabcde',
        b"HTTP/1.0 200 OK\nServer: a\n\n",
        b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: one\r\n two\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\nX-Name: \xe9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"SSH-2.0 hello\r\n\r\n",
        b"",
    ],
)
def test_headers_are_read_as_the_standard_library_reads_them(data):
    theirs, ours = _answer(data)
    assert ours == theirs


def test_an_answer_that_ends_amid_its_headers_is_none():
    assert _answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")[1] is RemoteDisconnected


def test_a_line_that_is_no_header_hides_none_that_follow():
    status, _, length, headers, *_ = _answer(b"HTTP/1.1 200 OK\r\nno header\r\nContent-Length: 3\r\n\r\nabc")[1]
    assert (status, length, headers) == (200, 3, [("content-length", "3")])


def test_a_length_beside_chunks_means_nothing():
    """Who unpacks a body on its way sends it in chunks, and may leave the length that it had."""
    *_, length, headers, chunked, _ = _answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    )[1]
    assert (length, headers, chunked) == (None, [("transfer-encoding", "chunked")], True)


@contextmanager
def _begun(data, monkeypatch):
    """An answer whose every look at the clock is 3 s after the one before, over a connection that may rest for 5."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    theirs.sendall(data)
    theirs.close()
    clock = itertools.count(0, 3)
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with ours:
        yield wire.Reply(ours, "GET", SimpleNamespace(close=ours.close), SimpleNamespace(_put_conn=lambda conn: None))


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, b"HTTP/1.1 200 OK\r\nX: " + b"a" * 50_000],
    ids=["continue", "header"],
)
def test_an_answer_that_goes_on_beginning_is_given_up(data, monkeypatch):
    with pytest.raises(TimeoutError, match="bytes came, but nothing new in 5 s"), _begun(data, monkeypatch):
        pass


def test_a_body_may_take_any_time_as_long_as_somebody_wants_it(monkeypatch):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"a" * 50_000
    with _begun(data, monkeypatch) as wanted:
        while wanted.read(5000):
            pass
        assert wanted.length == 0
    with _begun(data, monkeypatch) as unwanted:
        assert unwanted.drain(1 << 16) == b""  # given up
        assert unwanted.length


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"5\r\nabcde\r\n2;x=y\nfg\n0\r\nA: b\r\n\r\n", b"abcdefg"),
        (b"000a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"5\r\nabcdef\r\n0\r\n\r\n", HTTPException),
        (b"-1\r\na\r\n0\r\n\r\n", HTTPException),
        (b"0x2\r\nab\r\n0\r\n\r\n", HTTPException),
        (b"\r\n", HTTPException),
        (b"5\r\nabc", Ended),
        (b"5\r\nabcde\r\n", Ended),
        (b"5\r\nabcde\r\n0\r\n", Ended),
    ],
)
@pytest.mark.parametrize("most", [1, 100])
def test_chunks_are_the_body_and_nothing_else(body, wanted, most):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        theirs.shutdown(socket.SHUT_WR)
        reply = wire.Reply(ours, "GET")
        with pytest.raises(wanted) if isinstance(wanted, type) else nullcontext():
            assert b"".join(iter(lambda: reply.read(most), b"")) == wanted


def test_a_connection_that_the_server_ended_is_opened_anew_at_once():
    """It was kept, and its end is seen only when it is asked over: no try was lost, and no pause is made."""
    with Scripted(lambda method, path, sent: ranged(DATA, sent, ETag='"1"')) as server:
        source = Source(network=Network(tries=1))
        url = f"{server.at}/a.tar"
        assert source.read(url, 0, 10) == DATA[:10]
        pool = next(iter(source._store(url)._pools.values()))
        kept = pool._get_conn()
        kept.sock.shutdown(socket.SHUT_WR)  # the server ends it
        pool._put_conn(kept)
        assert source.read(url, 10, 20) == DATA[10:20]
