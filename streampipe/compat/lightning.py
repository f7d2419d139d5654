"""Lightning over loaders: a data module that makes them where the ranks are known, and restores their place.

Lightning keeps the states of loaders, and restores them from a checkpoint in mid-epoch, but not from one that was
written at an epoch's end: the order of the first epoch would come again. A data module's state it always restores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streampipe.loader import Loader

try:
    from lightning import LightningDataModule
except ImportError as missing:
    raise ImportError("streampipe.compat.lightning needs one more package: pip install lightning") from missing


class LoaderModule(LightningDataModule):  # type: ignore[misc]
    """Loaders for a Lightning ``Trainer``: ``trainer.fit(model, LoaderModule(lambda: pipe.loader(threads=8)))``.

    Each is made by its function when Lightning has started its ranks, so it reads its own rank's share. Checkpoints
    hold the place of the training data of the whole job, and are resumed on any number of ranks.

    Args:
        train: makes the loader for training.
        val: makes the one for validation: of ``loader(fixed_epoch=True)``, so that each run is the same.
    """

    def __init__(self, train: Callable[[], Loader], val: Callable[[], Loader] | None = None) -> None:
        super().__init__()
        self._train, self._val = train, val
        self._loader: Loader | None = None
        self._state: Mapping[str, Any] | None = None

    def train_dataloader(self) -> Loader:
        """The loader for training, where a checkpoint says."""
        self._loader = self._train()
        self._loader.state_of = "job"  # one rank's state is kept, and all load it
        if self._state is not None:
            self._loader.load_state_dict(self._state)
            self._state = None
        return self._loader

    def val_dataloader(self) -> Any:
        """The loader for validation; none where there is none."""
        return [] if self._val is None else self._val()

    def state_dict(self) -> dict[str, Any]:
        """Where the training data stands; on every rank the same."""
        return {} if self._loader is None else {"streampipe": self._loader.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The training data goes on there."""
        self._state = state_dict.get("streampipe")
