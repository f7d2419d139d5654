"""Shards in stores: whole or not there, also when an upload fails, and the same again afterwards."""

import fsspec
import pytest

import streampipe as sp
from tests.data import write_shards

PIECES = 20  # uploads of a run over five shards: the job, five indexes and shards, the manifest, and some more


def stored(fs, folder):
    return {path.rpartition("/")[2]: fs.cat_file(path) for path in fs.ls(folder, detail=False)}


def upper(text):
    return text.upper()


def write(folder, out, **options):
    pipe = sp.stream(str(folder), shuffle=5).decode().map(upper, "txt")
    return pipe.write(f"{out}/{{:05d}}.tar", max_samples=4, progress=False, **options)


def test_any_upload_may_fail_and_the_same_run_again_finishes(tmp_path, monkeypatch):
    write_shards(tmp_path / "in", [10, 9])
    fs = fsspec.filesystem("memory")
    write(tmp_path / "in", "memory://whole")
    wanted = stored(fs, "/whole")
    calls = {"put_file": fs.put_file, "pipe_file": fs.pipe_file}
    count = 0

    def failing(name, number):
        def call(*args, **options):
            nonlocal count
            count += 1
            if count == number:
                raise ConnectionResetError("the line broke")
            return calls[name](*args, **options)

        return call

    broken = 0
    for number in range(1, PIECES):
        out, count = f"memory://broken-{number}", 0
        for name in calls:
            monkeypatch.setattr(fs, name, failing(name, number))
        try:
            write(tmp_path / "in", out)
        except sp.SourceError as error:
            broken += 1
            assert "could not be written" in str(error) or "the line broke" in str(error)
        for name, data in (stored(fs, f"/broken-{number}") if fs.exists(f"/broken-{number}") else {}).items():
            assert data == wanted[name]
        monkeypatch.undo()
        write(tmp_path / "in", out)
        assert stored(fs, f"/broken-{number}") == wanted
    assert broken == len(wanted)


@pytest.fixture(scope="module")
def bucket():
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    options = {
        "key": "x",
        "secret": "x",
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}"},
    }
    fs = fsspec.filesystem("s3", **options)
    fs.mkdir("written")  # servers of one process share their buckets
    yield options
    server.stop()


def test_two_ranks_write_to_s3_and_it_streams_back(tmp_path, bucket):
    keys = write_shards(tmp_path / "in", [10, 9])
    first = write(tmp_path / "in", "s3://written/out", storage_options=bucket, rank=1, world_size=2)
    assert first.missing == 3
    last = write(tmp_path / "in", "s3://written/out", storage_options=bucket, rank=0, world_size=2)
    assert (last.samples, last.missing) == (19, 0)
    assert write(tmp_path / "in", "s3://written/out", storage_options=bucket).kept == 5
    urls = "s3://written/out/{00000..00004}.tar"
    found = {s["__key__"]: s["txt"] for s in sp.stream(urls, storage_options=bucket, tier="planned").decode()}
    assert found == {key: f"TEXT {key}" for key in keys}
    write(tmp_path / "in", tmp_path / "local")
    local = {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()}
    assert stored(fsspec.filesystem("s3", **bucket), "written/out") == local
