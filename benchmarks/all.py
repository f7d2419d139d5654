"""Every loader beside every other in one run: photos to 512 x 512 on one core and on two, and bytes without decoding.

    python benchmarks/all.py --images FOLDER_OF_PHOTOS --peers FOLDER [--quick] [--only photos bytes] [--out FOLDER]

Each contender (benchmarks/peers/ has one file for each library) is a process of its own, with the interpreter of its
own environment below --peers, which is made at first use; without --peers only what is installed here takes part. All
are started and warmed up, and then take turns; whoever has no turn is stopped. Printed are medians over the turns, as
Markdown; --out also gets all.md, all.json and all.svg. A contender that cannot be had, fails or takes too long is a row
that says so. On a machine that others use trust CPU time; the load is printed.

Photos: as JPEGs of 768 pixels at most (or --format png, webp) in shards of 128, batches of 32 uint8. "Pillow" is open,
convert, ImageOps.fit; "our decode" is streampipe's decoder, as a function that a loader is given. One core: the process
and what it starts may use no other. Two: as many workers or threads; torch itself computes in one thread. The order is
that of the shards. SPDL's own decoder needs the shared libraries of FFmpeg (LD_LIBRARY_PATH, or of the system).
Bytes: a pass over all samples of 4, 40 and 400 kB with a text and a json, one process; opening is in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from contender import members
from environments import PACKAGES, interpreter
from report import markdown, plot

HERE = Path(__file__).parent
MODULES = {
    "streampipe": "ours",
    "webdataset": "webdataset",
    "MosaicML": "mosaicml",
    "LitData": "litdata",
    "HF datasets": "datasets",
    "Energon": "energon",
    "Grain": "grain",
    "SPDL": "spdl",
    "TurboLoader": "turboloader",
    "datago": "datago",
    "Zephon": "zephon",
    "LanceDB": "lancedb",
    "no loader": "bare",
}
QUICK_WITHOUT_PILLOW = ("MosaicML", "LitData", "HF datasets", "Energon")
KILOBYTES = (4, 40, 400)
BATCH = 32
START, TURN = 180, 60  # seconds that a contender may take to be ready, and for a turn


@dataclass
class Contender:
    """A library, a way of using it, and what its turns gave; or why there are none."""

    who: str
    way: str
    cores: int
    task: dict[str, Any]
    python: str = sys.executable
    turns: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    problem: str = ""
    process: subprocess.Popen[str] | None = None

    def start(self, log: Path) -> None:
        """Up to its first turn; then it is stopped."""
        if self.problem:
            return
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}:{HERE}", "RUST_LOG": "error"}
        command = [self.python, str(HERE / "contender.py"), json.dumps(self.task)]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
            )
        if self._answer(START):
            self._signal(signal.SIGSTOP)

    def turn(self, which: int) -> None:
        """One turn; nobody else works meanwhile."""
        if self.problem:
            return
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{which}\n")
            self.process.stdin.flush()
        found = self._answer(TURN)
        self._signal(signal.SIGSTOP)
        if found:
            self.turns.setdefault(which, []).append(found)

    def end(self) -> None:
        """Kill all of it, and take away the batches that torch's workers had in shared memory."""
        if self.process is not None:
            every = [pid for pid, _ in members(self.process.pid)]
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
            for pid in every:
                for left in Path("/dev/shm").glob(f"torch_{pid}_*"):
                    left.unlink(missing_ok=True)

    def median(self, what: str, which: int = 0) -> float | None:
        """Of seconds, or of CPU seconds, for one sample."""
        found = [turn[what] / turn["samples"] for turn in self.turns.get(which, [])]
        return statistics.median(found) if found else None

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        found = json.loads(line) if line else {"error": "it ended" if ready else f"nothing for {seconds} s"}
        if "error" in found:
            self.problem = found["error"][:200]
            self.turns.clear()
            self.end()
            return None
        return found

    def _signal(self, which: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, which)


def contenders(what: str, cores: int, data: list[dict[str, Any]], given: argparse.Namespace) -> list[Contender]:
    """All of them; those that cannot be had with the reason."""
    made = []
    for who, module in MODULES.items():
        if given.contenders and who not in given.contenders:
            continue
        ways = getattr(import_module(f"peers.{module}"), what.upper())
        for way in ways or ("",):
            if (cores == 1 and "workers" in way) or (given.quick and way == "Pillow" and who in QUICK_WITHOUT_PILLOW):
                continue
            first = all(each.who != who for each in made)
            task = {"what": what, "module": module, "way": way, "cores": cores}
            task |= {"data": [facts | {"first": first} for facts in data]}
            task |= {"most": 36, "seconds": 1.0 if given.quick else 2.0}
            made.append(Contender(who, way, cores, task))
            if ways:
                find(made[-1], given)
            else:
                made[-1].problem = "it reads images only"
    return made


def find(contender: Contender, given: argparse.Namespace) -> None:
    """Its interpreter, looked for once for each library; or why there is none."""
    who = contender.who
    try:
        if who in PACKAGES:
            contender.python = given.pythons[who] = given.pythons.get(who) or interpreter(who, given.peers)
    except LookupError as error:
        contender.problem = str(error)


def compete(every: list[Contender], turns: int, sizes: int, log: Path) -> None:
    """Start all, and let them take turns."""
    try:
        for each in every:
            say(f"{each.who}, {each.way}")
            each.start(log)
        for number in range(turns):
            for each in every:
                say(f"turn {number + 1} of {turns}: {each.who}, {each.way}")
                for which in range(sizes):
                    each.turn(which)
    finally:
        for each in every:
            each.end()
        say("")


def say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{what:<78}", end="\r" if not what else "", file=sys.stderr, flush=True)


def photo_data(given: argparse.Namespace, cores: int) -> list[dict[str, Any]]:
    from data import photos, smaller

    small = smaller(given.images, given.folder / f"photos-768{given.format.replace('jpg', '')}", given.format)
    shards = 8 if given.quick else 32
    urls = photos(given.folder, small, shards=shards, each=128, format=given.format)
    folder = given.folder / f"all-{given.format}-{shards}"
    folder.mkdir(exist_ok=True)
    facts = {"field": given.format, "number": shards * 128, "batch": BATCH, "cores": cores}
    return [{"urls": urls, "folder": str(folder), **facts}]


def byte_data(given: argparse.Namespace) -> list[dict[str, Any]]:
    from data import samples_of, shards

    every = []
    for kilobytes in given.kilobytes:
        number = max(600, min(10_000, 120_000 // kilobytes))
        name = f"bytes-{kilobytes}-{number}"
        urls = shards(given.folder, name, samples_of(kilobytes, number))
        folder = given.folder / f"all-{name}"
        folder.mkdir(exist_ok=True)
        facts = {"field": "jpg", "number": number, "batch": BATCH, "cores": 1}
        every.append({"urls": urls, "folder": str(folder), **facts})
    return every


def machine() -> dict[str, Any]:
    import torch

    facts = {"python": platform.python_version(), "torch": torch.__version__, "cores": len(os.sched_getaffinity(0))}
    return facts | {"load before": os.getloadavg()[0], "when": time.strftime("%Y-%m-%d %H:%M")}


def runs(given: argparse.Namespace) -> Iterator[tuple[str, list[Contender]]]:
    log = given.out / "all.log"
    log.write_bytes(b"")
    turns = given.turns or (1 if given.quick else 3)
    if "photos" in given.only:
        for cores in (2,) if given.quick else (1, 2):
            every = contenders("photos", cores, photo_data(given, cores), given)
            compete(every, turns, 1, log)
            yield f"photos, {cores}", every
    if "bytes" in given.only:
        every = contenders("samples", 1, byte_data(given), given)
        compete(every, turns, len(given.kilobytes), log)
        yield "bytes", every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = Path(tempfile.gettempdir()) / "streampipe-benchmarks"
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photos")
    parser.add_argument("--peers", type=Path, help="where the environments of the others are, or will be, made")
    parser.add_argument("--folder", type=Path, default=there, help="where the data is, or will be, made")
    parser.add_argument(
        "--out", type=Path, default=there, help="where all.md, all.json, all.svg and all.log are written"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short turn, fewer photos, two cores, 40 kB: to try it"
    )
    parser.add_argument("--turns", type=int, help="of each contender")
    parser.add_argument("--format", choices=("jpg", "png", "webp"), default="jpg")
    parser.add_argument("--only", nargs="+", choices=("photos", "bytes"), default=("photos", "bytes"))
    parser.add_argument("--contenders", nargs="+", choices=tuple(MODULES))
    given = parser.parse_args()
    given.kilobytes, given.pythons = (40,) if given.quick else KILOBYTES, {}
    for folder in (given.folder, given.out):
        folder.mkdir(parents=True, exist_ok=True)
    start, facts = time.monotonic(), machine()
    found = dict(runs(given))
    facts |= {"load after": os.getloadavg()[0], "minutes": round((time.monotonic() - start) / 60, 1)}
    text = markdown(found, facts, given.kilobytes, given.format)
    print(text)
    (given.out / "all.md").write_text(text)
    (given.out / "all.svg").write_text(plot(found))
    kept = ("who", "way", "cores", "problem", "turns")
    rows = {what: [{name: getattr(each, name) for name in kept} for each in every] for what, every in found.items()}
    (given.out / "all.json").write_text(json.dumps({"machine": facts} | rows, indent=1))


if __name__ == "__main__":
    main()
