"""The Hugging Face Trainer over a loader: what it must be told, and the place in its checkpoints.

The Trainer's own data loader divides the samples among the ranks a second time, and skips batches by reading them. So
the Trainer is given a loader as it is, and the place is restored from a file in the checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streampipe.atomic import write_atomic
from streampipe.errors import ConfigError
from streampipe.loader import Loader

try:
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint
except ImportError as missing:
    raise ImportError("streampipe.compat.transformers needs one more package: pip install transformers") from missing

NAME = "streampipe.json"
"""The file in a checkpoint that says where the data stood."""


class LoaderTrainer(Trainer):  # type: ignore[misc]
    """A ``Trainer`` whose training data is a loader: ``LoaderTrainer(..., train_loader=pipe.loader(...))``.

    Every checkpoint holds the place of the data, and ``train(resume_from_checkpoint=...)`` goes on with the next batch,
    on any number of ranks; no batch is read to be skipped. ``eval_loader`` may be a loader with ``fixed_epoch=True``.

    Raises:
        ConfigError: a pass has no length; or it does not divide into whole steps of ``gradient_accumulation_steps``, of
            which the Trainer would leave out the last one of an epoch that was resumed.
    """

    def __init__(self, *args: Any, train_loader: Loader, eval_loader: Loader | None = None, **options: Any) -> None:
        if eval_loader is not None:
            options.setdefault("eval_dataset", eval_loader.dataset)  # the Trainer wants to see that there is one
        super().__init__(*args, **options)
        self._check(train_loader)
        self.train_loader, self.eval_loader = train_loader, eval_loader
        self.args.ignore_data_skip = True  # the place comes from the loader's state
        self.add_callback(_KeepsPlace(train_loader))

    def _check(self, loader: Loader) -> None:
        steps, at_once = len(loader), self.args.gradient_accumulation_steps
        if steps % at_once:
            raise ConfigError(
                f"an epoch of {steps} batches is not whole steps of gradient_accumulation_steps={at_once}, and the "
                f"Trainer leaves out such a rest when it resumes: give "
                f"loader(steps_per_epoch={steps - steps % at_once or at_once}) of sp.stream(..., epochs=None)"
            )
        ranks = self.args.world_size
        if loader.world_size != ranks:
            raise ConfigError(
                f"this loader was made for {loader.world_size} ranks, the Trainer has {ranks}: make TrainingArguments "
                f"first, or pass rank= and world_size= to pipe.loader()"
            )

    def get_train_dataloader(self) -> Any:
        """The loader, as it is."""
        return self.train_loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The loader for validation, or what the Trainer makes of another dataset."""
        own = self.eval_loader
        if own is not None and (eval_dataset is None or eval_dataset is own.dataset):
            return own
        return super().get_eval_dataloader(eval_dataset)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **options: Any) -> Any:
        """As the Trainer's; the data goes on where the checkpoint stands."""
        found = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if found:
            place = Path(found) / NAME
            if not place.exists():
                raise ConfigError(
                    f"the checkpoint {found} does not say where the data stood ({NAME}): no LoaderTrainer made it, or "
                    f"it was ended before the checkpoint was whole; give resume_from_checkpoint= an earlier one"
                )
            self.train_loader.load_state_dict(json.loads(place.read_text()))
        return super().train(resume_from_checkpoint, *args, **options)


class _KeepsPlace(TrainerCallback):  # type: ignore[misc]
    """Writes the place of the data into every checkpoint."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """After a checkpoint was written, on every rank."""
        place = json.dumps(self._loader.state_dict(all_ranks=True))
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.process_index == 0:
            write_atomic(folder / NAME, place.encode())
