"""Accelerator utilisation as DLIO measures it (MLPerf Storage's tool): its torch reader, and our loader as its plugin.

    pip install --no-deps dlio-benchmark==2.0.0
    pip install hydra-core omegaconf h5py mpi4py mpich pandas psutil pydftracer==1.0.2
    python benchmarks/dlio.py --out /tmp/dlio [--seconds 0.5 0.1] [--rounds 3]

DLIO makes JPEG files once. Then each contender trains on them with two readers; a step is a sleep of so many
``--seconds`` that stands for the accelerator. Utilisation is the share of the time that it sleeps: what a reader lets
it wait is missing. DLIO's reader decodes each image, which is grey, and gives back a constant; ours gives the pixels,
in colour.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import streampipe as sp

HERE = Path(__file__).parent
PLUGIN = {"data_loader_classname": "dlio_reader.StreampipeLoader", "data_loader_sampler": "iterative"}


def options(folder: Path, **more: object) -> list[str]:
    """DLIO's workload as overrides of its configuration."""
    given: dict[str, object] = {
        "framework": "pytorch",
        "workflow.generate_data": False,
        "workflow.checkpoint": False,
        "workflow.profiling": False,
        "workflow.evaluation": False,
        "dataset.format": "jpeg",
        "dataset.data_folder": folder / "data",
        "dataset.num_files_train": 512,
        "dataset.num_files_eval": 0,
        "dataset.num_samples_per_file": 1,
        "dataset.record_length": 262_144,
        "reader.data_loader": "pytorch",
        "reader.multiprocessing_context": "fork",
        "reader.sample_shuffle": "seed",
        "reader.batch_size": 16,
        "reader.read_threads": 2,
        "reader.prefetch_size": 4,
        "train.epochs": 2,
        **more,
    }
    return ["workload=default", *(f"++workload.{name}={value}" for name, value in given.items())]


def dlio(folder: Path, name: str, given: list[str], **environment: str) -> tuple[dict, float]:
    """Run DLIO: the metrics of its summary, and the CPU time it took."""
    out, before = folder / "runs" / name, resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(
        [sys.executable, str(HERE / "dlio_reader.py"), *given, f"hydra.run.dir={out}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise SystemExit(found.stdout[-2000:] + found.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    summary = out / "summary.json"
    verdicts = [line for line in (found.stdout + found.stderr).splitlines() if "streampipe: " in line]
    metrics = json.loads(summary.read_text())["metric"] if summary.exists() else {}
    verdict = verdicts[-1].partition("streampipe: ")[2].rpartition(" [")[0] if verdicts else ""
    return {**metrics, "verdict": verdict}, cpu


def main() -> None:
    """Make the data where they are missing, run all contenders in turns, print utilisation of the second epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 0.1], help="of a step, as emulated")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    folder = given.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "shards").exists():
        dlio(folder, "made", options(folder, **{"workflow.generate_data": True, "workflow.train": False}))
        sp.pack(str(folder / "data" / "train"), str(folder / "shards"))
    ours = {f"reader.{name}": value for name, value in PLUGIN.items()}
    contenders: dict[str, tuple[dict, dict[str, str]]] = {
        "DLIO's torch reader, 2 workers": ({}, {}),
        "streampipe, the same files, 2 threads": (ours, {}),
        "streampipe, shards, 2 threads": (ours, {"STREAMPIPE_SOURCE": str(folder / "shards")}),
        "streampipe, shards, 2 workers": (
            ours,
            {"STREAMPIPE_SOURCE": str(folder / "shards"), "STREAMPIPE_WORKERS": "1"},
        ),
    }
    print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
    for seconds in given.seconds:
        print(f"\na step of {seconds} s for 16 images{'':<22}AU %  (least, most)  samples/s   CPU s")
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
        verdicts = dict.fromkeys(contenders, "")
        for number in range(given.rounds):
            for name, (more, environment) in contenders.items():
                run = f"{list(contenders).index(name)}-{seconds}-{number}"
                workload = options(folder, **more, **{"workflow.train": True, "train.computation_time": seconds})
                metrics, cpu = dlio(folder, run, workload, **environment)
                rate = metrics["train_throughput_samples_per_second"][-1]
                found[name].append((metrics["train_au_percentage"][-1], rate, cpu))
                verdicts[name] = metrics["verdict"]
        for name, each in found.items():
            au, rate, cpu = zip(*each, strict=True)
            print(
                f"{name:<46}{statistics.median(au):>6.1f}  ({min(au):.1f}, {max(au):.1f})"
                f"{statistics.median(rate):>10.1f}{statistics.median(cpu):>10.1f}"
            )
        for name, text in verdicts.items():
            print(f"    {name}: {text}" if text else "", end="\n" if text else "")


if __name__ == "__main__":
    main()
