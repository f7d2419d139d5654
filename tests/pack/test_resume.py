"""Interrupted, mended, run again: what is finished is kept, and the bytes are those of an unbroken run."""

import importlib
import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress

import pytest

import streampipe as sp
from streampipe.cli import main
from tests.pack.test_pack import contents, folder_of, quiet, start
from tests.warm import PIPE, Program


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("context", ["fork", "forkserver"])
@pytest.mark.usefixtures("warm")
def test_worker_processes_write_the_same_bytes(tmp_path, context):
    source = folder_of(tmp_path / "in", 30)
    quiet(source, tmp_path / "alone", max_samples=4, num_workers=0)
    summary = quiet(source, tmp_path / "many", max_samples=4, num_workers=3, multiprocessing_context=context)
    assert (summary.samples, summary.shards, summary.kept) == (30, 8, 0)
    assert files(tmp_path / "many") == files(tmp_path / "alone")


def test_a_mended_file_does_not_cost_the_finished_shards(tmp_path):
    source = folder_of(tmp_path / "in", 12)
    keys = sorted(key for key in (f"{i:03d}" if i % 2 == 0 else f"sub/{i:03d}" for i in range(12)))
    bad = source / f"{keys[7]}.jpg"
    bad.rename(source / "away")
    bad.symlink_to("loop.txt")
    bad_data = (source / "away").read_bytes()
    (source / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(sp.PackError, match="cannot be packed"):
        quiet(source, tmp_path / "out", max_samples=3)
    assert not (tmp_path / "out").exists()  # nothing was written
    (source / "loop.txt").unlink()
    bad.unlink()
    bad.write_bytes(bad_data)
    (source / "away").unlink()
    quiet(source, tmp_path / "whole", max_samples=3)
    assert quiet(source, tmp_path / "out", max_samples=3, on_error="skip").kept == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.usefixtures("warm")
def test_a_file_that_goes_bad_midway_is_mended_and_only_its_shard_is_made(tmp_path):
    source = folder_of(tmp_path / "in", 12)
    bad = source / "008.jpg"
    process = start(source, tmp_path / "out")  # shards of 4; the first has read at most a few files when ...
    process.stdout.readline()
    data, stamp = bad.read_bytes(), bad.stat().st_mtime_ns
    bad.write_bytes(b"short")
    assert process.wait() == 1
    process.stdout.close()
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["00000.tar"]
    bad.write_bytes(data)
    os.utime(bad, ns=(stamp, stamp))
    assert quiet(source, tmp_path / "out", max_samples=4).kept == 1
    quiet(source, tmp_path / "whole", max_samples=4)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_file_that_is_taken_away_costs_the_shards_behind_it_alone(tmp_path):
    source = folder_of(tmp_path / "in", 12)
    quiet(source, tmp_path / "out", max_samples=3)
    record = json.loads((tmp_path / "out" / "pack.json").read_text())
    (tmp_path / "out" / "pack.json").write_text(json.dumps({**record, "done": False}))  # as if it had not ended
    (source / "sub" / "003.jpg").unlink()
    (source / "sub" / "003.txt").unlink()
    assert quiet(source, tmp_path / "out", max_samples=3).kept == 2
    quiet(source, tmp_path / "whole", max_samples=3)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_was_skipped_and_is_mended_is_packed_by_the_same_command(tmp_path):
    source = folder_of(tmp_path / "in", 8)
    data = (source / "004.jpg").read_bytes()
    (source / "004.jpg").write_bytes(b"")
    first = quiet(source, tmp_path / "out", max_samples=2, on_error="skip")
    assert [(each.file, each.reason) for each in first.skipped] == [(str(source / "004.jpg"), "it is empty")]
    assert first.samples == 7
    (source / "004.jpg").write_bytes(data)
    again = quiet(source, tmp_path / "out", max_samples=2, on_error="skip")
    assert (again.samples, again.kept, again.skipped) == (8, 1, [])
    assert not (tmp_path / "out" / "skipped.jsonl").exists()
    quiet(source, tmp_path / "whole", max_samples=2)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_dataset_that_is_finished_is_not_changed(tmp_path):
    source = folder_of(tmp_path / "in", 6)
    quiet(source, tmp_path / "out", max_samples=2)
    before = files(tmp_path / "out")
    assert quiet(source, tmp_path / "out", max_samples=2).kept == 3
    assert files(tmp_path / "out") == before
    (source / "000.txt").write_text("another caption")
    with pytest.raises(sp.OutputBusy, match=r"finished, and the files of 1 of its shards have changed .*00000\.tar"):
        quiet(source, tmp_path / "out", max_samples=2)
    shutil.move(source, tmp_path / "moved")
    with pytest.raises(sp.OutputBusy, match="its folder was .*/in', and is .*/moved' here"):
        quiet(tmp_path / "moved", tmp_path / "out", max_samples=2)
    assert files(tmp_path / "out") == before


def test_a_journal_that_is_cut_short_or_nonsense_costs_shards_not_correctness(tmp_path):
    source = folder_of(tmp_path / "in", 8)
    quiet(source, tmp_path / "out", max_samples=2)
    before = files(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "pack.json").read_text())
    for journal, kept in ((before["packed.jsonl"][:-40], 3), (b"\xff\xfe{[", 0), (b'{"shard": 3}\n[1]\n"x"', 0)):
        (tmp_path / "out" / "pack.json").write_text(json.dumps({**record, "done": False}))
        (tmp_path / "out" / "packed.jsonl").write_bytes(journal)
        assert quiet(source, tmp_path / "out", max_samples=2).kept == kept
        assert files(tmp_path / "out") == before


def pack_slowly(source, out, workers):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    importlib.import_module("tests.pack.slow")
    sys.exit(main(["pack", str(source), str(out), "--max-samples", "4", "--workers", str(workers), "--quiet"]))


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_with_its_workers_it_goes_on(tmp_path, number, workers):
    """Ctrl-C reaches the whole group, as from a terminal; SIGKILL the parent alone."""
    source = folder_of(tmp_path / "in", 40)
    quiet(source, tmp_path / "whole", max_samples=4)
    wanted, out = files(tmp_path / "whole"), tmp_path / "out"
    for shards in (1, 4, 7):
        process = Program(pack_slowly, source, out, workers, start_new_session=True, stderr=PIPE)
        while process.poll() is None and len(list(out.glob("*.tar"))) < shards:
            time.sleep(0.005)
        with suppress(ProcessLookupError):  # it was faster
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        error = process.stderr.read()  # until the last process of the group has ended
        status = process.wait()
        process.stderr.close()
        if status == 0:
            break
        assert status == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert error == ("streampipe: interrupted; run the same command again to go on\n" if status == 130 else "")
        for path in out.glob("*.tar"):
            assert path.read_bytes() == wanted[path.name]
    for _ in range(2):  # threads of a killed process may hold its locks for a moment longer: the next run sweeps
        assert main(["pack", str(source), str(out), "--max-samples", "4", "--quiet"]) == 0
    lock = {".pack.lock": b""}
    assert {**files(out), **lock} == {**wanted, **lock}


def test_a_killed_worker_is_one_sentence_and_the_next_run_goes_on(tmp_path, monkeypatch):
    source = folder_of(tmp_path / "in", 12)
    mark = tmp_path / "mark"
    module = sys.modules["streampipe.pack.contents"]
    really = module.read_file

    def die_once(folder, file, name, *more):
        if file.path.startswith("sub") and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return really(folder, file, name, *more)

    monkeypatch.setattr(module, "read_file", die_once)
    options = {"max_samples": 2, "num_workers": 2, "multiprocessing_context": "fork"}
    with pytest.raises(sp.PackError, match=r"status -9 \(killed, or out of memory\)"):
        quiet(source, tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("*.part"))
    assert quiet(source, tmp_path / "out", **options).samples == 12
    assert len(contents(tmp_path / "out")) == 12
