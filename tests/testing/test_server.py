"""The fault server does to a client exactly what it was told."""

import contextlib
import gzip
import hashlib
import os
import threading
import time
import warnings
from http.client import HTTPConnection, IncompleteRead

import pytest

from streampipe.testing import (
    Chunked,
    Corrupt,
    Cut,
    Delay,
    Encoded,
    FaultServer,
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
from tests.testing.client import ask, body, connect, drain, fetch, head, nothing_left, until

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def server():
    with nothing_left(), FaultServer({"a.tar": DATA, "dir/b c.tar": b"spaced", "empty": b""}) as server:
        yield server


def test_an_object_comes_whole_with_its_validators(server):
    status, headers, data = fetch(server.port, "a.tar")
    assert (status, data) == (200, DATA)
    assert headers["etag"] == f'"{hashlib.sha1(DATA).hexdigest()}"'
    assert headers["content-length"] == str(len(DATA))
    assert headers["accept-ranges"] == "bytes"
    assert headers["last-modified"].endswith("GMT")


def test_a_head_is_a_get_without_its_body(server):
    status, headers, data = fetch(server.port, "a.tar", "HEAD")
    assert (status, data) == (200, b"")
    assert headers == fetch(server.port, "a.tar")[1]


def test_urls_quote_names_and_queries_are_no_part_of_them(server):
    assert server.url("dir/b c.tar") == f"http://127.0.0.1:{server.port}/dir/b%20c.tar"
    assert fetch(server.port, "dir/b%20c.tar?token=1")[2] == b"spaced"


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("0-0", 0, 1),
        ("5-9", 5, 10),
        ("1048575-", 1048575, 1048576),
        ("100-99999999", 100, 1048576),
        ("-7", 1048569, 1048576),
        ("-99999999", 0, 1048576),
    ],
)
def test_a_range_comes_as_206_with_its_place(server, text, start, end):
    status, headers, data = fetch(server.port, "a.tar", Range=f"bytes={text}")
    assert (status, data) == (206, DATA[start:end])
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert DATA[slice(*server.requests[-1].range)] == data


@pytest.mark.parametrize(("name", "text"), [("a.tar", "1048576-"), ("a.tar", "-0"), ("empty", "0-"), ("empty", "-5")])
def test_a_range_outside_the_object_is_416_with_its_size(server, name, text):
    status, headers, _ = fetch(server.port, name, Range=f"bytes={text}")
    size = len(DATA) if name == "a.tar" else 0
    assert (status, headers["content-range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize("text", ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "nonsense"])
def test_a_range_that_is_none_is_ignored(server, text):
    assert fetch(server.port, "a.tar", Range=text)[::2] == (200, DATA)
    assert server.requests[-1].range is None


def test_conditions_are_those_of_http(server):
    tag = fetch(server.port, "a.tar", "HEAD")[1]["etag"]
    assert fetch(server.port, "a.tar", If_Match=tag)[0] == 200
    assert fetch(server.port, "a.tar", If_Match=f'"x", {tag}', Range="bytes=0-1")[0] == 206
    assert fetch(server.port, "a.tar", If_Range=tag, Range="bytes=0-1")[0] == 206
    server.put("a.tar", b"new")
    assert fetch(server.port, "a.tar", If_Match=tag)[0] == 412
    assert fetch(server.port, "a.tar", If_Match=tag, Range="bytes=0-1")[0] == 412
    assert fetch(server.port, "a.tar", If_Match="*")[0] == 200
    assert fetch(server.port, "a.tar", If_Range=tag, Range="bytes=0-1")[::2] == (200, b"new")


def test_what_is_not_there_is_404_and_what_is_no_get_is_405(server):
    assert fetch(server.port, "b.tar")[0] == 404
    assert fetch(server.port, "b.tar", "HEAD")[0] == 404
    assert fetch(server.port, "a.tar", "DELETE")[0] == 405


def test_what_is_no_http_is_400(server):
    with connect(server.port) as sock:
        sock.sendall(b"hello\r\n\r\n")
        assert drain(sock)[0].startswith(b"HTTP/1.1 400 ")


def test_a_connection_serves_many_requests_until_the_client_says_close(server):
    with connect(server.port) as sock:
        for _ in range(3):
            ask(sock, "dir/b%20c.tar")
            head(sock)
            assert drain(sock, 6) == (b"spaced", "enough")
        assert server.live == 1
        ask(sock, "dir/b%20c.tar", Connection="close")
        head(sock)
        assert drain(sock) == (b"spaced", "fin")
    until(lambda: server.live == 0)


def test_requests_sent_at_once_are_answered_in_turn(server):
    with connect(server.port) as sock:
        sock.sendall(b"GET /dir/b%20c.tar HTTP/1.1\r\n\r\nGET /empty HTTP/1.0\r\n\r\n")
        data, end = drain(sock)
    assert (data.count(b"200 OK"), data.count(b"spaced"), end) == (2, 1, "fin")


def test_requests_are_remembered(server):
    fetch(server.port, "a.tar", X_Mine="1", Range="bytes=3-")
    fetch(server.port, "none?x", "HEAD")
    first, second = server.requests
    assert (first.method, first.path, first.name, first.range, first.status) == (
        "GET",
        "/a.tar",
        "a.tar",
        (3, None),
        206,
    )
    assert first.headers["x-mine"] == "1"
    assert (second.method, second.path, second.range, second.status) == ("HEAD", "/none?x", None, 404)


def test_a_script_is_followed_by_gets_of_its_object_alone_then_always_applies(server):
    server.script("a.tar", Status(500), None, Status(501), always=Status(502))
    assert fetch(server.port, "empty")[0] == 200
    assert fetch(server.port, "a.tar", "HEAD")[0] == 200
    assert [fetch(server.port, "a.tar")[0] for _ in range(5)] == [500, 200, 501, 502, 502]
    server.script("a.tar", Status(500))
    assert [fetch(server.port, "a.tar")[0] for _ in range(2)] == [500, 200]


def test_a_head_meets_the_faults_that_are_for_it_too(server):
    server.script("a.tar", Status(503, head=True), Reset(head=True), Cut(head=True), always=Status(500, head=True))
    assert fetch(server.port, "a.tar", "HEAD")[0] == 503
    for end in ("reset", "fin"):
        with connect(server.port) as sock:
            ask(sock, "a.tar", "HEAD")
            assert drain(sock) == (b"", end)
    assert fetch(server.port, "a.tar", "HEAD")[0] == 500
    assert fetch(server.port, "a.tar")[0] == 500


@pytest.mark.parametrize("after", [0, 1, 1000, 300_000, len(DATA) - 1, len(DATA)])
def test_a_reset_comes_after_exactly_so_many_bytes(server, after):
    server.script("a.tar", Reset(after))
    assert body(server.port, "a.tar") == (DATA[:after], "reset")
    assert fetch(server.port, "a.tar")[2] == DATA


def test_a_reset_counts_the_bytes_of_a_range(server):
    server.script("a.tar", Reset(10))
    assert body(server.port, "a.tar", Range="bytes=100-200") == (DATA[100:110], "reset")


def test_a_reset_waits_for_a_client_that_reads_late(server):
    big = bytes(16 << 20)  # more than the kernel holds
    server.put("big", big)
    server.script("big", Reset(12 << 20))
    with connect(server.port) as sock:
        ask(sock, "big")
        head(sock)
        time.sleep(0.3)
        data, end = drain(sock)
    assert (len(data), end) == (12 << 20, "reset")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_connections_open(server):
    server.script("a.tar", None, Reset(5))
    with connect(server.port) as sock:
        ask(sock, "a.tar", Range="bytes=0-0")
        head(sock)
        assert drain(sock, 1)[1] == "enough"
        end, start = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads: the subject here
            child = os.fork()
        if not child:
            os.close(start)
            os.read(end, 1)
            os._exit(0)
        try:
            ask(sock, "a.tar")
            head(sock)
            assert drain(sock) == (DATA[:5], "reset")
        finally:
            os.close(start)
            os.close(end)
            os.waitpid(child, 0)


def test_a_cut_is_an_incomplete_read(server):
    server.script("a.tar", Cut(1000), Cut())
    for after in (1000, 0):
        with pytest.raises(IncompleteRead) as caught:
            fetch(server.port, "a.tar")
        assert caught.value.partial == DATA[:after]


def test_a_stall_holds_the_connection_and_ends_at_once_when_the_server_closes():
    with nothing_left():
        with FaultServer({"a.tar": DATA}) as server:
            server.script("a.tar", Stall(1000))
            sock = connect(server.port)
            sock.settimeout(0.3)
            ask(sock, "a.tar")
            head(sock)
            assert drain(sock) == (DATA[:1000], "timeout")
            assert server.live == 1
            start = time.monotonic()
        assert time.monotonic() - start < 20  # not the hour that it stalls
        assert drain(sock) == (b"", "fin")
        sock.close()


def test_a_stall_goes_on_after_its_seconds(server):
    server.script("a.tar", Stall(1000, seconds=0.2))
    start = time.monotonic()
    assert fetch(server.port, "a.tar")[2] == DATA
    assert time.monotonic() - start >= 0.2


def test_a_stalled_connection_is_gone_when_its_client_is(server):
    server.script("a.tar", Stall(10))
    with connect(server.port) as sock:
        ask(sock, "a.tar")
        head(sock)
    until(lambda: server.live == 0)


def test_a_status_comes_with_its_headers_and_body(server):
    server.script("a.tar", Status(503, {"Retry-After": "7"}, b"busy"), Status(599))
    status, headers, data = fetch(server.port, "a.tar")
    assert (status, headers["retry-after"], data) == (503, "7", b"busy")
    assert fetch(server.port, "a.tar")[0] == 599


def test_an_ignored_range_gives_the_whole(server):
    server.script("a.tar", IgnoreRange())
    status, headers, data = fetch(server.port, "a.tar", Range="bytes=5-9")
    assert (status, data) == (200, DATA)
    assert "content-range" not in headers
    assert server.requests[-1].range == (5, 10)


def test_without_length_the_end_of_the_connection_ends_the_body(server):
    server.script("a.tar", NoLength(), NoLength(1000))
    for kept in (len(DATA), 1000):
        status, headers, data = fetch(server.port, "a.tar", "HEAD")
        assert (status, data) == (200, b"")
        assert "content-length" not in headers
        status, headers, data = fetch(server.port, "a.tar", Range="bytes=5-9")
        assert (status, data) == (200, DATA[:kept])
        assert not {"content-length", "transfer-encoding", "accept-ranges"} & set(headers)
    assert "content-length" in fetch(server.port, "a.tar", "HEAD")[1]


def test_chunked_bodies_have_no_length_and_keep_the_connection(server):
    server.script("a.tar", Chunked())
    server.script("empty", Chunked())
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as client:
        for name, wanted in (("a.tar", DATA), ("empty", b""), ("a.tar", DATA)):
            client.request("GET", f"/{name}")
            assert client.getresponse().read() == wanted
        assert server.live == 1
    server.script("a.tar", Chunked())
    _, headers, _ = fetch(server.port, "a.tar", Range="bytes=5-9")
    assert headers["transfer-encoding"] == "chunked"
    assert "content-length" not in headers


@pytest.mark.parametrize(
    ("shift", "text", "start", "end"),
    [(1, "5-9", 6, 11), (-3, "5-9", 2, 7), (1, "0-", 1, 1 << 20), (5, "-1", (1 << 20) - 1, 1 << 20), (-9, "0-3", 0, 1)],
)
def test_a_wrong_range_agrees_with_itself_but_not_with_the_request(server, shift, text, start, end):
    server.script("a.tar", WrongRange(shift))
    status, headers, data = fetch(server.port, "a.tar", Range=f"bytes={text}")
    assert (status, data) == (206, DATA[start:end])
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


def test_a_wrong_length_is_not_that_of_the_body(server):
    server.script("dir/b c.tar", WrongLength(+3), WrongLength(-2), WrongLength(+3, head=True))
    with pytest.raises(IncompleteRead) as caught:
        fetch(server.port, "dir/b%20c.tar")
    assert (caught.value.partial, caught.value.expected) == (b"spaced", 3)
    assert body(server.port, "dir/b%20c.tar") == (b"spaced", "fin")
    assert fetch(server.port, "dir/b%20c.tar", "HEAD")[1]["content-length"] == "9"


def test_a_swap_replaces_the_object_from_now_on(server):
    tag = fetch(server.port, "a.tar", "HEAD")[1]["etag"]
    server.script("a.tar", Swap(b"new one"))
    assert fetch(server.port, "a.tar", If_Match=tag)[0] == 412
    status, headers, data = fetch(server.port, "a.tar")
    assert (status, data) == (200, b"new one")
    assert headers["etag"] != tag


def test_a_request_before_a_swap_finds_the_old_object_however_late_its_thread_is(server, monkeypatch):
    fault, swapped, met = server._fault, threading.Event(), threading.Event()

    def late(request):
        found = fault(request)
        if not met.is_set():
            met.set()
            swapped.wait(0.3)
        return found

    monkeypatch.setattr(server, "_fault", late)
    server.script("a.tar", None, Swap(b"new one"))
    answers = []
    first = threading.Thread(target=lambda: answers.append(fetch(server.port, "a.tar")[2]))
    first.start()
    assert met.wait(10)
    assert fetch(server.port, "a.tar")[2] == b"new one"
    swapped.set()
    first.join(10)
    assert answers == [DATA]


def test_a_swap_amid_a_response_resets_the_old_one(server):
    server.script("a.tar", Swap(b"new one", after=100))
    assert body(server.port, "a.tar") == (DATA[:100], "reset")
    assert fetch(server.port, "a.tar")[2] == b"new one"


def test_an_encoded_body_is_gzip_though_nobody_asked(server):
    server.script("a.tar", Encoded())
    status, headers, data = fetch(server.port, "a.tar", Accept_Encoding="identity", Range="bytes=0-3")
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(data) == DATA


def test_a_redirect_names_its_place(server):
    server.script("a.tar", Redirect(server.url("empty")), Redirect("/x", 307))
    status, headers, _ = fetch(server.port, "a.tar")
    assert (status, headers["location"]) == (302, server.url("empty"))
    assert fetch(server.port, "a.tar")[0] == 307


def test_a_throttled_body_takes_its_time(server):
    server.script("a.tar", Throttle(4 << 20))
    start = time.monotonic()
    assert fetch(server.port, "a.tar")[2] == DATA
    assert time.monotonic() - start > 0.15


def test_a_delay_comes_before_the_headers(server):
    server.script("a.tar", Delay(0.3))
    with connect(server.port) as sock:
        sock.settimeout(0.1)
        ask(sock, "a.tar")
        assert drain(sock) == (b"", "timeout")
        sock.settimeout(5)
        assert head(sock).startswith(b"HTTP/1.1 200")


def test_a_corrupt_byte_differs_in_one_bit_where_it_is_sent(server):
    server.script("a.tar", always=Corrupt(1000))
    broken = DATA[:1000] + bytes([DATA[1000] ^ 1]) + DATA[1001:]
    assert fetch(server.port, "a.tar")[2] == broken
    assert fetch(server.port, "a.tar", Range="bytes=990-1010")[2] == broken[990:1011]
    assert fetch(server.port, "a.tar", Range="bytes=0-999")[2] == DATA[:1000]
    assert fetch(server.port, "a.tar", Range="bytes=1001-2000")[2] == DATA[1001:2001]
    server.script("a.tar")
    assert fetch(server.port, "a.tar")[2] == DATA


def test_latency_comes_before_each_response(server):
    server.latency = 0.1
    start = time.monotonic()
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as client:
        for _ in range(3):
            client.request("GET", "/empty")
            client.getresponse().read()
    assert time.monotonic() - start >= 0.3


def test_bandwidth_is_shared_by_all_connections_and_may_change(server):
    server.bandwidth = 8 << 20
    start = time.monotonic()
    threads = [threading.Thread(target=fetch, args=(server.port, "a.tar")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start > 0.4
    server.bandwidth = 1000
    with connect(server.port) as sock:
        ask(sock, "a.tar")
        head(sock)
        assert drain(sock, 50)[1] == "enough"
        server.bandwidth = None
        assert drain(sock, len(DATA) - 50) == (DATA[50:], "enough")


def test_many_clients_at_once_each_get_their_own(server):
    for i in range(32):
        server.put(f"many/{i}", bytes([i]) * (200_000 + i))
    got = {}
    threads = [
        threading.Thread(target=lambda i=i: got.update({i: fetch(server.port, f"many/{i}")[2]})) for i in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {i: bytes([i]) * (200_000 + i) for i in range(32)}


def test_closing_ends_what_sends_waits_and_idles_and_leaves_nothing():
    with nothing_left():
        with FaultServer({"a.tar": bytes(64 << 20), "slow": DATA, "late": DATA}) as server:
            server.script("slow", Throttle(10))
            server.script("late", Delay(3600))
            socks = [connect(server.port) for _ in range(4)]
            for sock, name in zip(socks, ("a.tar", "slow", "late"), strict=False):
                ask(sock, name)
            until(lambda: server.live == 4 and len(server.requests) == 3)
            time.sleep(0.1)
            start = time.monotonic()
        assert time.monotonic() - start < 20  # not the hour that it stalls
        assert server.live == 0
        server.close()
        for sock in socks:
            sock.close()
    with pytest.raises(ConnectionRefusedError):
        connect(server.port)


def test_a_server_takes_the_port_it_is_given():
    with FaultServer() as first:
        port = first.port
    with FaultServer({"x": b"1"}, port=port) as second:
        assert second.port == port
        assert fetch(port, "x")[2] == b"1"
