"""A file appears whole or not at all; what a killed writer left goes with the next, what a live one writes stays."""

import builtins
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from functools import partial

import pytest

import streampipe as sp
from streampipe.atomic import PART, AtomicFile, sweep, target_of, unique, write_atomic
from streampipe.decorators.store import MISS, Disk
from streampipe.index import index
from streampipe.source import Source
from streampipe.urls import expand
from tests.data import write_shards
from tests.pack.steps import Breaker, child


def names(folder):
    return sorted(os.listdir(folder))


def test_nothing_has_the_name_before_it_is_published_and_nothing_else_stays(tmp_path):
    with AtomicFile(tmp_path / "a") as draft:
        draft.file.write(b"12")
        assert target_of(names(tmp_path)[0]) == "a"
        assert draft.publish()
        assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"12"


def test_an_error_or_no_publish_leaves_the_old_file(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(KeyError), AtomicFile(tmp_path / "a") as draft:
        draft.file.write(b"new")
        raise KeyError
    with AtomicFile(tmp_path / "a") as draft:
        draft.file.write(b"new")
    assert (names(tmp_path), (tmp_path / "a").read_bytes()) == (["a"], b"old")


def test_new_keeps_what_is_there(tmp_path):
    assert write_atomic(tmp_path / "a", b"first", new=True)
    assert not write_atomic(tmp_path / "a", b"second", new=True)
    assert (names(tmp_path), (tmp_path / "a").read_bytes()) == (["a"], b"first")


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o640)])
def test_rights_are_those_of_any_file_or_ours_alone(tmp_path, private, mode):
    before = os.umask(0o027)
    try:
        with AtomicFile(tmp_path / "a", private=private) as draft:
            draft.publish()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_link_in_place_of_the_target_is_replaced_not_followed(tmp_path):
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "a").symlink_to("theirs")
    write_atomic(tmp_path / "a", b"ours")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert not (tmp_path / "a").is_symlink()


LEAVE = """
import os, signal, sys
from streampipe.atomic import AtomicFile
draft = AtomicFile(sys.argv[1])
draft.file.write(b"half")
draft.file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_behind(target):
    done = subprocess.run([sys.executable, "-c", LEAVE, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_sweep_takes_what_a_killed_writer_left_and_nothing_else(tmp_path):
    left_behind(tmp_path / "a")
    for name in ("b.part", "a.part", f"other.{unique()}{PART}", "a.host-1-xyz.part"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / f"a.{unique()}{PART}").mkdir()
    os.mkfifo(tmp_path / f"a.{unique()}{PART}")
    with AtomicFile(tmp_path / "a") as live:
        before = names(tmp_path)
        assert sweep(tmp_path, "a".__eq__) == 1
        gone = set(before) - set(names(tmp_path))
        assert len(gone) == 1
        live.file.write(b"x")
        live.publish()
    assert (tmp_path / "a").read_bytes() == b"x"
    assert sweep(tmp_path / "nowhere", "a".__eq__) == 0


def test_a_sweep_between_creation_and_lock_costs_nothing_but_another_try(tmp_path, monkeypatch):
    really, tries = fcntl.flock, []

    def late(file, how):
        if how == fcntl.LOCK_EX | fcntl.LOCK_NB and not tries:
            tries.append(names(tmp_path)[0])
            os.unlink(tmp_path / tries[0])
        really(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert write_atomic(tmp_path / "a", b"x")
    assert (len(tries), names(tmp_path)) == (1, ["a"])


def test_without_locks_files_are_written_and_nothing_is_swept(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with AtomicFile(tmp_path / "a") as draft:
        assert sweep(tmp_path, "a".__eq__) == 0
        draft.publish()
    assert names(tmp_path) == ["a"]


def test_many_threads_write_one_file_and_each_version_is_whole(tmp_path):
    def many(mark):
        for _ in range(30):
            write_atomic(tmp_path / "a", mark * 50_000)

    threads = [threading.Thread(target=many, args=(mark,)) for mark in (b"a", b"b", b"c")]
    write_atomic(tmp_path / "a", b"a" * 50_000)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        data = (tmp_path / "a").read_bytes()
        assert len(data) == 50_000
        assert len(set(data)) == 1
    assert names(tmp_path) == ["a"]


def write_cached(folder):
    Disk(str(folder), 1 << 20).put("0" * 40, list(range(5000)))
    return {}


def write_index(folder):
    source = Source()
    index(expand(str(folder), lambda: source), source, progress=False)
    return {}


def write_plain(folder):
    write_atomic(os.path.join(folder, "a"), b"x" * 20_000)
    return {}


@pytest.mark.parametrize("kind", ["ERROR", "KILL"])
@pytest.mark.parametrize(
    "job", [write_plain, write_cached, write_index], ids=["a small file", "@cached(disk=)", "index beside shards"]
)
def test_broken_at_any_step_no_half_file_has_a_name_and_the_next_run_leaves_nothing_behind(tmp_path, job, kind):
    """Every place that writes files: the job of a child is broken at each thing that it asks of the system."""

    def fresh(name):
        folder = tmp_path / name
        folder.mkdir()
        if job is write_index:
            write_shards(folder, [2])
        return folder

    whole = fresh("whole")
    steps = child(partial(job, whole), Breaker(whole, 0, kind))["steps"]
    wanted = contents(whole)
    assert steps >= 3
    for number in range(1, steps + 1):
        folder = fresh(f"{number}")
        child(partial(job, folder), Breaker(folder, number, kind))
        for name, data in contents(folder).items():
            assert name.endswith(PART) or data == wanted[name]
        assert child(partial(job, folder), Breaker(folder, 0, kind))["status"] == 0
        if job is not write_plain:  # which is no job: nothing of it goes through the folder
            assert contents(folder) == wanted


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_of_values_forgets_what_a_killed_process_left(tmp_path):
    store = Disk(str(tmp_path), 1 << 20)
    store.put("ab" + "0" * 38, 1)
    left_behind(tmp_path / "ab" / f"ab{'1' * 38}.value")
    (tmp_path / "ab" / "notes.part").write_bytes(b"mine")
    assert len(names(tmp_path / "ab")) == 3
    Disk(str(tmp_path), 1 << 20).put("ab" + "2" * 38, 2)
    assert names(tmp_path / "ab") == [f"ab{'0' * 38}.value", f"ab{'2' * 38}.value", "notes.part"]
    assert store.get("ab" + "1" * 38) is MISS


def test_a_process_that_remembers_scans_sweeps_once(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "memory"))
    write_shards(tmp_path / "in", [2])
    (tmp_path / "memory" / "index").mkdir(parents=True, mode=0o700)
    left_behind(tmp_path / "memory" / "index" / "0.index.parquet")
    assert len(list(sp.stream(str(tmp_path / "in")))) == 2
    assert [name for name in names(tmp_path / "memory" / "index") if name.endswith(PART)] == []


def test_no_other_place_renames_or_makes_temporary_files():
    root = os.path.dirname(sp.__file__)
    found = []
    for folder, _, files in os.walk(root):
        for name in files:
            if name.endswith(".py") and "testing" not in folder:
                with builtins.open(os.path.join(folder, name), encoding="utf-8") as file:
                    text = file.read()
                if any(call in text for call in ("os.replace(", "os.rename(", "mkstemp(", "NamedTemporaryFile(")):
                    found.append(os.path.relpath(os.path.join(folder, name), root))
    assert found == ["atomic.py"]
