"""The door to all bytes: local files, remote objects, kept shards, and what is written."""

import errno
import os
import pickle
import threading

import pytest

import streampipe as sp
from streampipe.source import Cache, Network, Source, redact
from streampipe.testing import BrokenOpener, Status
from tests.source.conftest import DATA, QUICK, bounded, until, whole


def test_a_local_file_is_mapped_and_streamed(tmp_path, source):
    path = tmp_path / "a.tar"
    path.write_bytes(DATA)
    for url in (str(path), f"file://{path}"):
        assert bytes(source.file(url)) == DATA == whole(source, url)
        assert source.read(url) == DATA
        assert source.read(url, 10, 20) == DATA[10:20]
        assert source.size(url) == len(DATA)
        assert not source.is_remote(url)
        assert source.download(url) is None


def test_an_empty_local_file_is_empty(tmp_path, source):
    (tmp_path / "a.tar").touch()
    assert bytes(source.file(str(tmp_path / "a.tar"))) == b""
    assert whole(source, str(tmp_path / "a.tar")) == b""


def test_what_is_not_there_or_no_file_says_so(tmp_path, source):
    for call in (source.buffer, source.size, source.read, lambda url: whole(source, url)):
        with pytest.raises(sp.ShardMissing, match=r"none\.tar does not exist"):
            call(str(tmp_path / "none.tar"))
    assert source.read_if_there(str(tmp_path / "none.tar")) is None
    with pytest.raises(sp.ShardMissing):
        whole(source, str(tmp_path))
    with pytest.raises(sp.SourceUnavailable, match="5 of 10 bytes came from byte 0 on"):
        (tmp_path / "short").write_bytes(b"12345")
        source.read(str(tmp_path / "short"), 0, 10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_local_file_that_may_not_be_read_says_so(tmp_path, source):
    (tmp_path / "a.tar").write_bytes(DATA)
    (tmp_path / "a.tar").chmod(0)
    with pytest.raises(sp.AccessDenied):
        source.file(str(tmp_path / "a.tar"))


def test_a_named_pipe_is_a_stream(tmp_path, source):
    path = tmp_path / "pipe.tar"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(DATA))
    writer.start()
    assert bounded(source.buffer, str(path)) is None
    assert bounded(whole, source, str(path)) == DATA
    writer.join(10)


def test_a_file_is_written_at_once_or_not_at_all(tmp_path, source, monkeypatch):
    path = tmp_path / "index"
    source.write(str(path), b"old")
    source.write(f"file://{path}", b"new")
    assert path.read_bytes() == b"new"

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(sp.SourceError, match=r"index could not be written \(OSError: \[Errno 28\]"):
                source.write(str(path), b"newer")
        assert path.read_bytes() == b"new"
        assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(sp.ShardMissing):
        source.write(str(tmp_path / "nowhere" / "index"), b"x")


def test_writers_at_once_do_not_meet(tmp_path, source, monkeypatch):
    """Threads of one process, and processes of the same number on hosts that share a disk."""
    path, names = str(tmp_path / "index"), []
    gate = threading.Barrier(8)
    real = os.fsync

    def fsync(file):
        gate.wait(10)  # all of them are writing now
        names.append(sorted(os.listdir(tmp_path)))
        gate.wait(10)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    failed = []

    def write(number):
        try:
            source.write(path, bytes([number]) * 100_000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert {len(each) for each in names} == {8}
    data = (tmp_path / "index").read_bytes()
    assert data == data[:1] * 100_000
    assert os.listdir(tmp_path) == ["index"]


def test_globs_are_written_as_they_were_asked_for(tmp_path, source, monkeypatch):
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).touch()
    assert source.glob(f"{tmp_path}/*.tar") == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]
    monkeypatch.chdir(tmp_path)
    assert source.glob("*.tar") == ["a.tar", "b.tar"]
    assert source.is_directory(str(tmp_path))
    assert not source.is_directory("a.tar")
    with pytest.raises(sp.ConfigError, match="are not read unless"):
        source.glob("sftp://h/*.tar")


def test_an_index_that_may_not_be_read_is_taken_as_not_there(server, source):
    """Object stores say "forbidden" of what is not there to whom may not list the bucket."""
    server.script("a.index.parquet", always=Status(403))
    assert source.read_if_there(server.url("a.index.parquet")) is None
    assert source.read_if_there(server.url("none.parquet")) is None
    server.put("page.parquet", b" \n<!DOCTYPE html><html>Welcome</html>")
    assert source.read_if_there(server.url("page.parquet")) is None
    assert source.read_if_there(server.url("a.tar")) == DATA
    with pytest.raises(sp.SourceError, match="has more than 1000 bytes"):
        source.read_if_there(server.url("a.tar"), most=1000)


def test_it_holds_nothing_live_when_it_is_sent_away(server, tmp_path):
    source = Source({"headers": {"X": "y"}}, network=QUICK, cache=Cache(tmp_path / "kept"))
    whole(source, server.url("a.tar"))
    copy = pickle.loads(pickle.dumps(source))
    assert copy._now is None
    assert (copy.network, copy.storage_options) == (source.network, source.storage_options)
    assert whole(copy, server.url("b.tar")) == DATA[::-1]
    opened = pickle.loads(pickle.dumps(Source(opener=BrokenOpener({"x": DATA}, [5]))))
    assert whole(opened, "x") == DATA


def test_it_works_after_it_was_closed(server, source):
    source.close()
    whole(source, server.url("a.tar"), [server.url("b.tar")])
    source.close()
    assert whole(source, server.url("b.tar")) == DATA[::-1]


def test_a_source_that_is_dropped_amid_reading_gives_its_budget_back(server):
    network = Network(**{**vars(QUICK), "window": 65_537})  # a traffic of its own
    source = Source(network=network)
    traffic = source._live.traffic
    chunks = source.chunks(server.url("a.tar"))
    next(chunks)
    assert traffic._taken > 0
    del chunks, source
    until(lambda: traffic._taken == 0)


def test_every_message_is_redacted(server, tmp_path):
    url = server.url("a.tar").replace("://", "://me:hidden@") + "?sig=hidden"
    for status, kind in ((403, sp.AccessDenied), (404, sp.ShardMissing), (503, sp.SourceError), (400, sp.SourceError)):
        server.script("a.tar", always=Status(status, {"Location": url}))
        for source in (Source(network=QUICK), Source(network=QUICK, cache=Cache(tmp_path / "kept"))):
            with pytest.raises(kind) as caught:
                bounded(whole, source, url)
            error = caught.value
            while error is not None:
                assert "hidden" not in str(error)
                error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            assert redact(url) in str(caught.value)


def test_what_worked_in_the_parent_has_worked_for_its_workers(server):
    source = Source(network=QUICK)
    assert not source._store(server.url("a.tar")).worked
    source.read(server.url("a.tar"), 0, 5)
    worker = pickle.loads(pickle.dumps(source))
    assert worker._store(server.url("a.tar")).worked
    source._now.process = -1  # as after a fork
    assert source._store(server.url("a.tar")).worked


def test_nothing_is_remembered_of_objects_that_are_read_whole(server, source):
    """They may be millions of files."""
    assert source.read(server.url("a.tar")) == DATA
    assert not source._live.pins._of
