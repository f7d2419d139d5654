"""What it costs to know a large dataset: requests, bytes, seconds and memory until there is a plan.

python benchmarks/scale.py remote                          # where over 20,000 remote shards of 10,000 samples
python benchmarks/scale.py remote --shards 200000          # 2 x 10^9 samples
python benchmarks/scale.py remote --what all --shards 1000000   # no question, a manifest of a million shards
python benchmarks/scale.py local                           # the first batch of 10,000 local shards
python benchmarks/scale.py names                           # a brace range of 10^6, a folder of 10^5

The facts are simulated: a file of them for some hundred shards is made once, and the manifest names it over and over,
as if each were another. All bytes are sent by a server on loopback, and counted there. Each measurement is a process.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import streampipe as sp
from streampipe.engine.compile import compile
from streampipe.index.manifest import NAME, Entry, Part, to_bytes
from streampipe.index.merged import Merger
from streampipe.index.table import LEFT_OUT, NESTED, ShardIndex
from streampipe.spec import Job
from streampipe.tar import TarWriter
from streampipe.testing import FaultServer

WHAT = {
    "all": lambda pipe: pipe,
    "where": lambda pipe: pipe.where("width >= 512 and aesthetic > 5"),
    "bucket": lambda pipe: pipe.bucket("sdxl"),
}


def facts(rows: int, seed: int) -> ShardIndex:
    """The facts of a shard of so many samples, as LAION has them."""
    rng = np.random.default_rng(seed)
    table = pa.table(
        {
            "key": pa.array([f"{seed:05d}{i:05d}" for i in range(rows)]),
            "width": pa.array(rng.integers(256, 2048, rows), pa.int32()),
            "height": pa.array(rng.integers(256, 2048, rows), pa.int32()),
            "aesthetic": pa.array(rng.normal(5, 1, rows).round(3)),
            "punsafe": pa.array(rng.random(rows).round(4)),
            "fields": pa.array([[{"name": "jpg", "size": 99_000}]] * rows),
        }
    )
    return ShardIndex(table, {"bytes": rows * 100_000, NESTED: True, LEFT_OUT: False})


def dataset(shards: int, rows: int, at_once: int = 400) -> dict[str, bytes]:
    """The objects of a dataset: a manifest, and a file of facts that it names again and again."""
    objects: dict[str, bytes] = {}
    merger = Merger(objects.__setitem__)
    for number in range(min(shards, at_once)):
        merger.add(facts(rows, number))
    merger.close()
    parts, left = list[Part](), shards
    while left:
        for part in merger.parts:
            take = part if part.shards <= left else Part(left)  # of the last few nothing is known
            parts += [take] if take.shards else []
            left -= take.shards
    size = -(-rows * 100_000 // 512) * 512
    objects[NAME] = to_bytes([Entry(f"{i:07d}.tar", size, rows, f"{i:064x}") for i in range(shards)], parts)
    return objects


def peak() -> float:
    """The most memory that this process ever had, in MB; what its parent had is no part of it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def plan(url: str, what: str) -> None:
    """One start of a job: from the URL to the plan."""
    begun, used = time.perf_counter(), time.process_time()
    before = peak()
    pipe = WHAT[what](sp.stream(url, shuffle=1000, seed=0)).batch(256)
    dataset = compile(pipe.spec, Job()).plan.dataset
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    memory = peak()
    more = f"{memory:.0f} MB ({memory - before:.0f} of it by this)"
    print(f"{dataset.samples:,} samples; {seconds:.2f} s, CPU {cpu:.2f} s, {more}")


def first_batch(folder: str) -> None:
    """One start of a job over local shards: from the folder to the first batch."""
    begun = time.perf_counter()
    batch = next(iter(sp.stream(folder, shuffle=1000, seed=0).batch(16)))
    memory = peak()
    print(f"first batch ({len(batch['__key__'])} samples) {time.perf_counter() - begun:.2f} s, {memory:.0f} MB")


def names(count: int, folder: str) -> None:
    """A long brace range, and a folder of many files."""
    sp.stream("s3://bucket/{0..1}.tar")  # what is imported once is no part of it
    begun, before = time.process_time(), peak()
    total = sum(1 for _ in sp.stream(f"s3://bucket/{{0000000..{count - 1:07d}}}.tar").source.shards)
    memory = peak() - before
    print(f"brace range of {total:,}: {time.process_time() - begun:.2f} s of CPU, {memory:.0f} MB")
    for given in (folder, f"{folder}/*.tar"):
        begun = time.process_time()
        found = len(sp.stream(given).source.shards)
        memory = peak() - before
        print(
            f"{'pattern' if '*' in given else 'folder'} of {found:,}: {time.process_time() - begun:.2f} s of CPU, "
            f"{memory:.0f} MB"
        )


def again(*arguments: str, times: int = 2, memory: str | None = None) -> None:
    """The measurement in a process of its own."""
    for _ in range(times):
        environment = {**os.environ, **({"STREAMPIPE_CACHE": memory} if memory else {})}
        subprocess.run([sys.executable, __file__, *arguments], check=True, env=environment)


def remote(shards: int, rows: int, what: str) -> None:
    """The first start, and those after it."""
    objects = dataset(shards, rows)
    weights = {name: len(data) / 1e6 for name, data in objects.items()}
    print(f"{shards:,} shards, {shards * rows:,} samples; manifest {weights[NAME]:.1f} MB")
    with FaultServer(objects) as server, tempfile.TemporaryDirectory() as memory:
        url = server.url("") + f"{{0000000..{shards - 1:07d}}}.tar"
        for start in ("first start", "later start"):
            server.requests.clear()
            print(f"{start}: ", end="", flush=True)
            again("plan", url, what, times=1, memory=memory)
            sent = 0
            for request in server.requests:
                size = len(objects.get(request.name, b""))
                first, last = request.range or (0, None)
                sent += (size if last is None else min(size, last)) - first if size else 0
            print(f"  {len(server.requests)} requests, {sent / 1e6:.1f} MB")


def local(shards: int) -> None:
    """Shards of one sample: nothing known, remembered, indexed."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as memory:
        tiny(Path(folder), shards)
        for start in ("nothing known", "remembered"):
            print(f"{start}: ", end="", flush=True)
            again("first", folder, times=1, memory=memory)
        begun = time.perf_counter()
        sp.index(folder, progress=False)
        print(f"streampipe index: {time.perf_counter() - begun:.1f} s")
        with tempfile.TemporaryDirectory() as other:
            print("indexed: ", end="", flush=True)
            again("first", folder, times=1, memory=other)


def tiny(folder: Path, shards: int) -> None:
    """So many shards of one small sample."""
    for number in range(shards):
        file = io.BytesIO()
        writer = TarWriter(file.write)
        writer.add(f"{number:07d}", {"txt": "a", "json": '{"width": 512}'})
        writer.close()
        (folder / f"{number:07d}.tar").write_bytes(file.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("remote", "local", "names", "plan", "first"))
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=int)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--what", choices=WHAT, default="where")
    given = parser.parse_args()
    if given.mode == "remote":
        remote(given.shards or 20_000, given.rows, given.what)
    elif given.mode == "local":
        local(given.shards or 10_000)
    elif given.mode == "names":
        with tempfile.TemporaryDirectory() as folder:
            for number in range(100_000):
                (Path(folder) / f"{number:07d}.tar").touch()
            names(given.shards or 1_000_000, folder)
    elif given.mode == "plan":
        plan(*given.rest)
    else:
        first_batch(*given.rest)


if __name__ == "__main__":
    main()
