"""A loader's place in checkpoints that keep one state for the whole job: torch's distributed checkpoint, Accelerate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streampipe.errors import ConfigError
from streampipe.loader import Loader


class JobState:
    """The place of all ranks' loaders as one text: torch's ``Stateful``, for ``torch.distributed.checkpoint``.

    A distributed checkpoint fills in the values of a state that is there already, so its structure must not change from
    step to step; and of what is no tensor it keeps that of one rank. So this is one text, the same on every rank. All
    ranks must ask for it at the same step. It is loaded on any number of ranks and workers.

    >>> import streampipe as sp
    >>> loader = sp.from_iterable([{"n": i} for i in range(9)]).batch(2).loader()
    >>> next(iter(loader))["n"]
    tensor([0, 1])
    >>> other = sp.from_iterable([{"n": i} for i in range(9)]).batch(2).loader()
    >>> JobState(other).load_state_dict(JobState(loader).state_dict())
    >>> next(iter(other))["n"]
    tensor([2, 3])
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def state_dict(self) -> dict[str, Any]:
        """The text, under one name."""
        return {"streampipe": json.dumps(self.loader.state_dict(all_ranks=True))}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The next pass continues where the text says.

        Raises:
            ConfigError: this is no state, or of another pipeline.
        """
        text = state_dict.get("streampipe") if isinstance(state_dict, Mapping) else None
        try:
            state = json.loads(text)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ConfigError("this is no state of JobState: load what its state_dict() gave") from None
        self.loader.load_state_dict(state)
