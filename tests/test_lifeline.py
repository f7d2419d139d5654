"""Workers end with the process that they work for: a real SIGKILL, under every way to start a process."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import streampipe as sp
from tests.data import write_shards
from tests.warm import Program

ROOT = Path(__file__).parents[1]

PARENT = """
import multiprocessing, os, sys, time
from streampipe.lifeline import end_with_parent

def work(pipe):
    end_with_parent()
    end_with_parent()
    pipe.send((os.getpid(), len([t for t in __import__("threading").enumerate() if t.name == "streampipe-parent"])))
    time.sleep(1000)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    ours, theirs = context.Pipe(duplex=False)
    for _ in range(3):
        context.Process(target=work, args=(theirs,), daemon=True).start()
    for _ in range(3):
        print(*ours.recv(), flush=True)
    time.sleep(1000)
"""


def stuck(said, text):
    (said / str(os.getpid())).touch()
    time.sleep(1000)


def write_and_hang(folder, said, method):
    options = {"max_samples": 2, "num_workers": 2, "progress": False, "multiprocessing_context": method}
    sp.stream(folder).decode().map(partial(stuck, said), "txt").write(f"{said}/out/{{:05d}}.tar", **options)


def runs(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end_of(pids):
    """The test's own time limit is the deadline."""
    while any(map(runs, pids)):
        time.sleep(0.02)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_end_when_their_parent_is_killed(tmp_path, method):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), method], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ROOT}
    ) as parent:
        told = [tuple(map(int, parent.stdout.readline().split())) for _ in range(3)]
        assert all(runs(pid) and threads == 1 for pid, threads in told)
        parent.send_signal(signal.SIGKILL)
        wait_for_end_of([pid for pid, _ in told])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.usefixtures("warm")
def test_workers_of_write_end_when_their_parent_is_killed_while_a_function_hangs(tmp_path, method):
    write_shards(tmp_path / "in", [4, 4])
    said = tmp_path / "said"
    said.mkdir()
    parent = Program(write_and_hang, tmp_path / "in", said, method)
    while len(workers := [int(path.name) for path in said.iterdir() if path.name.isdigit()]) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    wait_for_end_of(workers)


def test_a_worker_lives_on_when_only_the_fork_server_ends(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), "forkserver"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    ) as parent:
        pids = [int(parent.stdout.readline().split()[0]) for _ in range(3)]
        server = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
        assert server != parent.pid
        os.kill(server, signal.SIGKILL)
        with pytest.raises(TimeoutError):
            _until(lambda: not all(map(runs, pids)), seconds=2.5)
        parent.kill()
        wait_for_end_of(pids)


def _until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)
