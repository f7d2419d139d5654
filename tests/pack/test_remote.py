"""Shards go to a store as to a folder: the same bytes, continued after a break, claimed by their job."""

import errno
import json
import os
import sys

import fsspec
import pytest

import streampipe as sp
from streampipe.folders.remote import shadow
from tests.pack.test_pack import folder_of, quiet
from tests.pack.test_resume import files


class Names:
    """A store that holds files of these names, all of the same text."""

    def __init__(self, *names):
        self.names = names

    def files(self, url):
        return ((name, 4, None) for name in self.names)

    def read(self, url):
        return b"text"


def below(folder):
    return {os.path.relpath(os.path.join(each, name), folder) for each, folders, files in os.walk(folder)
            for name in (*folders, *files)}  # fmt: skip


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store in memory, and the user's folder in the test's own."""
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "cache"))
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/packed", recursive=True) if fs.exists("/packed") else None


def stored(fs):
    return {path.rpartition("/")[2]: fs.cat_file(path) for path in fs.ls("/packed", detail=False)}


def test_a_store_gets_the_bytes_of_a_folder_and_a_broken_run_goes_on(tmp_path, store, monkeypatch):
    source = folder_of(tmp_path / "in", 9)
    quiet(source, tmp_path / "local", max_samples=3)
    module = sys.modules["streampipe.pack.contents"]
    really, left = module.read_file, [14]

    def breaks(*args):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return really(*args)

    monkeypatch.setattr(module, "read_file", breaks)
    with pytest.raises(KeyboardInterrupt):
        quiet(source, "memory://packed", max_samples=3)
    assert sorted(stored(store)) == [
        "00000.index.parquet",
        "00000.tar",
        "00001.index.parquet",
        "00001.tar",
        "pack.json",
    ]
    assert quiet(source, "memory://packed", max_samples=3).kept == 2
    found, wanted = stored(store), files(tmp_path / "local")
    wanted.pop(".pack.lock")
    assert found == wanted
    assert len(list(sp.stream("memory://packed/*.tar"))) == 9
    with pytest.raises(
        sp.OutputBusy, match=r"memory://packed already holds 3 shards of another job: its max_samples was"
    ):
        quiet(source, "memory://packed", max_samples=4)


def test_from_one_store_to_another(tmp_path, store):
    source = folder_of(tmp_path / "in", 6)
    quiet(source, "memory://packed/one", max_samples=4)
    summary = quiet(
        "memory://packed/one/*.tar", "memory://packed/two", shuffle=True, max_samples=3, where="width == 40"
    )
    assert (summary.samples, summary.shards) == (6, 2)
    keys = [sample["__key__"] for sample in sp.stream("memory://packed/two/*.tar")]
    assert sorted(keys) == sorted(sample["__key__"] for sample in sp.stream("memory://packed/one/*.tar")) != keys
    record = json.loads(store.cat_file("/packed/two/pack.json"))
    assert (record["kind"], record["done"]) == ("tar", True)


def test_a_folder_of_a_store_is_packed_as_the_same_one_here(tmp_path, store):
    source = folder_of(tmp_path / "in", 6)
    (source / ".hidden").mkdir()
    (source / ".hidden" / "x.jpg").write_bytes(b"x")
    (source / "metadata.jsonl").write_text(json.dumps({"file_name": "sub/001.jpg", "score": 7}))
    store.put(f"{source}/", "/packed/in/", recursive=True)
    options = {"max_samples": 4, "shuffle": True, "where": "width == 40"}
    here, there = (
        quiet(each, tmp_path / name, **options) for each, name in ((source, "a"), ("memory://packed/in", "b"))
    )
    assert (there.notes, there.hidden) == (here.notes, here.hidden)
    for name in ("00000.tar", "00001.tar", "00000.index.parquet", "manifest.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert quiet("memory://packed/in", tmp_path / "b", **options).kept == 2
    with pytest.raises(sp.PackError, match=r"nothing below memory://packed/none"):
        quiet("memory://packed/none", tmp_path / "c")
    with pytest.raises(sp.ConfigError, match="follow_symlinks= is of a local folder, which memory://packed/in is not"):
        quiet("memory://packed/in", tmp_path / "c", follow_symlinks=str(tmp_path))


def test_equal_images_of_a_store_are_packed_once(tmp_path, store):
    source = folder_of(tmp_path / "in", 6)
    (source / "zz.jpg").write_bytes((source / "000.jpg").read_bytes())
    store.put(f"{source}/", "/packed/in/", recursive=True)
    here = quiet(source, tmp_path / "a", deduplicate=True)
    there = quiet("memory://packed/in", tmp_path / "b", deduplicate=True)
    assert (here.repeated, there.repeated) == (1, 1)
    listed = [(tmp_path / name / "repeated.jsonl").read_text() for name in "ab"]
    assert listed == ['{"file": "zz.jpg", "same_as": "000.jpg"}\n'] * 2


def test_of_the_folders_of_a_store_those_are_made_that_tell_its_layout():
    names = ("top.jpg", "a/b/c/d/e/x.jpg", "p/q/r/s/default.txt", "images/1/2/3/4/x.jpg", "a/b/c/metadata.csv")
    with shadow("memory://packed", Names(*names)) as folder:
        assert below(folder) == {
            *("top.jpg", "a", "a/b", "a/b/c"),
            *("p", "p/q", "p/q/r", "p/q/r/s", "p/q/r/s/default.txt"),
            *("images", "images/1", "images/1/2", "images/1/2/3", "images/1/2/3/4"),
        }


@pytest.mark.parametrize(
    ("name", "full_at", "is_error"),
    [
        ("a/b/c/d/x.jpg", "c", False),  # only a hint comes of it
        ("a/b/c/d/x.jpg", "b", True),
        ("images/b/c/d/x.jpg", "d", True),
        ("a/b/c/d/default.txt", "d", True),
    ],
)
def test_a_full_disk_is_an_error_where_it_keeps_what_tells_the_layout(monkeypatch, name, full_at, is_error):
    really = os.mkdir

    def mkdir(path, *args, **options):
        if os.path.basename(path) == full_at:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        really(path, *args, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    if not is_error:
        with shadow("memory://packed", Names(name)) as folder:
            assert below(folder) == {"a", "a/b"}
        return
    words = rf"its layout cannot be kept in a temporary file \(No space left .*{name}"
    with pytest.raises(sp.PackError, match=words), shadow("memory://packed", Names(name)):
        pass
