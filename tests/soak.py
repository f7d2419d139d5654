"""A soak: jobs of several processes stream for a long time from a server that breaks, through a cache that is too
small, and are killed and resumed all the while. ``python tests/soak.py [--minutes 3 | --hours 2] [--seed 0]``.

Two jobs (one planned, one sequential) of two ranks with worker processes share one cache. Every connection may be
reset, cut, slowed down or stalled; rank 1 of each job is killed at random, alone or with its workers, and started again
from the state that it saved last. In the end: every sample of every finished epoch came exactly once, memory and
descriptors of rank 0 (which lives all the time) did not grow, and nothing is left behind: no process, no part of a
download, no lock.

Not collected by pytest; ``tests/test_soak.py`` runs a short one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import streampipe as sp
from streampipe.index.scan import scan
from streampipe.source import Source
from streampipe.tar import Limits
from streampipe.testing import (
    Bandwidth,
    ChaosProxy,
    Cut,
    Delay,
    FaultServer,
    Latency,
    LimitData,
    Reset,
    ResetPeer,
    Stall,
    Status,
    Throttle,
)
from tests.data import shard

SHARDS, SAMPLES, BYTES = 16, 20, 6_000
NETWORK = sp.Network(tries=40, stall=2.0, first_wait=0.02, longest_wait=0.3, memory=8 << 20)  # soon all in use


def tree(pid):
    """A process and its descendants."""
    found, waiting = [], [pid]
    while waiting:
        each = waiting.pop()
        found.append(each)
        try:
            waiting += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
        except OSError:
            continue
    return found


def used(pid):
    """Memory (MB, shared pages counted by share), descriptors and threads of a process and its descendants."""
    memory = descriptors = threads = 0
    for each in tree(pid):
        try:
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
            memory += int(rollup.partition("Pss:")[2].split()[0])
            descriptors += len(os.listdir(f"/proc/{each}/fd"))
            threads += len(os.listdir(f"/proc/{each}/task"))
        except (OSError, IndexError):
            continue
    return memory / 1024, descriptors, threads


def train(folder, job, rank, url, workers):
    """A rank of a job: a line for each batch with the state behind it, in one write: a kill leaves it whole or out."""
    log = Path(folder) / f"{job}-{rank}.log"
    cache = sp.Cache(Path(folder) / "cache", max_bytes=int(os.environ["SOAK_CACHE"]))
    pipe = sp.stream(url, seed=1, shuffle=30, epochs=None, tier=job, cache=cache, network=NETWORK).batch(8)
    loader = pipe.loader(
        num_workers=workers, rank=rank, world_size=2, **({} if job == "planned" else {"steps_per_epoch": 40})
    )
    text = log.read_bytes() if log.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]  # a line that a kill cut off is not there
    file = os.open(log, os.O_WRONLY | os.O_CREAT, 0o644)
    os.ftruncate(file, len(whole))
    os.lseek(file, 0, os.SEEK_END)
    if whole:
        loader.load_state_dict(json.loads(whole.splitlines()[-1])["state"])
    stop = Path(folder) / "stop"
    while not stop.exists():
        for number, batch in enumerate(loader):
            line = {"samples": [[p.epoch, key] for p, key in zip(batch["__position__"], batch["__key__"], strict=True)]}
            line |= {"state": loader.state_dict()}
            if number % 10 == 0:
                line |= {"used": used(os.getpid())}
            os.write(file, json.dumps(line).encode() + b"\n")
            if stop.exists():
                break


class Job:
    """The ranks of a job, as processes."""

    def __init__(self, folder, name, url, workers):
        self.arguments = [str(folder), name], [url, str(workers)]
        self.folder, self.name = folder, name
        self.written = 0  # bytes of rank 1's log when it was started last
        self.seen: set[int] = set()
        self.kills = 0
        self.ranks = [self.start(0), self.start(1)]

    def start(self, rank):
        before, behind = self.arguments
        self.written = self.size(1)
        command = [sys.executable, __file__, "--train", *before, str(rank), *behind]
        with open(self.folder / f"{self.name}-{rank}.err", "ab") as errors:
            return subprocess.Popen(command, stdout=errors, stderr=errors, start_new_session=True)

    def watch(self):
        """Start again what ended, and remember every process that there ever was."""
        for rank, process in enumerate(self.ranks):
            self.seen.update(tree(process.pid))
            if process.poll() is not None:
                if rank == 0:
                    raise SystemExit(f"rank 0 of {self.name} ended:\n" + self.errors(0))
                self.ranks[rank] = self.start(rank)

    def errors(self, rank):
        return (self.folder / f"{self.name}-{rank}.err").read_text()[-3000:]

    def kill(self, rng):
        """Rank 1: the whole group, its main process alone, or a worker alone; once it has done something."""
        if self.size(1) <= self.written:
            return
        process = self.ranks[1]
        below = tree(process.pid)[1:]
        self.seen.update(below)
        how = rng.choice(("group", "main", "worker"))
        try:
            if how == "group":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(rng.choice(below) if how == "worker" and below else process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills += 1

    def size(self, rank):
        path = self.folder / f"{self.name}-{rank}.log"
        return path.stat().st_size if path.exists() else 0

    def lines(self, rank):
        path = self.folder / f"{self.name}-{rank}.log"
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def check(self):
        """Exactly once: (finished epochs, samples); raises if a sample is missing or came twice."""
        got = Counter()
        for rank in range(2):
            for line in self.lines(rank):
                got.update((epoch, key) for epoch, key in line["samples"])
        twice = [each for each, count in got.items() if count > 1]
        assert not twice, f"{self.name}: {len(twice)} samples came twice: {twice[:5]}"
        last = [max(epoch for line in self.lines(rank) for epoch, _ in line["samples"]) for rank in range(2)]
        finished = min(last)  # both ranks have begun an epoch: those before it are whole
        for epoch in range(finished):
            count = sum(1 for e, _ in got if e == epoch)
            assert count == SHARDS * SAMPLES, f"{self.name}: {count} of {SHARDS * SAMPLES} samples in epoch {epoch}"
        return finished, sum(got.values())

    def flat(self):
        """Memory (MB), descriptors and threads of rank 0 in the middle fifth of the time and in the last."""
        found = [line["used"] for line in self.lines(0) if "used" in line]
        fifth = max(1, len(found) // 5)
        early, late = found[2 * fifth : 3 * fifth] or found, found[-fifth:]
        columns = zip(zip(*early, strict=True), zip(*late, strict=True), strict=True)
        return [(round(statistics.median(before)), round(statistics.median(behind))) for before, behind in columns]


def random_fault(rng, size):
    return rng.choice(
        (
            lambda: Reset(rng.randrange(size)),
            lambda: Cut(rng.randrange(size)),
            lambda: Status(503, {"Retry-After": "0"}),
            lambda: Status(500),
            lambda: Delay(rng.random() / 5),
            lambda: Throttle(200_000),
            lambda: Stall(rng.randrange(size), 3.0),
        )
    )()


def random_toxic(rng):
    return rng.choice(
        (
            lambda: None,
            lambda: None,
            lambda: ResetPeer(rng.randrange(200_000)),
            lambda: LimitData(rng.randrange(1, 200_000)),
            lambda: Latency(rng.random() / 20),
            lambda: Bandwidth(500_000),
        )
    )()


def soak(folder, seconds, seed, workers, jobs, every):
    """Run it. The report, as a dict."""
    rng = random.Random(seed)
    objects = {}
    for number in range(SHARDS):
        body = [(f"{number:03d}{i:04d}", {"bin": rng.randbytes(BYTES), "txt": str(i)}) for i in range(SAMPLES)]
        data = shard(body)
        (folder / "a.tar").write_bytes(data)
        objects[f"{number:05d}.tar"] = data
        objects[f"{number:05d}.index.parquet"] = scan(str(folder / "a.tar"), Source(), Limits()).to_bytes()
    size = len(data)
    os.environ["SOAK_CACHE"] = str(4 * size)
    faults = largest = 0
    threads = threading.active_count()
    with FaultServer(objects) as server, ChaosProxy(server.port) as proxy:
        url = proxy.url(f"{{00000..{SHARDS - 1:05d}}}.tar").replace("%7B", "{").replace("%7D", "}")
        running = [Job(folder, name, url, workers) for name in jobs]
        try:
            begun = time.monotonic()
            while not all(job.size(rank) for job in running for rank in range(2)):
                assert time.monotonic() - begun < 180, "".join(job.errors(0) for job in running) or "no batch came"
                time.sleep(0.05)
            end, next_kill = time.monotonic() + seconds, time.monotonic() + every / 2
            while time.monotonic() < end:
                time.sleep(0.05)
                name = f"{rng.randrange(SHARDS):05d}.tar"
                if rng.random() < 0.5:
                    server.script(name, random_fault(rng, size))
                    faults += 1
                if rng.random() < 0.3:
                    proxy.next(random_toxic(rng))
                    faults += 1
                largest = max(largest, held(folder / "cache"))
                for job in running:
                    job.watch()
                if time.monotonic() > next_kill and end - time.monotonic() > every:
                    rng.choice(running).kill(rng)
                    next_kill = time.monotonic() + every * (0.5 + rng.random())
            (folder / "stop").touch()
            for job in running:
                for rank, process in enumerate(job.ranks):
                    assert process.wait(60) in (0, 1, -9, -15), job.errors(rank)
        finally:
            for job in running:
                for process in job.ranks:
                    job.seen.update(tree(process.pid))
                    process.kill()
                    process.wait()
    deadline = time.monotonic() + 15  # a worker looks every second whether its parent lives
    orphans = [pid for job in running for pid in job.seen]
    while (orphans := [pid for pid in orphans if is_ours(pid, folder)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    sp.Cache(folder / "cache").make_room(0)  # as the next job does: parts whose writer is gone are deleted
    left = sorted(path.name for path in (folder / "cache").iterdir() if path.suffix != ".shard")
    report = {"seconds": seconds, "faults": faults, "kills": sum(job.kills for job in running)}
    report |= {"cache": f"{largest / 4 / size:.2f} of its limit at most", "requests": len(server.requests)}
    for job in running:
        epochs, samples = job.check()
        memory, descriptors, its_threads = job.flat()
        report[job.name] = {
            "epochs": epochs,
            "samples": samples,
            "memory": memory,
            "descriptors": descriptors,
            "threads": its_threads,
        }
        if seconds >= 60:
            assert memory[1] < 1.15 * memory[0] + 20, f"{job.name}: memory grew from {memory[0]} to {memory[1]} MB"
            assert descriptors[1] < descriptors[0] + 15, f"{job.name}: descriptors grew, {descriptors}"
            assert its_threads[1] < its_threads[0] + 15, f"{job.name}: threads grew, {its_threads}"
    assert not orphans, f"processes are left: {orphans}"
    assert not left, f"the cache holds {left}"
    assert threading.active_count() <= threads
    return report


def held(folder):
    """Bytes in a folder that others change meanwhile."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def is_ours(pid, folder):
    """Whether a process lives, and is one of this soak: numbers are used again."""
    try:
        running = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return running and str(folder) in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--hours", type=float, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--jobs", nargs="+", default=["planned", "sequential"], choices=["planned", "sequential"])
    parser.add_argument("--kill-every", type=float, default=8, metavar="SECONDS")
    parser.add_argument("--train", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        folder, job, rank, url, workers = given.train
        train(folder, job, int(rank), url, int(workers))
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        seconds = 3600 * given.hours or 60 * given.minutes
        report = soak(Path(folder), seconds, given.seed, given.workers, given.jobs, given.kill_every)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
