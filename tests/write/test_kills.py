"""A writer is killed, or its disk fails, at every step that it takes: the same run again gives the same bytes."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

import streampipe as sp
from tests.data import write_shards
from tests.warm import PIPE, Program
from tests.write import steps


@pytest.mark.parametrize("kind", ["ERROR", "KILL"])
@pytest.mark.usefixtures("warm")
def test_broken_at_any_step_and_run_again_it_writes_the_same_bytes(tmp_path, kind):
    write_shards(tmp_path / "in", [7, 6])
    (tmp_path / "work").mkdir()
    program = Program(steps.main, str(tmp_path / "in"), str(tmp_path / "work"), kind, stdout=PIPE, stderr=PIPE)
    said, errors = program.communicate()
    assert program.returncode == 0, errors
    found = json.loads(said.splitlines()[-1])
    assert found["wrong"] == 0, errors
    assert found["steps"] > 25
    assert not any(name.endswith(".part") for name in found["files"])


def slow(text):
    """Work in which a process can be killed."""
    return "".join(sorted(text * 300))


def slow_pipe(folder):
    return sp.stream(str(folder), shuffle=6).decode().map(slow, "txt")


def write_slowly(folder, out):
    options = {"max_samples": 3, "num_workers": 2, "multiprocessing_context": "fork", "progress": False}
    slow_pipe(folder).write(f"{out}/{{:05d}}.tar", **options)


@pytest.mark.usefixtures("warm")
def test_workers_and_their_parent_are_killed_at_any_moment(tmp_path):
    """SIGKILL to the parent when so many shards are there: workers end by themselves, and a new run finishes."""
    write_shards(tmp_path / "in", [30, 31])
    whole = tmp_path / "whole"
    slow_pipe(tmp_path / "in").write(f"{whole}/{{:05d}}.tar", max_samples=3, progress=False)
    out = tmp_path / "out"
    for shards in (1, 6, 13):
        process = Program(write_slowly, tmp_path / "in", out, start_new_session=True)
        while process.poll() is None and len(list(out.glob("*.tar"))) < shards:
            time.sleep(0.01)
        process.kill()
        process.wait()
        wait_for_group(process.pid)
        for path in out.glob("*.tar"):
            assert path.read_bytes() == (whole / path.name).read_bytes()
    for _ in range(2):  # threads of a killed process may hold its locks for a moment longer: the next run sweeps
        slow_pipe(tmp_path / "in").write(f"{out}/{{:05d}}.tar", max_samples=3, progress=False)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}


def wait_for_group(group):
    """Until no process of the group runs: the test's own time limit is the deadline."""
    while any(state != "Z" and number == group for state, number in states()):
        time.sleep(0.01)


def states():
    """State and process group of every process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        yield fields[0], int(fields[2])


def test_a_killed_worker_is_an_error_and_its_shard_is_made_by_the_next_run(tmp_path):
    write_shards(tmp_path / "in", [20])
    mark = tmp_path / "mark"

    def die_once(text):
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return text

    pipe = sp.stream(str(tmp_path / "in")).decode().map(die_once, "txt")
    options = {"max_samples": 4, "num_workers": 2, "multiprocessing_context": "fork", "progress": False}
    with pytest.raises(sp.PackError, match=r"status -9 \(killed, or out of memory\)"):
        pipe.write(f"{tmp_path}/out/{{:05d}}.tar", **options)
    summary = pipe.write(f"{tmp_path}/out/{{:05d}}.tar", **options)
    assert (summary.samples, summary.shards) == (20, 5)
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.usefixtures("warm")
def test_ranks_that_run_at_once_and_one_of_them_twice_write_the_same_bytes(tmp_path):
    write_shards(tmp_path / "in", [30, 31])
    slow_pipe(tmp_path / "in").write(f"{tmp_path}/whole/{{:05d}}.tar", max_samples=3, progress=False)
    worlds = [{"RANK": rank, "WORLD_SIZE": "2"} for rank in ("0", "1", "0")]
    running = [Program(write_slowly, tmp_path / "in", tmp_path / "out", environment=world) for world in worlds]
    assert [process.wait() for process in running] == [0, 0, 0]
    found, wanted = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("out", "whole"))
    assert found == wanted
