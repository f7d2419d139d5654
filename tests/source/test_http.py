"""Rows 1 to 15 of the fault table over HTTP: whatever a server does, the bytes are right, or an error says why."""

import socket
import time
from base64 import b64decode
from email.utils import formatdate
from itertools import pairwise

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.source import Network, Source
from streampipe.source.address import address
from streampipe.source.fetch import attempt
from streampipe.source.store import Pin
from streampipe.source.web import web
from streampipe.source.wire import Reply
from streampipe.testing import (
    ChaosProxy,
    Chunked,
    Corrupt,
    Cut,
    Encoded,
    FaultServer,
    IgnoreRange,
    LimitData,
    NoLength,
    Redirect,
    Reset,
    ResetPeer,
    Stall,
    Status,
    Swap,
    Timeout,
    WrongLength,
    WrongRange,
)
from tests.source.conftest import DATA, QUICK, Scripted, bounded, ranged, whole


def test_a_healthy_object_comes_in_windows_of_one_version(server, source):
    assert whole(source, server.url("a.tar")) == DATA
    ranges = sorted(request.range for request in server.requests)
    assert ranges[0][0] == 0
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))
    assert "if-match" not in server.requests[0].headers
    assert all("if-match" in request.headers for request in server.requests[1:])
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


def test_an_empty_object_is_empty(server, source):
    assert whole(source, server.url("empty.tar")) == b""
    assert source.read(server.url("empty.tar")) == b""
    assert source.size(server.url("empty.tar")) == 0


@pytest.mark.parametrize("fault", [Reset, Cut])
@pytest.mark.parametrize("after", [0, 1, 1000, 65_536, 131_071])
def test_a_broken_connection_is_resumed_at_the_byte(server, source, fault, after):
    server.script("a.tar", fault(after), fault(after), None, fault(after))
    assert bounded(whole, source, server.url("a.tar")) == DATA
    starts = [request.range[0] for request in server.requests]
    assert after in starts  # the second request begins where the first one broke


def test_the_budget_counts_tries_without_progress(server):
    """A connection that never carries more than 100 bytes still carries the object."""
    server.put("slow.tar", DATA[:5000])
    server.script("slow.tar", always=Reset(100))
    assert bounded(whole, Source(network=QUICK), server.url("slow.tar")) == DATA[:5000]
    assert len(server.requests) == 50


def test_a_body_that_always_stops_at_one_byte_is_a_truncated_shard(server, source):
    server.script("a.tar", Cut(1000), always=Cut(0))
    with pytest.raises(sp.TruncatedShard, match=r"a\.tar ends at byte 1000, in 4 tries"):
        bounded(whole, source, server.url("a.tar"))


def test_a_connection_that_always_breaks_is_an_unavailable_source(server, source):
    server.script("a.tar", Reset(1000), always=Reset(0))
    with pytest.raises(sp.SourceUnavailable, match=r"4 tries at byte 1000 brought nothing, in \d+\.\d s"):
        bounded(whole, source, server.url("a.tar"))


@pytest.mark.parametrize("fault", [IgnoreRange(), Chunked(), NoLength()])
def test_a_server_that_ignores_ranges_is_read_as_one_stream(server, source, fault, caplog):
    server.script("a.tar", always=fault)
    server.script("b.tar", always=fault)
    assert bounded(whole, source, server.url("a.tar")) == DATA
    assert bounded(whole, source, server.url("b.tar")) == DATA[::-1]
    said = [record for record in caplog.records if "read as one stream" in record.getMessage()]
    assert len(said) == 1  # once for its folder
    assert len([request for request in server.requests if request.method == "GET"]) == 4


@pytest.mark.parametrize("size", [0, 1, 1000, 131_072, 131_073])
@pytest.mark.parametrize("fault", [IgnoreRange(), Chunked(), NoLength()])
def test_small_objects_without_ranges_are_whole(server, source, fault, size):
    server.put("s.tar", DATA[:size])
    server.script("s.tar", always=fault)
    assert bounded(whole, source, server.url("s.tar")) == DATA[:size]


def test_a_stream_without_ranges_is_resumed_by_throwing_bytes_away(server, source):
    before = counters.get("network", "bytes thrown away")
    server.script("a.tar", IgnoreRange(), Swap(DATA, after=400_000), always=IgnoreRange())
    assert bounded(whole, source, server.url("a.tar")) == DATA
    assert counters.get("network", "bytes thrown away") > before


def test_without_a_length_the_size_is_asked_for_and_an_early_end_found(server):
    """NoLength answers a HEAD without length as well; a server with a length at HEAD tells the end from a break."""
    server.script("a.tar", Chunked(), Cut(200_000), always=Cut(0))
    with pytest.raises(sp.TruncatedShard, match=r"ends at byte \d+"):
        bounded(whole, Source(network=QUICK), server.url("a.tar"))


def test_a_wrong_range_gives_no_bytes(server, source):
    server.script("a.tar", always=WrongRange(7))
    with pytest.raises(sp.SourceError, match="bytes 0 to 131071 were asked for, the server answered with 'bytes 7-"):
        whole(source, server.url("a.tar"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("delta", [5, -5])
def test_a_wrong_length_of_a_right_range_does_no_harm(server, source, delta):
    server.script("a.tar", WrongLength(delta), WrongLength(delta))
    assert bounded(whole, source, server.url("a.tar")) == DATA


def test_416_within_an_object_is_an_error(server, source):
    size = {"Content-Range": f"bytes */{len(DATA)}"}
    server.script("a.tar", None, always=Status(416, size))
    with pytest.raises(sp.SourceError, match=r"HTTP 416\), the object has 700001 bytes"):
        whole(source, server.url("a.tar"))


def test_a_content_encoding_is_refused(server, source):
    server.script("a.tar", always=Encoded())
    with pytest.raises(sp.SourceError, match="sends it as gzip although it was asked not to"):
        whole(source, server.url("a.tar"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, source, code):
    server.script("a.tar", Status(code), Status(code, body=b"x" * 1000), None, Status(code))
    assert bounded(whole, source, server.url("a.tar")) == DATA
    server.script("a.tar", always=Status(code))
    with pytest.raises(sp.SourceUnavailable, match=f"HTTP {code}.*4 tries at byte 0 brought nothing"):
        bounded(whole, source, server.url("a.tar"))


def test_retry_after_is_waited_for_in_seconds_and_as_a_date_and_capped(server):
    network = Network(patience=0.3, tries=4, first_wait=0.0, longest_wait=0.1)
    for asked in ("1000", formatdate(time.time() + 1000, usegmt=True)):
        before = counters.get("network", "wait seconds")
        server.script("a.tar", Status(503, {"Retry-After": asked}))
        assert bounded(whole, Source(network=network), server.url("a.tar")) == DATA
        assert counters.get("network", "wait seconds") - before == pytest.approx(0.3)  # the patience
    before = counters.get("network", "wait seconds")
    server.script("a.tar", Status(429, {"Retry-After": "soon"}))
    assert whole(Source(network=network), server.url("a.tar")) == DATA
    assert counters.get("network", "wait seconds") == before


def test_nobody_at_the_port_is_unavailable_and_so_is_a_host_without_a_name(source):
    with FaultServer() as gone:
        port = gone.port
    with pytest.raises(sp.SourceUnavailable, match="4 tries at byte 0"):
        bounded(whole, source, f"http://127.0.0.1:{port}/a.tar")
    with pytest.raises(sp.SourceUnavailable, match="4 tries at byte 0"):
        bounded(whole, source, "http://nobody.invalid/a.tar")


def test_what_is_final_is_not_tried_again(server):
    source = Source({"headers": {"Authorization": "Bearer hidden"}}, network=QUICK)
    for code, kind in ((401, sp.AccessDenied), (403, sp.AccessDenied), (404, sp.ShardMissing), (410, sp.ShardMissing)):
        del server.requests[:]
        server.script("a.tar", always=Status(code))
        with pytest.raises(kind, match=r"127\.0\.0\.1:\d+/a\.tar") as caught:
            whole(source, server.url("a.tar") + "?sig=hidden")
        assert len(server.requests) == 1
        assert "hidden" not in str(caught.value)
        assert kind is sp.ShardMissing or "with the header Authorization of storage_options" in str(caught.value)
    server.script("a.tar", always=Status(403))
    with pytest.raises(sp.AccessDenied, match="without credentials"):
        whole(Source(network=QUICK), server.url("a.tar"))


def test_credentials_that_run_out_are_renewed_once(server, source):
    server.script("a.tar", None, Status(403), None)
    assert bounded(whole, source, server.url("a.tar")) == DATA  # amid a shard
    server.script("a.tar", Status(401))
    assert bounded(whole, source, server.url("a.tar")) == DATA  # and at the beginning of a later one
    server.script("a.tar", None, always=Status(403))
    with pytest.raises(sp.AccessDenied):
        bounded(whole, source, server.url("a.tar"))


def test_a_stall_is_found_and_resumed_at_the_byte(server, source):
    server.script("a.tar", Stall(1000), None, Stall(5000))
    assert bounded(whole, source, server.url("a.tar")) == DATA
    assert 1000 in [request.range[0] for request in server.requests]
    server.script("a.tar", Stall(1000), always=Stall(0))
    with pytest.raises(sp.SourceUnavailable, match=r"4 tries at byte 1000.*"):
        bounded(whole, source, server.url("a.tar"))


def test_a_stall_behind_a_proxy_is_found(server, source):
    with ChaosProxy(server.port) as proxy:
        proxy.next(Timeout(50_000), ResetPeer(70_000), Timeout(0))
        assert bounded(whole, source, proxy.url("a.tar")) == DATA


@pytest.mark.parametrize("ranges", [True, False])
def test_headers_that_break_off_anywhere_are_no_headers(server, source, ranges):
    """http.client takes the end of a connection for the end of the headers: half a Content-Length is a length then."""
    server.put("a.tar", DATA[:12_345])
    server.script("a.tar", always=None if ranges else IgnoreRange())
    with ChaosProxy(server.port) as proxy:
        url = proxy.url("a.tar")
        for cut in range(1, 330, 3):
            proxy.next(LimitData(cut))
            assert bounded(whole, Source(network=QUICK), url) == DATA[:12_345]
            proxy.next(LimitData(cut))
            assert Source(network=QUICK).read(url) == DATA[:12_345]
            proxy.next(LimitData(cut))
            assert Source(network=QUICK).size(url) == 12_345


def test_a_slow_server_is_no_stall(server):
    """No total timeout: an object may take many times what a connection may be silent."""
    server.put("slow.tar", DATA[:100_000])
    server.bandwidth = 100_000
    start = time.monotonic()
    assert whole(Source(network=Network(stall=0.4, tries=1)), server.url("slow.tar")) == DATA[:100_000]
    assert time.monotonic() - start > 0.8


def test_a_reader_that_pauses_loses_nothing(server, source):
    """Connections that the server has closed meanwhile are opened again."""
    chunks = source.chunks(server.url("a.tar"))
    got = [next(chunks)]
    time.sleep(0.7)  # longer than a connection may stall
    for sock in list(server._acceptor._sockets):
        sock.shutdown(socket.SHUT_RDWR)
    assert got[0] + b"".join(chunks) == DATA


@pytest.mark.parametrize("after", [None, 1000])
def test_an_object_replaced_while_it_is_read_is_never_mixed(server, source, after):
    server.script("a.tar", None, None, Swap(DATA[::-1], after=after))
    got = []
    with pytest.raises(sp.ShardChanged, match="was replaced while it was read"):
        for chunk in source.chunks(server.url("a.tar")):
            got.append(chunk)
    assert DATA.startswith(b"".join(got))
    assert whole(source, server.url("a.tar")) == DATA[::-1]  # whoever begins anew has the new one


def test_ranges_of_one_object_are_of_one_version_until_the_next_pass_begins(server, source):
    names = ["a.tar", "b.tar"]
    before = [source.read(server.url(name), 0, 10) for name in names]
    for name in names:
        server.put(name, DATA[1:])
    for _ in range(2):
        with pytest.raises(sp.ShardChanged):
            source.read(server.url("a.tar"), 0, 10)
    source.begin()
    assert [source.read(server.url(name), 0, 10) for name in names] == [DATA[1:11]] * 2 != before


def test_a_flipped_bit_is_not_our_business(server, source):
    """There is no checksum on the way: the tar reader or the index find it."""
    server.script("a.tar", always=Corrupt(1000))
    assert whole(source, server.url("a.tar")) != DATA


def test_redirections_are_followed_remembered_and_limited(server, source):
    server.script("moved.tar", always=Redirect(server.url("a.tar")))
    assert whole(source, server.url("moved.tar")) == DATA
    assert len([request for request in server.requests if request.name == "moved.tar"]) == 1
    server.script("loop.tar", always=Redirect("/loop.tar"))
    with pytest.raises(sp.SourceError, match="more than 5 redirections"):
        whole(source, server.url("loop.tar"))


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_redirection_that_ran_out_is_asked_for_anew(server, source, code):
    """What the first server gives are URLs signed for an hour."""
    server.put("signed1", DATA)
    server.put("signed2", DATA)
    server.script("moved.tar", Redirect("/signed1"), always=Redirect("/signed2"))
    assert whole(source, server.url("moved.tar")) == DATA
    server.script("signed1", always=Status(code))
    assert whole(source, server.url("moved.tar")) == DATA


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("file:///etc/passwd", "which leaves http"),
        ("ftp://127.0.0.1/x", "which leaves http"),
        ("http://169.254.169.254/latest/meta-data?token=hidden", "link-local"),
        ("http://[::ffff:169.254.169.254]/", "link-local"),
        ("http://[fe80::1]/", "link-local"),
        ("http://[fd00:ec2::254]/", "link-local"),
        ("http://2852039166/", "link-local"),
    ],
)
def test_redirections_to_where_a_server_has_no_business_are_refused(server, source, target, why):
    server.script("a.tar", always=Redirect(target))
    with pytest.raises(sp.SourceError, match=why) as caught:
        bounded(whole, source, server.url("a.tar"))
    assert "hidden" not in str(caught.value)


def test_a_weaker_scheme_is_refused_and_a_link_local_host_may_be_allowed():
    store = web({}, Network(redirects_to=("169.254.1.1",)))
    with pytest.raises(sp.SourceError, match="leaves https"):
        store._check_hop("https://h/a", address("https://h/a"), "http://h/a")
    store._check_hop("http://h/a", address("http://h/a"), "https://h/a")
    store._check_hop("http://h/a", address("http://h/a"), "http://169.254.1.1/a")


def test_credentials_are_not_sent_to_other_hosts(server):
    with FaultServer({"a.tar": DATA}) as other:
        server.script("a.tar", always=Redirect(other.url("a.tar")))
        headers = {"Authorization": "Bearer hidden", "X-Api-Key": "hidden"}
        assert whole(Source({"headers": headers}, network=QUICK), server.url("a.tar")) == DATA
        assert server.requests[0].headers["x-api-key"] == "hidden"
        for request in other.requests:
            assert "hidden" not in str(request.headers)


def test_a_user_in_the_url_is_sent_and_never_shown(server, source):
    url = server.url("a.tar").replace("://", "://me:se%20cret@")
    assert whole(source, url) == DATA
    assert {request.headers["authorization"] for request in server.requests} == {"Basic bWU6c2UgY3JldA=="}
    server.script("a.tar", always=Status(403))
    with pytest.raises(sp.AccessDenied, match="as the user named in the URL") as caught:
        whole(Source(network=QUICK), url)
    assert "cret" not in str(caught.value)


def test_a_size_is_had_where_head_is_not_allowed(server, source):
    """A URL that is signed for GET answers 403 to a HEAD; some servers know no HEAD."""
    for code in (403, 405, 501):
        server.script("a.tar", Status(code, head=True))
        pin = attempt(web({}, QUICK), server.url("a.tar"), QUICK)
        assert (pin.size, pin.version) == (len(DATA), attempt(web({}, QUICK), server.url("a.tar"), QUICK).version)
        assert server.requests[-2].range == (0, 1)


def test_an_endless_error_page_does_not_hold_anybody_up(server, source):
    server.put("big", b"")
    server.script("a.tar", Status(503, body=bytes(8 << 20)))
    assert bounded(whole, source, server.url("a.tar")) == DATA


def test_connections_are_used_again(server):
    store = web({}, QUICK)
    for _ in range(5):
        answer = store.get(server.url("a.tar"), 0, 1000, Pin())
        assert b"".join(answer.pieces) == DATA[:1000]
    assert server.live == 1


def test_bad_options_are_refused():
    with pytest.raises(sp.ConfigError, match="headers= only, not token"):
        Source({"token": "x"}).size("http://127.0.0.1:1/a.tar")
    with pytest.raises(sp.ConfigError, match="the header Authorization of storage_options is no line") as caught:
        Source({"headers": {"Authorization": "Bearer hidden\n"}}).size("http://127.0.0.1:1/a.tar")
    assert "hidden" not in str(caught.value)


def test_proxies_of_the_environment_are_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(sp.ShardMissing):  # it reached our server, which knows no such name
        whole(Source(network=QUICK), "http://elsewhere.invalid/a.tar")
    assert server.requests[0].path == "http://elsewhere.invalid/a.tar"


def test_several_pieces_of_memory_are_filled_at_once_and_never_more_than_is_left_of_an_answer():
    theirs, ours = socket.socketpair()
    with theirs, ours:
        theirs.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 20000\r\n\r\n")
        body = Reply(ours, "GET")
        memory = bytearray(6_000)
        pieces = [memoryview(memory)[at : at + 2_000] for at in range(0, 6_000, 2_000)]
        theirs.sendall(b"a" * 10)
        assert body.receive(pieces, 20_000) == 10
        theirs.sendall(b"b" * 4_500)
        assert body.receive([pieces[0][10:], *pieces[1:]], 20_000) == 4_500
        assert memory[:4_510] == b"a" * 10 + b"b" * 4_500
        theirs.sendall(b"c" * 3_000)
        got = body.receive(pieces, 2_500)
        assert 0 < got <= 2_500
        while got < 3_000:  # nothing is lost in a buffer
            got += body.receive(pieces[:1], 3_000 - got)


def test_a_body_in_chunks_is_read_whole_whatever_length_stands_beside(source):
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA)
    headers = {"Content-Length": "1000", "Transfer-Encoding": "chunked"}
    with Scripted(lambda *_: (200, headers, chunks)) as server:
        assert bounded(whole, source, f"{server.at}/a.tar") == DATA
        assert source.size(f"{server.at}/a.tar") is None


def test_an_answer_that_is_encoded_for_its_way_or_has_two_lengths_gives_no_bytes():
    said = {}
    with Scripted(
        lambda method, path, sent: (206, {"Content-Range": f"bytes 0-9/{len(DATA)}", **said}, DATA[:10])
    ) as server:
        source, url = Source(network=QUICK), f"{server.at}/a.tar"
        said["Transfer-Encoding"] = "gzip, chunked"
        with pytest.raises(sp.SourceError, match="sends it as gzip, chunked"):
            bounded(source.read, url, 0, 10)
        said.clear()
        said["content-length"] = "9"
        with pytest.raises(sp.SourceError, match="two lengths"):
            bounded(source.read, url, 0, 10)
        said["content-length"] = "10"
        assert bounded(source.read, url, 0, 10) == DATA[:10]


def test_a_line_amid_the_headers_does_not_bring_a_signature_into_a_log(source, caplog):
    def answer(method, path, sent):
        status, headers, body = ranged(DATA, sent)
        return status, {"X-A": "1\r\nno header", **headers}, body

    with Scripted(answer) as server:
        assert bounded(whole, source, f"{server.at}/a.tar?sig=s3cret") == DATA
    assert "s3cret" not in caplog.text


def test_a_small_object_is_read_where_a_range_beyond_its_end_is_refused(source):
    def answer(method, path, sent):
        if sent.get("range") == "bytes=0-131071":
            return 416, {"Content-Range": "bytes */4"}, b""
        return ranged(b"tiny", sent)

    with Scripted(answer) as server:
        assert bounded(whole, source, f"{server.at}/a.tar") == b"tiny"


def test_units_of_a_range_are_read_in_any_case(source):
    def answer(method, path, sent):
        status, headers, body = ranged(DATA, sent)
        return status, {name: value.replace("bytes", "Bytes") for name, value in headers.items()}, body

    with Scripted(answer) as server:
        assert bounded(whole, source, f"{server.at}/a.tar") == DATA


def test_a_head_of_a_packed_body_does_not_say_how_large_the_object_is(source):
    def answer(method, path, sent):
        return (200, {"Content-Encoding": "gzip"}, b"packed") if method == "HEAD" else ranged(DATA, sent)

    with Scripted(answer) as server:
        assert source.size(f"{server.at}/a.tar") == len(DATA)


@pytest.mark.parametrize("fault", [Status(503), Status(404), Stall(0), Reset(0)])
def test_a_mirror_that_fails_is_left_for_the_one_that_the_server_names_now(server, source, fault):
    with FaultServer({"a.tar": DATA}) as first, FaultServer({"a.tar": DATA}) as second:
        server.script("a.tar", Redirect(first.url("a.tar")), always=Redirect(second.url("a.tar")))
        assert source.read(server.url("a.tar"), 0, 10) == DATA[:10]
        first.script("a.tar", always=fault)
        assert bounded(source.read, server.url("a.tar"), 10, 20) == DATA[10:20]
        assert [len(first.requests), len(second.requests)] == [2, 1]


def test_a_users_name_is_sent_in_utf_8(source):
    with Scripted(lambda method, path, sent: ranged(DATA, sent)) as server:
        at = server.at.replace("://", "://m%C3%A9:\u043f@")
        assert source.read(f"{at}/a.tar", 0, 5) == DATA[:5]
        assert b64decode(server.asked[0][2]["authorization"].removeprefix("Basic ")).decode() == "m\xe9:\u043f"
