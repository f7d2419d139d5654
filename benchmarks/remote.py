"""Remote shards: how much of the link is used, and how long training waits. One server for all contenders, in one run.

    python benchmarks/remote.py [--only NAME ...] [--megabytes 100] [--rate 40] [--latency 0.05] [--workers 2]

The server (``streampipe.testing.FaultServer``, a process of its own on the loopback) answers each request after 50 ms
and sends 40 MB/s over all connections together. Each contender runs in a fresh process, twice: as fast as it can, and
with a consumer that takes as long over each batch as a training step that needs 80 % of the link. Nothing is decoded.

Columns: samples given out; seconds to the first batch and for all; bytes that came over the link as a share of what it
could carry, from the first request for data to the end; bytes fetched and requests, as a multiple of the shards' bytes;
then, of the slower consumer, seconds to the first batch, the shares of the ten seconds after it and of the time after
those that were spent waiting, and the 50th, 95th and 99th percentile of the wait for a batch.

MosaicML Streaming, LitData and Hugging Face datasets take part where they can be imported. The first two read their own
format, written from the same samples in files of the same size, by S3's protocol: that needs ``--moto``, with which all
read from a moto server that is as slow.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BATCH, SAMPLE, SHARD = 16, 100_000, 10_000_000
BEGINNING = 10.0  # seconds
KEYS = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench", "region_name": "us-east-1"}


class Job:
    """What a contender is given."""

    def __init__(self, port: int, shards: list[str], workers: int, cache: str, s3: bool) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.urls = [f"{self.endpoint}/bench/{name}" for name in shards]
        self.own = [f"s3://bench/{name}" for name in shards] if s3 else self.urls
        self.workers = workers
        self.cache = cache


def streampipe(job: Job, **options: Any) -> Any:
    """The planned tier; ``streampipe index`` was run when the shards were made."""
    import streampipe as sp

    options = {"storage_options": {"endpoint_url": job.endpoint}, **options} if job.own != job.urls else options
    return sp.stream(job.own, shuffle=True, **options).batch(BATCH).loader(num_workers=job.workers)


def streampipe_cache(job: Job) -> Any:
    return streampipe(job, cache=job.cache)


def streampipe_sequential(job: Job) -> Any:
    return streampipe(job, tier="sequential")


def streampipe_where(job: Job) -> Any:
    import streampipe as sp

    return sp.stream(job.urls, shuffle=True).where("number < 50").batch(BATCH).loader(num_workers=job.workers)


def webdataset_curl(job: Job, cache: str | None = None) -> Any:
    import webdataset as wds

    urls = job.urls if cache else [f"pipe:curl -s -f {url}" for url in job.urls]
    if cache:
        Path(cache).mkdir()
    data = wds.WebDataset(urls, shardshuffle=100, cache_dir=cache, empty_check=False).shuffle(500)
    return wds.WebLoader(data.batched(BATCH, collation_fn=list), batch_size=None, num_workers=job.workers)


def webdataset_cache(job: Job) -> Any:
    return webdataset_curl(job, job.cache)


def huggingface(job: Job) -> Any:
    import datasets
    from torch.utils.data import DataLoader

    datasets.disable_progress_bars()
    data = datasets.load_dataset("webdataset", data_files={"train": job.urls}, split="train", streaming=True)
    data = data.decode(False).shuffle(buffer_size=500, seed=0)
    return DataLoader(data, batch_size=BATCH, num_workers=job.workers, collate_fn=list)


def mosaicml(job: Job) -> Any:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    os.environ["S3_ENDPOINT_URL"] = job.endpoint
    data = StreamingDataset(
        remote="s3://bench/mds", local=job.cache, batch_size=BATCH, shuffle=True, predownload=32 * BATCH
    )
    return DataLoader(data, batch_size=BATCH, num_workers=job.workers, collate_fn=list)


def litdata(job: Job) -> Any:
    import litdata as ld
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # it has no option for a store without TLS
    options = {"endpoint_url": job.endpoint}
    data = ld.StreamingDataset(
        "s3://bench/lit", cache_dir=job.cache, shuffle=True, storage_options=options, max_pre_download=4
    )
    return ld.StreamingDataLoader(data, batch_size=BATCH, num_workers=job.workers, collate_fn=list)


CONTENDERS: dict[str, tuple[Callable[[Job], Any], str]] = {
    "streampipe": (streampipe, "streampipe"),
    "streampipe cache=": (streampipe_cache, "streampipe"),
    "streampipe sequential": (streampipe_sequential, "streampipe"),
    "streampipe where 5 %": (streampipe_where, "streampipe"),
    "webdataset curl": (webdataset_curl, "webdataset"),
    "webdataset cache_dir": (webdataset_cache, "webdataset"),
    "huggingface datasets": (huggingface, "datasets"),
    "mosaicml streaming": (mosaicml, "streaming"),
    "litdata": (litdata, "litdata"),
}


def rows(batch: Any) -> int:
    return len(batch["__key__"]) if isinstance(batch, dict) and "__key__" in batch else len(batch)


def consume(name: str, job: Job, pause: float, answer: Any) -> None:
    """In a process of its own: take all batches, and say how long it took and how long was waited."""
    warnings.simplefilter("ignore")
    multiprocessing.set_start_method("fork", force=True)  # for its workers: else they import everything first
    os.environ.update({name.upper(): value for name, value in KEYS.items() if name != "region_name"})
    os.environ.update(AWS_DEFAULT_REGION=KEYS["region_name"], AWS_ALLOW_HTTP="true")
    try:
        loader = CONTENDERS[name][0](job)
        start = time.perf_counter()
        batches = iter(loader)
        first, waits, samples = 0.0, Waits(), 0
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            now = time.perf_counter()
            if batch is None:
                break
            first = first or now - start
            if samples:
                waits.append((now - start - first, now - asked))
            samples += rows(batch)
            if pause:
                time.sleep(pause * rows(batch) / BATCH)
        seconds, ended = time.perf_counter() - start, time.monotonic()
        answer.send(
            {"first": first, "seconds": seconds, "samples": samples, "ended": ended, **waits.found(seconds - first)}
        )
    except Exception as error:
        answer.send({"error": f"{type(error).__name__}: {error}"})


class Waits(list[tuple[float, float]]):
    """When each batch came after the first one, and how long it was waited for."""

    def found(self, seconds: float) -> dict[str, Any]:
        early = sum(wait for at, wait in self if at < BEGINNING)
        late = sum(wait for at, wait in self if at >= BEGINNING)
        every = sorted(wait for _, wait in self) or [0.0]
        return {
            "early": early / max(1e-9, min(BEGINNING, seconds)),
            "late": late / (seconds - BEGINNING) if seconds > BEGINNING else 0.0,
            "waits": [every[int(share * (len(every) - 1))] * 1e3 for share in (0.5, 0.95, 0.99)],
        }


def serve(folder: str, latency: float, rate: float, pipe: Any) -> None:
    """In a process of its own: the server. Each message asks for the requests since the last one: how many, how many
    bytes, and when the first came.
    """
    from streampipe.testing import FaultServer

    objects = {f"bench/{path.relative_to(folder)}": path.read_bytes() for path in Path(folder).rglob("*.*")}
    with FaultServer(objects) as server:
        server.latency, server.bandwidth = latency, rate
        server.requests = Stamped()
        pipe.send(server.port)
        while pipe.recv():
            requests, server.requests = server.requests, Stamped()
            found = [each for each in requests if each.method == "GET"]
            sizes = [len(range(*slice(*(each.range or (None,))).indices(len(objects[each.name])))) for each in found]
            pipe.send((len(found), sum(sizes), requests.since))


class Stamped(list[Any]):
    """Requests, and when the first of them was for data."""

    since = 0.0

    def append(self, request: Any) -> None:
        if not self.since and request.method == "GET" and not request.name.endswith(("json", "parquet")):
            self.since = time.monotonic()
        super().append(request)


def make(folder: Path, megabytes: int) -> list[tuple[str, bytes, str]]:
    """Shards with indexes, and the same samples in the formats of those that are here."""
    from streampipe.index import index
    from streampipe.source import Source
    from streampipe.tar import TarWriter
    from streampipe.urls import ShardList

    rng = random.Random(0)
    each = SHARD // SAMPLE
    samples = [
        (f"{i:06d}", rng.randbytes(rng.randrange(SAMPLE // 2, SAMPLE * 3 // 2)), f"caption {i}")
        for i in range(megabytes * 1_000_000 // SAMPLE)
    ]
    names = []
    for start in range(0, len(samples), each):
        names.append(f"{len(names):05d}.tar")
        with open(folder / names[-1], "wb") as file:
            writer = TarWriter(file.write)
            for key, jpg, txt in samples[start : start + each]:
                writer.add(key, {"jpg": jpg, "txt": txt, "json": json.dumps({"number": int(key) % 1000})})
            writer.close()
    index(ShardList([str(folder / name) for name in names]), Source(), progress=False)
    if importlib.util.find_spec("streaming"):
        from streaming import MDSWriter

        columns = {"jpg": "bytes", "txt": "str"}
        with MDSWriter(out=str(folder / "mds"), columns=columns, size_limit=SHARD, progress_bar=False) as out:
            for _, jpg, txt in samples:
                out.write({"jpg": jpg, "txt": txt})
    if importlib.util.find_spec("litdata"):
        from litdata.streaming.writer import BinaryWriter

        (folder / "lit").mkdir()
        out = BinaryWriter(str(folder / "lit"), chunk_bytes=SHARD)
        for i, (_, jpg, txt) in enumerate(samples):
            out[i] = {"jpg": jpg, "txt": txt}
        out.done()
        out.merge()
    return samples


def run(name: str, job: Job, pause: float, server: Any, limit: float) -> dict[str, Any]:
    """One contender, once."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=consume, args=(name, job, pause, theirs))
    process.start()
    found = mine.recv() if mine.poll(limit) else {"error": f"not done after {limit:.0f} s"}
    process.join(5)
    if process.is_alive():
        process.kill()
    server.send(True)
    found["requests"], found["bytes"], found["since"] = server.recv()
    return found


def report(name: str, fast: dict[str, Any], paced: dict[str, Any], size: int, rate: float) -> str:
    if "error" in fast or "error" in paced:
        return f"{name:<24} failed: {fast.get('error') or paced.get('error')}"[-400:]
    link = fast["bytes"] / (fast["ended"] - fast["since"]) / rate
    waits = " / ".join(f"{each:.0f}" for each in paced["waits"])
    return (
        f"{name:<24}{fast['samples']:>8}{fast['first']:>9.2f}{fast['seconds']:>9.2f}{link:>9.1%}"
        f"{fast['bytes'] / size:>9.2f}{fast['requests']:>9}{paced['first']:>9.2f}"
        f"{paced['early']:>9.1%}{paced['late']:>9.1%}  {waits}"
    )


def serve_moto(folder: str, latency: float, rate: float, pipe: Any) -> None:
    """The same by moto, which speaks S3's protocol whole."""
    from boto3 import client
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # so that connections are kept
    WSGIRequestHandler.log_request = lambda *_: None  # type: ignore[method-assign]
    app = Slowed(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    s3 = client("s3", endpoint_url=f"http://127.0.0.1:{server.port}", **KEYS)
    s3.create_bucket(Bucket="bench")
    for path in Path(folder).rglob("*.*"):
        s3.put_object(Bucket="bench", Key=str(path.relative_to(folder)), Body=path.read_bytes(), ACL="public-read")
    app.latency, app.rate = latency, rate
    pipe.send(server.port)
    while pipe.recv():
        found, app.found, since, app.since = app.found, [], app.since, 0.0
        pipe.send((len(found), sum(found), since))


class Slowed:
    """A web application whose answers come late and share a link; GETs and their bytes are counted."""

    def __init__(self, app: Any) -> None:
        from streampipe.testing.pace import Bucket

        self.latency, self.rate, self.since = 0.0, 0.0, 0.0
        self.found: list[int] = []
        self._app, self._bucket = app, Bucket()

    def __call__(self, environ: Any, start: Any) -> Iterator[bytes]:
        time.sleep(self.latency)
        body = b"".join(self._app(environ, start))
        if self.rate and environ["REQUEST_METHOD"] == "GET":
            self.found.append(len(body))
            self.since = self.since or time.monotonic()
        for at in range(0, len(body), 1 << 16):
            piece = body[at : at + (1 << 16)]
            if self.rate:
                time.sleep(max(0.0, self._bucket.reserve(len(piece), self.rate)))
            yield piece


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rate", type=float, default=40.0, help="MB/s")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--moto", action="store_true", help="a store that speaks S3 (moto, boto3), for all contenders")
    given = parser.parse_args()
    rate = given.rate * 1e6
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "data")
        folder.mkdir()
        samples = len(make(folder, given.megabytes))
        shards = sorted(path.name for path in folder.glob("*.tar"))
        size = sum((folder / name).stat().st_size for name in shards)
        mine, theirs = multiprocessing.get_context("spawn").Pipe()
        context = multiprocessing.get_context("spawn")
        server = context.Process(
            target=serve_moto if given.moto else serve, args=(str(folder), given.latency, rate, theirs), daemon=True
        )
        server.start()
        port = mine.recv()
        print(f"{samples} samples, {len(shards)} shards, {size / 1e6:.0f} MB; {given.rate:.0f} MB/s, {given.latency} s")
        print(
            f"{'':<24}{'samples':>8}{'first s':>9}{'all s':>9}{'of link':>9}{'fetched':>9}{'requests':>9}"
            f"{'first s':>9}{'in 10 s':>9}{'after':>9}  wait ms"
        )
        pause = BATCH * size / samples / rate / 0.8
        for name in given.only:
            if importlib.util.find_spec(CONTENDERS[name][1]) is None:
                print(f"{name:<24} is not installed")
                continue
            found = []
            for step in (0.0, pause):
                cache = str(Path(work, f"cache{len(found)} {name}".replace(" ", "-")))
                job = Job(port, shards, given.workers, cache, given.moto)
                found.append(run(name, job, step, mine, 20 + 10 * size / rate))
            print(report(name, *found, size, rate), flush=True)
        mine.send(False)
        server.join(5)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
