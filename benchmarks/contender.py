"""One contender of all.py in a process of its own: makes its data if need be, opens it, and works when it is told to.

Started by all.py with the interpreter of the contender's environment and a task as JSON. Each line on stdin asks for a
turn; each turn is answered by a line of JSON on stdout. What libraries print goes to stderr. Between turns all.py stops
the whole group of processes, so that nobody reads ahead in another's time.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

WARM = 6  # batches before the first turn


class Data(NamedTuple):
    """What all contenders are given: tars, a folder for the same samples in another format, and facts of them."""

    urls: list[str]
    folder: Path
    field: str
    number: int
    batch: int
    cores: int
    first: bool  # no other process of this library is there


def members(group: int) -> Iterator[tuple[int, list[str]]]:
    """The processes of a group, with the fields of their stat behind the name."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            yield int(stat.parent.name), fields


def cpu_seconds() -> float:
    """CPU time of this process, and of all others of its group, those that have ended included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = sum(sum(map(int, fields[11:15])) for pid, fields in members(os.getpgrp()) if pid != os.getpid())
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def photos(module: Any, task: dict[str, Any], data: Data) -> Callable[[int], dict[str, Any]]:
    """Turns of batches of images; so many batches or seconds, whichever is less."""
    batches = iter(module.photos(data, decoder(task["way"]), task["way"]))
    for _ in range(WARM):
        first = next(batches)
    facts = {"pixel": float(sample_of(first)), "batch": str(first.dtype).rpartition(".")[2]}

    def turn(_: int) -> dict[str, Any]:
        cpu, wall, seen = cpu_seconds(), time.perf_counter(), 0
        while seen < task["most"] * data.batch and time.perf_counter() - wall < task["seconds"]:
            for _ in range(data.cores):  # as many as are made at a time, so that a turn ends where it began
                check(next(batches), data.batch)
            seen += data.cores * data.batch
        return facts | {"seconds": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "samples": seen}

    return turn


def samples(module: Any, task: dict[str, Any], every: list[Data]) -> Callable[[int], dict[str, Any]]:
    """Turns of one pass over all samples of a size, opening them included."""

    def turn(which: int) -> dict[str, Any]:
        gc.collect()
        data = every[which]
        cpu, wall = cpu_seconds(), time.perf_counter()
        seen = module.samples(data, task["way"])
        found = {"seconds": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "samples": seen}
        if seen != data.number:
            raise AssertionError(f"it gave {seen} samples of {data.number}")
        return found

    for which in range(len(every)):
        turn(which)
    return turn


def decoder(way: str) -> Callable[[bytes], Any] | None:
    """The function that a loader is given; None where it decodes itself."""
    if way not in ("Pillow", "our decode"):
        return None
    import decoders

    return decoders.pillow_fit if way == "Pillow" else decoders.our_decode


def check(batch: Any, rows: int) -> None:
    shape = tuple(batch.shape)
    if shape not in ((rows, 3, 512, 512), (rows, 512, 512, 3)):
        raise AssertionError(f"it gave a batch of shape {shape}")


def sample_of(batch: Any) -> Any:
    """The mean of every 16th pixel, from 0 to 1: whether these are the same pictures."""
    few = batch.reshape(-1)[:: 16 * 3 + 1]
    return (few if str(few.dtype).startswith("float") else few / 255.0).mean()


def datas(task: dict[str, Any]) -> list[Data]:
    return [Data(**{**each, "folder": Path(each["folder"])}) for each in task["data"]]


def answers() -> Callable[[Any], None]:
    """Says something to all.py; from now on what is printed goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(what: Any) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    return say


def main() -> None:
    task = json.loads(sys.argv[1])
    say = answers()
    warnings.simplefilter("ignore")
    try:
        if task["cores"] == 1:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        module = importlib.import_module(f"peers.{task['module']}")
        every = datas(task)
        turn = photos(module, task, every[0]) if task["what"] == "photos" else samples(module, task, every)
        say({"ready": True})
        for line in sys.stdin:
            say(turn(int(line)))
    except BaseException as error:
        traceback.print_exc()
        text = (str(error).strip().splitlines() or ["no message"])[0]
        say({"error": f"{type(error).__name__}: {text}"})
    os._exit(0)  # workers, threads and pools are all.py's to end


if __name__ == "__main__":
    main()
