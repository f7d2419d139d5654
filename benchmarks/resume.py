"""Resume on other ranks and workers, beside others: the same data, the same jobs, the same questions.

    python benchmarks/resume.py [--peers FOLDER] [--only NAME ...]
    python benchmarks/resume.py --sequential

MosaicML streaming, LitData, Megatron-Energon, Zephon and LanceDB are installed into a virtual environment each under
FOLDER, once; one that cannot be installed is left out with a message. Every rank is a process (RANK, WORLD_SIZE, ...; a
gloo group). A job of 2 ranks with 2 workers runs through an epoch and saves its state on the way; others go on from
there. The table says how many of the global batches that follow are, as sets, those of the job that went on; and of the
whole epoch, what was read before the stop included, how many samples came twice and how many never. A refusal is
quoted. "no index" and "filter" are this library over tars of which nothing is known, the latter with a filter of the
user's; there a pass is 30 steps of an endless stream.
With --sequential: the seconds to the first batch after a resume of a sequential stream, by where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from environments import interpreter
from resume_rank import CONTENDERS, OURS, Streampipe

import streampipe as sp

HERE = Path(__file__).parent
SAMPLES, EACH = 2000, 50  # samples, samples a shard


class Job(NamedTuple):
    """Ranks, worker processes on each, samples of a rank's batch."""

    ranks: int
    workers: int
    batch: int

    def __str__(self) -> str:
        return f"{self.ranks} x {self.workers}, {self.batch}"


FIRST = Job(2, 2, 24)
OTHERS = [Job(2, 2, 24), Job(4, 1, 12), Job(2, 0, 24), Job(2, 3, 24), Job(1, 3, 48), Job(3, 2, 16), Job(4, 1, 24)]


def run(name: str, python: str, folder: Path, job: Job, label: str, states: list[Path]) -> list[list[str]] | str:
    """The global batches of a job, each sorted; or what it said where it failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    task = {"contender": name, "data": str(folder / "data"), "batch": job.batch, "workers": job.workers}
    task |= {"states": [str(path) for path in states], "save_at": CONTENDERS[name].save_at}
    task |= {"save": str(folder / f"{label}.state"), "out": str(folder / f"{label}.keys")}
    group = {"WORLD_SIZE": job.ranks, "LOCAL_WORLD_SIZE": job.ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = []
    for rank in range(job.ranks):
        mine = {**group, "RANK": rank, "LOCAL_RANK": rank, "GLOBAL_RANK": rank, "OMP_NUM_THREADS": 1}
        command = [python, str(HERE / "resume_rank.py"), json.dumps(task)]
        environment = {**os.environ, **{key: str(value) for key, value in mine.items()}}
        ranks.append(subprocess.Popen(command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=-1))
    said = []
    try:
        for each in ranks:
            said.append(each.communicate(timeout=180)[1])
            if each.returncode:  # the others would wait for it
                break
    except subprocess.TimeoutExpired:
        return "hangs: no end within 180 s"
    finally:
        for each in ranks:
            each.kill()
            each.wait()
    if any(each.returncode for each in ranks):
        lines = [line for line in said[-1].strip().splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line.partition(":")[0] and not line.startswith(" ")]
        return (errors or lines or ["no message"])[-1]
    parts = [json.loads(Path(f"{task['out']}.{rank}").read_text()) for rank in range(job.ranks)]
    steps = max(map(len, parts))
    return [sorted(key for part in parts for key in (part[step] if step < len(part) else [])) for step in range(steps)]


def verdict(
    before: list[list[str]], whole: list[list[str]], after: list[list[str]] | str, endless: int | None = None
) -> str:
    """What became of the rest of the epoch; of as many steps, where the stream is endless."""
    if isinstance(after, str):
        return f"refused: {after[:110]}"
    wanted = whole[len(before) :]
    same = sum(a == b for a, b in zip(wanted, after, strict=False))
    counts = Counter(key for batch in before + after for key in batch)
    every = SAMPLES if endless is None else len({key for batch in whole for key in batch})
    never = f"{every - len(counts)} never" if endless is None or len(wanted) == len(after) else "goes on"
    return f"{same} of {len(wanted)} the same; {sum(counts.values()) - len(counts)} twice, {never}"


def compare(name: str, python: str, folder: Path) -> Iterator[tuple[str, str]]:
    """All questions to one contender."""
    (folder / "data").mkdir(parents=True)
    task = json.dumps({"contender": name, "data": str(folder / "data"), "samples": SAMPLES, "each": EACH})
    made = subprocess.run([python, str(HERE / "resume_rank.py"), task], capture_output=True, text=True, check=False)
    if made.returncode:
        yield "data", "cannot be written: " + made.stderr.strip().splitlines()[-1]
        return
    whole = run(name, python, folder, FIRST, "whole", [])
    if isinstance(whole, str):
        yield "the epoch", whole
        return
    stop, endless = CONTENDERS[name].save_at, CONTENDERS[name].steps
    yield f"{FIRST}: the epoch", verdict([], whole, whole, endless)
    yield f"{FIRST}: once more", verdict([], whole, run(name, python, folder, FIRST, "again", []), endless)
    yield f"{OTHERS[1]}: from the start", verdict([], whole, run(name, python, folder, OTHERS[1], "other", []), endless)
    states = [folder / f"whole.state.{rank}" for rank in range(FIRST.ranks)]
    for number, job in enumerate(OTHERS):
        after = run(name, python, folder, job, f"rest{number}", states)
        yield f"{FIRST} -> {job}", verdict(whole[:stop], whole, after, endless)


@sp.stage
def opaque(samples: Iterable[Any]) -> Iterator[Any]:
    """A stage of which nothing is known."""
    yield from samples


def time_sequential(shards: int = 50, each: int = 2000, batch: int = 100) -> None:
    """Seconds to the first batch: of a chain whose stages all count, and of one with an opaque stage."""
    with tempfile.TemporaryDirectory() as folder:
        Streampipe().make(Path(folder), shards * each, each)
        pipe = sp.stream(folder, tier="sequential", shuffle=2000, epochs=None)
        known, unknown = pipe.batch(batch), pipe.apply(opaque).batch(batch)
        epoch = shards * each // batch
        stops = {"a tenth of an epoch": epoch // 10, "an epoch, nearly": epoch - 1, "three and a half": epoch * 7 // 2}
        for how, chain in (("all stages count", known), ("a stage is opaque", unknown)):
            states, loader = {}, chain.loader(0)
            for given, _ in enumerate(islice(loader, max(stops.values())), 1):
                if given in stops.values():
                    states[given] = loader.state_dict()
            for what, step in stops.items():
                resumed = chain.loader(0)
                resumed.load_state_dict(states[step])
                start = time.perf_counter()
                next(iter(resumed))
                print(f"stopped after {what:<20} {how:<20} {time.perf_counter() - start:6.2f} s", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = Path(tempfile.gettempdir()) / "peers"
    parser.add_argument("--peers", type=Path, default=there, help="where the others are, or will be, installed")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), help="contenders")
    parser.add_argument("--sequential", action="store_true", help="time resumes of a sequential stream instead")
    options = parser.parse_args()
    if options.sequential:
        time_sequential()
        return
    print(f"{SAMPLES} samples, {EACH} a shard, shuffled; ranks x workers, batch of a rank; a state after 13 steps")
    for name in options.only:
        try:
            python = sys.executable if name in OURS else interpreter(name, options.peers)
        except LookupError as error:
            print(f"{name} is left out: {error}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            for what, found in compare(name, python, Path(folder)):
                print(f"{name:<10}  {what:<26}  {found}", flush=True)


if __name__ == "__main__":
    main()
