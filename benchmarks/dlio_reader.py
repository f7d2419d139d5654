"""streampipe's loader as a data loader of DLIO's: ``reader.data_loader_classname=dlio_reader.StreampipeLoader``.

``STREAMPIPE_SOURCE`` names shards to stream in place of the files that DLIO made, ``STREAMPIPE_WORKERS=1`` takes DLIO's
``read_threads`` as worker processes, not as threads. Started as a program this file is ``dlio_benchmark`` itself.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import types
from collections.abc import Iterator
from math import isqrt
from typing import Any

if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is None:  # for a profiler not used here
    sys.modules["tensorflow"] = types.ModuleType("tensorflow")

from dlio_benchmark.common.enumerations import DataLoaderType, DatasetType, Shuffle
from dlio_benchmark.data_loader.base_data_loader import BaseDataLoader

import streampipe as sp


class StreampipeLoader(BaseDataLoader):
    """JPEGs decoded to squares of DLIO's record length, in batches, on each rank its share."""

    def __init__(self, format_type: Any, dataset_type: Any, epoch_number: int) -> None:
        super().__init__(format_type, dataset_type, epoch_number, DataLoaderType.PYTORCH)

    def read(self) -> None:
        """Make the loader."""
        args = self._args
        split = "train" if self.dataset_type is DatasetType.TRAIN else "valid"
        source = os.environ.get("STREAMPIPE_SOURCE") or os.path.join(args.data_folder, split)
        shuffle = args.sample_shuffle is not Shuffle.OFF
        pipe = sp.stream(source, seed=args.seed, shuffle=shuffle).rename(image="jpg;jpeg")
        pipe = pipe.decode(isqrt(args.record_length_resize or args.record_length)).select("image")
        in_workers = os.environ.get("STREAMPIPE_WORKERS") == "1"
        self._loader = pipe.batch(self.batch_size).loader(
            num_workers=args.read_threads if in_workers else 0,
            threads=0 if in_workers else args.read_threads,
            rank=args.my_rank,
            world_size=args.comm_size,
            prefetch=max(1, args.prefetch_size),
            persistent_workers=in_workers,
            tail="drop",
        )

    def next(self) -> Iterator[Any]:
        """The batches of an epoch."""
        for batch in self._loader:
            yield batch["image"]

    def finalize(self) -> None:
        """An epoch is over: what limited it goes into DLIO's log."""
        logging.info(f"streampipe: {self._loader.summary().verdict}")


if __name__ == "__main__":
    from dlio_benchmark.main import main

    main()
