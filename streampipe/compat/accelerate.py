"""Hugging Face Accelerate over a loader: batches on the device, the end of the data told, and the place saved.

``accelerator.prepare`` would divide the samples among the ranks a second time, or let rank 0 read for all; a pipeline's
loader reads its rank's share already. What else ``prepare`` does for a DataLoader is done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streampipe.compat.checkpoint import JobState
from streampipe.errors import ConfigError
from streampipe.loader import Loader

try:
    from accelerate import Accelerator
    from accelerate.data_loader import DataLoaderStateMixin
    from accelerate.utils import send_to_device
except ImportError as missing:
    raise ImportError("streampipe.compat.accelerate needs one more package: pip install accelerate") from missing


class Batches(DataLoaderStateMixin):  # type: ignore[misc]
    """A loader's batches on the accelerator's device. ``prepare`` makes it.

    The accelerator knows of the pass that runs: ``accumulate`` takes its step at the last batch, ``sync_gradients`` is
    right, ``gather_for_metrics`` works. ``accelerator.save_state`` keeps the loader's place and ``load_state`` restores
    it, so there is no need for ``skip_first_batches``.
    """

    def __init__(self, loader: Loader, accelerator: Accelerator) -> None:
        self.loader = loader
        self.device = accelerator.device
        self.gradient_state = accelerator.gradient_state
        self.end_of_dataloader = False
        self.remainder = -1  # every batch that is given out is this rank's own: nothing is to be cut off when gathered

    def __iter__(self) -> Iterator[Any]:
        self.end_of_dataloader = False
        self.gradient_state._add_dataloader(self)
        try:
            for batch in self.loader:
                self.end_of_dataloader = self.loader.at_end
                yield send_to_device(batch, self.device)
        finally:
            self.gradient_state._remove_dataloader(self)

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """As ``Loader.set_epoch``."""
        self.loader.set_epoch(epoch)


def prepare(accelerator: Accelerator, loader: Loader) -> Batches:
    """What ``accelerator.prepare`` is for a DataLoader: batches to iterate, whose place the accelerator saves.

    Raises:
        ConfigError: the loader is no streampipe loader, or of another number of ranks than the accelerator.
    """
    if not isinstance(loader, Loader):
        raise ConfigError(f"prepare takes what pipe.loader() gives, not {type(loader).__name__}")
    if loader.world_size != accelerator.num_processes:
        raise ConfigError(
            f"this loader was made for {loader.world_size} ranks, the accelerator has {accelerator.num_processes}: "
            f"make the Accelerator first, or pass rank= and world_size= to pipe.loader()"
        )
    accelerator.register_for_checkpointing(JobState(loader))
    return Batches(loader, accelerator)
