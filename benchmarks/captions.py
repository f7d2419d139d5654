"""What captions, conditions and sidecars cost a sample, beside parsing its json once.

python benchmarks/captions.py

Samples are those of img2dataset with LAION's scores; each figure is the best of three, in processor time of one core.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streampipe as sp
from streampipe import stages
from streampipe.context import Position, Run
from streampipe.index.facts import scalars_of
from streampipe.index.table import make
from streampipe.query.condition import Condition

SAMPLES = 10_000
TAGS = ", ".join(f"tag number {i}" for i in range(20))
KEYS = [f"{i:09d}" for i in range(SAMPLES)]


def sample(i: int) -> dict[str, object]:
    """The i-th sample, as it comes out of a shard."""
    row = {"url": "https://host/image.jpg", "caption": TAGS, "key": KEYS[i], "status": "success", "exif": "{}"}
    sizes = {"width": 512, "height": 384, "original_width": 1024, "original_height": 768, "sha256": "0" * 64}
    scores = {"aesthetic": 4 + i % 3, "pwatermark": 0.1, "punsafe": 0.01, "similarity": 0.3}
    return {
        "__key__": KEYS[i],
        "__url__": "00000.tar",
        "__position__": Position(0, 0, i),
        "txt": TAGS.encode(),
        "json": json.dumps({**row, **sizes, **scores}).encode(),
    }


def best(run: Callable[[], object], times: int = 3) -> float:
    """Microseconds a sample."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return 1e6 * min(spent) / SAMPLES


def main() -> None:
    """Print a table."""
    samples = [sample(i) for i in range(SAMPLES)]
    run = Run(stage="benchmark")
    bare = best(lambda: [json.loads(each["json"]) for each in samples])  # type: ignore[arg-type]
    print(f"{'json.loads of the json member':<58}{bare:7.1f} us  1.0")

    def row(name: str, spent: float) -> None:
        print(f"{name:<58}{spent:7.1f} us {spent / bare:4.1f}")

    def stage(name: str, made: sp.Stage) -> None:
        row(name, best(lambda: sum(1 for _ in made(iter(samples), run))))

    stage("caption()", stages.caption())
    stage('caption("json.caption")', stages.caption(keys="json.caption"))
    stage("caption(dropout=0.1)", stages.caption(dropout=0.1))
    stage(
        "caption, two with weights, 20 tags shuffled and dropped",
        stages.caption(
            keys="txt;json.caption", weights=(3, 1), dropout=0.1, tags=sp.Tags(keep=1, shuffle=True, drop=0.1)
        ),
    )
    text = "original_width >= 512 and aesthetic >= 5 and watermark < 0.5"
    stage(f'where("{text[:40]}..."), sequential', stages.where(condition=Condition(text)))
    empty = {"crc32": None, "fields": [], "width": 512, "height": 384}
    rows = [{"key": key, "offset": i, "size": 1, **empty} for i, key in enumerate(KEYS)]
    index = make(rows, [scalars_of(each["json"]) for each in samples], {"bytes": SAMPLES})  # type: ignore[arg-type]
    row("the same in the planned tier, of the index", best(lambda: Condition(text).of_index(index)))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "a.json").write_text(json.dumps({key: {"recap": TAGS, "score": 0.5} for key in KEYS}))
        pq.write_table(pa.table({"key": KEYS, "recap": [TAGS] * SAMPLES}), place / "a.parquet")
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(SAMPLES * 768, np.float32)), 768)
        pq.write_table(pa.table({"key": KEYS, "vector": vectors}), place / "b.parquet")
        stage("join of a recaption, .json (reading it included)", stages.join(sidecar=place / "a.json"))
        stage("join of a recaption, .parquet", stages.join(sidecar=place / "a.parquet"))
        stage("join of 768 float32, .parquet", stages.join(sidecar=place / "b.parquet"))


if __name__ == "__main__":
    main()
