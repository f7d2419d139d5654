"""A shard is read while it is copied into the cache, and the copy waits for no reader."""

import threading

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.source import Cache, Network, Source
from streampipe.source import download as module
from streampipe.source.store import Pin
from streampipe.testing import Cut, Reset, Stall, Status, Swap
from tests.source.conftest import DATA, QUICK, bounded, until, whole


@pytest.fixture
def source(tmp_path):
    return Source(network=QUICK, cache=Cache(tmp_path / "kept"))


def test_a_shard_is_read_once_and_kept(server, source):
    url = server.url("a.tar")
    assert bounded(whole, source, url) == DATA
    del server.requests[:]
    assert bytes(source.file(url)) == DATA
    assert bytes(Source(network=QUICK, cache=source.cache).file(url)) == DATA
    assert [request.method for request in server.requests] == ["HEAD"]  # the new source asks for the version alone


def test_faults_on_the_way_change_nothing(server, source):
    server.script("a.tar", Reset(1000), Status(503), None, Cut(50_000), Stall(10))
    assert bounded(whole, source, server.url("a.tar")) == DATA
    assert bytes(source.file(server.url("a.tar"))) == DATA


def test_where_no_thread_can_be_had_for_a_copy_the_shard_is_read_past_the_cache(server, source, monkeypatch, caplog):
    start = threading.Thread.start

    def refused(self):
        if self.name == "streampipe-cache":
            raise RuntimeError("can't start new thread")
        start(self)

    url = server.url("a.tar")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        assert bounded(whole, source, url) == DATA
        assert source.download(url).read(0, 10) is None
    assert "can't start new thread" in caplog.text
    assert not source.cache.has(url)
    assert bounded(whole, source, url) == DATA
    assert bytes(source.file(url)) == DATA


def test_it_is_read_while_it_comes(server, source):
    server.script("a.tar", None, None, Stall(0, seconds=0.4))
    pieces = source.download(server.url("a.tar")).pieces()
    got = next(pieces)
    assert 0 < len(got) < len(DATA)
    assert got + bounded(lambda: b"".join(pieces)) == DATA


def test_the_copy_goes_on_though_nobody_reads(server, source):
    source.download(server.url("a.tar"))
    until(lambda: source.cache.has(server.url("a.tar")))


def test_several_readers_share_one_copy(server, source):
    got = []
    threads = [threading.Thread(target=lambda: got.append(whole(source, server.url("a.tar")))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [DATA] * 6
    starts = [request.range[0] for request in server.requests if request.method == "GET"]
    assert sorted(starts) == sorted(set(starts))


def test_the_next_shard_is_copied_ahead(server, source):
    whole(source, server.url("a.tar"), [server.url("b.tar")])
    until(lambda: source.cache.has(server.url("b.tar")))
    assert bounded(whole, source, server.url("b.tar")) == DATA[::-1]


def test_an_error_is_raised_where_it_is_and_tried_anew_next_time(server, source):
    server.script("a.tar", None, always=Status(404))
    with pytest.raises(sp.ShardMissing):
        bounded(whole, source, server.url("a.tar"))
    until(lambda: list(source.cache.folder.iterdir()) == [])
    server.script("a.tar")
    assert bounded(whole, source, server.url("a.tar")) == DATA


def test_an_error_that_nobody_saw_is_not_kept_for_later(server, source):
    server.script("a.tar", always=Status(404))
    download = source.download(server.url("a.tar"))
    until(lambda: download.done)
    server.script("a.tar")
    assert bounded(whole, source, server.url("a.tar")) == DATA


def test_a_shard_replaced_on_the_way_is_an_error_and_leaves_nothing(server, source):
    server.script("a.tar", None, None, Swap(DATA[::-1]))
    got = []
    with pytest.raises(sp.ShardChanged):
        for piece in source.chunks(server.url("a.tar")):
            got.append(piece)
    assert DATA.startswith(b"".join(got))
    until(lambda: list(source.cache.folder.iterdir()) == [])
    source.begin()
    assert bounded(whole, source, server.url("a.tar")) == DATA[::-1]


def test_a_kept_shard_of_another_version_is_replaced(server, source):
    url = server.url("a.tar")
    whole(source, url)
    server.put("a.tar", DATA[::-1])
    fresh = Source(network=QUICK, cache=source.cache)
    assert fresh.file(url) is None
    assert bounded(whole, fresh, url) == DATA[::-1]
    assert bytes(fresh.file(url)) == DATA[::-1]


def test_a_pass_reads_a_kept_shard_as_it_is_when_the_pass_begins(server, source):
    url = server.url("a.tar")
    whole(source, url)
    server.put("a.tar", DATA[::-1])
    assert bounded(whole, source, url) == DATA  # in this pass it is of one version
    source.begin()
    assert source.file(url) is None
    assert bounded(whole, source, url) == bytes(source.file(url)) == DATA[::-1]


def test_a_kept_shard_that_rotted_is_fetched_again(server, source):
    url = server.url("a.tar")
    whole(source, url)
    path = source.cache.path(url)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    fresh = Source(network=QUICK, cache=Cache(source.cache.folder))
    before = counters.get("cache", "damaged shards")
    assert fresh.file(url) is None
    assert bounded(whole, fresh, url) == DATA
    assert bytes(fresh.file(url)) == DATA
    assert counters.get("cache", "damaged shards") > before


def test_a_copy_that_the_disk_does_not_give_back_is_fetched_again(server, source, monkeypatch):
    calls = iter(range(1000))
    real = module._read
    monkeypatch.setattr(module, "_read", lambda *args: b"" if next(calls) == 1 else real(*args))
    assert bounded(whole, source, server.url("a.tar")) == DATA


def test_a_shard_larger_than_the_cache_is_read_past_it(server, tmp_path, caplog):
    source = Source(network=QUICK, cache=Cache(tmp_path / "kept", max_bytes=1000))
    assert bounded(whole, source, server.url("a.tar")) == DATA
    assert "a shard of 700001 bytes is larger than the cache (1000)" in caplog.text
    assert list(source.cache.folder.iterdir()) == []


def test_a_window_larger_than_the_cache_completes(server, tmp_path):
    """Shards that are ahead and in use do not fit together: it is slower, never stuck."""
    source = Source(network=QUICK, cache=Cache(tmp_path / "kept", max_bytes=800_000))
    urls = [server.url(name) for name in ("a.tar", "b.tar", "a.tar", "b.tar")]
    for number, url in enumerate(urls):
        assert bounded(whole, source, url, urls[number + 1 :]) == (DATA, DATA[::-1])[number % 2]
    kept = [path for path in source.cache.folder.iterdir() if path.suffix != ".lock"]  # those come and go
    assert sum(path.stat().st_size for path in kept) <= 800_000


def test_a_signed_url_that_answers_only_to_get_is_cached(server, source):
    server.script("a.tar", Status(403, head=True))
    assert bounded(whole, source, server.url("a.tar")) == DATA
    assert bytes(source.cache.file(server.url("a.tar"), Pin())) == DATA


def test_many_sources_come_and_go_and_leave_nothing(server, tmp_path):
    """200 times: descriptors and threads stay as they were."""
    import os

    def once(number):
        source = Source(network=Network(**{**vars(QUICK), "requests": 4}), cache=Cache(tmp_path / f"kept{number % 2}"))
        if number % 3:
            assert whole(source, server.url("b.tar")) == DATA[::-1]
        else:
            next(iter(source.chunks(server.url("a.tar"))))  # and leave
        source.close()

    for number in range(20):
        once(number)
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for number in range(200):
        once(number)
    until(lambda: threading.active_count() <= threads + 4 and len(os.listdir("/proc/self/fd")) <= files + 8)
