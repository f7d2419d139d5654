"""One rank of one contender: reads batches, saves and loads states. Run by resume.py, in the contender's environment.

Each contender is a class with the same four methods; its library is imported inside, because only its own environment
has it. Settings are those that its documentation gives for resuming on another number of ranks.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import zlib
from itertools import islice
from pathlib import Path
from typing import Any


def rows(samples: int) -> list[tuple[str, bytes]]:
    """The same dataset for all: a key, and some bytes."""
    return [(f"{i:06d}", bytes([97 + i % 26]) * 200) for i in range(samples)]


class Streampipe:
    """Plain tars, with the index that is made at first use."""

    save_at = 13
    """Steps before the state is saved."""
    steps: int | None = None
    """Steps of a run, where it does not end with the epoch."""

    def make(self, folder: Path, samples: int, each: int) -> None:
        import io
        import tarfile

        every = rows(samples)
        for start in range(0, samples, each):
            with tarfile.open(folder / f"{start // each:05d}.tar", "w") as tar:
                for key, data in every[start : start + each]:
                    info = tarfile.TarInfo(f"{key}.txt")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))

    def open(self, folder: Path, batch: int, workers: int) -> Any:
        import streampipe as sp

        return sp.stream(str(folder), seed=0, shuffle=200).batch(batch).loader(workers)

    def load(self, loader: Any, states: list[Path], rank: int, world: int) -> None:
        loader.load_state_dict(json.loads(states[0].read_text()))

    def save(self, loader: Any, path: Path) -> None:
        path.write_text(json.dumps(loader.state_dict()))

    def keys(self, batch: Any) -> list[str]:
        return list(batch["__key__"])


class Unindexed(Streampipe):
    """The same tars of which nothing is known before they are read: a pass is cut into steps."""

    steps = 30

    def open(self, folder: Path, batch: int, workers: int) -> Any:
        import streampipe as sp

        pipe = sp.stream(str(folder), seed=0, shuffle=200, epochs=None, tier="sequential")
        return self.chain(pipe).batch(batch).loader(workers, steps_per_epoch=self.steps)

    def chain(self, pipe: Any) -> Any:
        return pipe

    def load(self, loader: Any, states: list[Path], rank: int, world: int) -> None:
        loader.load_state_dict([json.loads(path.read_text()) for path in states])

    def keys(self, batch: Any) -> list[str]:
        return [f"{at.epoch} {key}" for at, key in zip(batch["__position__"], batch["__key__"], strict=True)]


class Filtered(Unindexed):
    """And a filter of the user's, of which nobody knows what it keeps."""

    def chain(self, pipe: Any) -> Any:
        return pipe.filter(_two_of_three)


def _two_of_three(sample: dict[str, Any]) -> bool:
    return zlib.crc32(sample["__key__"].encode()) % 3 > 0


class MosaicML(Streampipe):
    """MDS shards; num_canonical_nodes is fixed, as its page on elastic determinism says."""

    def make(self, folder: Path, samples: int, each: int) -> None:
        from streaming import MDSWriter

        with MDSWriter(out=str(folder), columns={"key": "str", "txt": "bytes"}, size_limit=each * 220) as writer:
            for key, data in rows(samples):
                writer.write({"key": key, "txt": data})

    def open(self, folder: Path, batch: int, workers: int) -> Any:
        from streaming import StreamingDataLoader, StreamingDataset

        dataset = StreamingDataset(
            local=str(folder), batch_size=batch, shuffle=True, shuffle_seed=0, num_canonical_nodes=2
        )
        return StreamingDataLoader(dataset, batch_size=batch, num_workers=workers)

    def load(self, loader: Any, states: list[Path], rank: int, world: int) -> None:
        loader.load_state_dict(json.loads(states[0].read_text()))

    def save(self, loader: Any, path: Path) -> None:
        path.write_text(json.dumps(loader.state_dict()))

    def keys(self, batch: Any) -> list[str]:
        return list(batch["key"])


class LitData(Streampipe):
    """Chunks; drop_last is the same everywhere, because it would be on with several ranks and a change is refused."""

    def make(self, folder: Path, samples: int, each: int) -> None:
        from litdata import optimize

        optimize(_lit_row, rows(samples), str(folder), chunk_size=each, num_workers=1)

    def open(self, folder: Path, batch: int, workers: int) -> Any:
        from litdata import StreamingDataLoader, StreamingDataset

        dataset = StreamingDataset(str(folder), shuffle=True, seed=0, drop_last=True)
        return StreamingDataLoader(dataset, batch_size=batch, num_workers=workers)

    def keys(self, batch: Any) -> list[str]:
        return list(batch["key"])


def _lit_row(row: tuple[str, bytes]) -> dict[str, Any]:
    return {"key": row[0], "txt": row[1]}


class Energon(Streampipe):
    """Tars prepared by its own tool; states for another number of ranks are made by its tool for that."""

    def make(self, folder: Path, samples: int, each: int) -> None:
        super().make(folder, samples, each)
        options = ["--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "TextSample"]
        tool = str(Path(sys.executable).parent / "energon")
        subprocess.run([tool, "prepare", *options, "--field-map", '{"text": "txt"}', str(folder)], check=True)

    def open(self, folder: Path, batch: int, workers: int) -> Any:
        from megatron.energon import WorkerConfig, get_savable_loader, get_train_dataset

        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        config = WorkerConfig(rank=rank, world_size=world, num_workers=workers)
        dataset = get_train_dataset(
            str(folder),
            worker_config=config,
            batch_size=batch,
            shuffle_buffer_size=100,
            max_samples_per_sequence=100,
            repeat=False,
        )
        return get_savable_loader(dataset)

    def load(self, loader: Any, states: list[Path], rank: int, world: int) -> None:
        import torch

        if len(states) != world:
            folder = Path(tempfile.mkdtemp(dir=states[0].parent))
            tool = str(Path(sys.executable).parent / "energon")
            files = [str(path) for path in states]
            arguments = [tool, "checkpoint", "redist", "--new-world-size", str(world), *files, str(folder)]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError("its tool redist: " + (done.stderr.strip().splitlines() or ["failed"])[-1])
            states = sorted(folder.iterdir())
        loader.restore_state_rank(torch.load(states[rank], weights_only=False))

    def save(self, loader: Any, path: Path) -> None:
        import torch

        torch.save(loader.save_state_rank(), path)

    def keys(self, batch: Any) -> list[str]:
        return list(batch.__key__) if isinstance(batch.__key__, (list, tuple)) else [batch.__key__]


class Zephon(Streampipe):
    """Lines of JSON in shards. 12 lanes, which all these numbers of ranks divide; a step takes as many microbatches."""

    lanes = 12

    def make(self, folder: Path, samples: int, each: int) -> None:
        every = [json.dumps({"key": key, "txt": data.decode()}) + "\n" for key, data in rows(samples)]
        for start in range(0, samples, each):
            (folder / f"{start // each:05d}.jsonl").write_text("".join(every[start : start + each]))

    def open(self, folder: Path, batch: int, workers: int) -> Any:
        from zephon import Pipeline
        from zephon.io import Dataset
        from zephon.work import MixtureSpec, StaticMixtureWorkSource

        source = StaticMixtureWorkSource(
            datasets=[Dataset.from_path("train", str(folder))],
            mixture=MixtureSpec({"train": 1.0}),
            seed=0,
            shuffle_within_shard=True,
            stop_after_passes=1,
            chunk_size=48,
        )
        size = 4  # of a microbatch: a global batch of 48 is one of each lane
        shared = folder.parent / f"rounds-{os.environ['MASTER_PORT']}"
        shared.mkdir(exist_ok=True)
        self.pipeline = Pipeline(source).decode_text().batch(size, drop_last=False)
        self.pipeline = self.pipeline.options(
            canonical_replicas=self.lanes,
            world_size=int(os.environ["WORLD_SIZE"]),
            global_rank=int(os.environ["RANK"]),
            max_workers=max(1, workers),
            aggregate_dir=str(shared),
        )
        return _steps(self.pipeline, batch // size)

    def load(self, loader: Any, states: list[Path], rank: int, world: int) -> None:
        self.pipeline.restore(pickle.loads(states[0].read_bytes()))

    def save(self, loader: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(self.pipeline.checkpoint()))

    def keys(self, batch: Any) -> list[str]:
        return [record.payload["key"] for part in batch for record in part.records]


def _steps(pipeline: Any, microbatches: int) -> Any:
    """So many microbatches at a time; fewer at the end."""
    running = iter(pipeline)
    while step := list(islice(running, microbatches)):
        yield step


class LanceDB(Streampipe):
    """A table in 12 splits, which all these numbers of ranks and workers divide. A state is taken after an even number
    of steps: it is refused where two workers are not equally far.
    """

    splits = 12
    save_at = 14

    def make(self, folder: Path, samples: int, each: int) -> None:
        import lancedb

        data = [{"key": key, "txt": data.decode()} for key, data in rows(samples)]
        lancedb.connect(str(folder)).create_table("train", data)

    def open(self, folder: Path, batch: int, workers: int) -> Any:
        import lancedb
        from lancedb.streaming import StreamingDataLoader, StreamingDataset

        self.dataset = StreamingDataset(
            lancedb.connect(str(folder)).open_table("train"),
            num_splits=self.splits,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
        context = "spawn" if workers else None
        return StreamingDataLoader(self.dataset, batch_size=batch, num_workers=workers, multiprocessing_context=context)

    def load(self, loader: Any, states: list[Path], rank: int, world: int) -> None:
        found = [json.loads(path.read_text()) for path in states]
        self.dataset.load_state_dict(self.dataset.merge_state_dicts(found))

    def save(self, loader: Any, path: Path) -> None:
        path.write_text(json.dumps(self.dataset.state_dict()))

    def keys(self, batch: Any) -> list[str]:
        return list(batch["key"])


CONTENDERS = {
    "streampipe": Streampipe,
    "no index": Unindexed,
    "filter": Filtered,
    "MosaicML": MosaicML,
    "LitData": LitData,
    "Energon": Energon,
    "Zephon": Zephon,
    "LanceDB": LanceDB,
}
OURS = ("streampipe", "no index", "filter")


def main() -> None:
    """Make the data, or be one rank: read up to a step, save, go on to the end of the epoch; the keys go to a file."""
    task = json.loads(sys.argv[1])
    contender = CONTENDERS[task["contender"]]()
    if "samples" in task:
        contender.make(Path(task["data"]), task["samples"], task["each"])
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world > 1 and task["contender"] not in OURS:  # streampipe reads the environment; a group may be there or not
        import torch.distributed as dist

        dist.init_process_group("gloo")
    loader = contender.open(Path(task["data"]), task["batch"], task["workers"])
    if task["states"]:
        contender.load(loader, [Path(path) for path in task["states"]], rank, world)
    got = []
    for batch in loader:
        got.append([str(key).rpartition("/")[2] for key in contender.keys(batch)])
        if len(got) == task["save_at"]:
            contender.save(loader, Path(task["save"] + f".{rank}"))
    Path(task["out"] + f".{rank}").write_text(json.dumps(got))


if __name__ == "__main__":
    main()
