"""One rank of one contender: reads batches, saves and loads states. Run by resume.py, in the contender's environment.

Each contender is a class with the same four methods; its library is imported inside, because only its own environment
has it. Settings are those that its documentation gives for resuming on another number of ranks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def rows(samples: int) -> list[tuple[str, bytes]]:
    """The same dataset for all: a key, and some bytes."""
    return [(f"{i:06d}", bytes([97 + i % 26]) * 200) for i in range(samples)]


class Streampipe:
    """Plain tars, with the index that is made at first use."""

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


CONTENDERS = {"streampipe": Streampipe, "MosaicML": MosaicML, "LitData": LitData, "Energon": Energon}


def main() -> None:
    """Make the data, or be one rank: read up to a step, save, go on to the end of the epoch; the keys go to a file."""
    task = json.loads(sys.argv[1])
    contender = CONTENDERS[task["contender"]]()
    if "samples" in task:
        contender.make(Path(task["data"]), task["samples"], task["each"])
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world > 1 and task["contender"] != "streampipe":  # streampipe reads the environment; a group may be there or not
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
