"""Rank and world size, found in one place: torch.distributed if it runs, else the environment, else Ray Train. And what
ranks tell each other.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch.distributed

from streampipe.errors import ConfigError


def find_world(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """(rank, world size): as given, else from torch.distributed, else from RANK and WORLD_SIZE, else from Ray
    Train where this is one of its workers, else (0, 1).

    Raises:
        ConfigError: only one of the two is given, or the environment and torch.distributed disagree.

    >>> find_world(1, 4)
    (1, 4)
    """
    if (rank is None) != (world_size is None):
        raise ConfigError(f"give rank and world_size together, or neither (got rank={rank}, world_size={world_size})")
    if rank is not None and world_size is not None:
        if not isinstance(rank, int) or not isinstance(world_size, int):
            raise ConfigError(f"rank and world_size are whole numbers, not {rank!r} and {world_size!r}")
        return _checked(rank, world_size, "the arguments")
    environment = _from_environment()
    if has_process_group():
        group = (torch.distributed.get_rank(), torch.distributed.get_world_size())
        if environment is not None and environment != group:
            raise ConfigError(
                f"torch.distributed says rank {group[0]} of {group[1]}, the environment rank {environment[0]} of "
                f"{environment[1]}: pass rank= and world_size= to say which is meant"
            )
        return group
    return environment or _from_ray() or (0, 1)


def check_world(rank: int, world_size: int) -> None:
    """Refuse what was found before the process group was made, if the group says something else.

    Raises:
        ConfigError: a loader made too early would read another rank's samples, or all of them.
    """
    if has_process_group():
        group = (torch.distributed.get_rank(), torch.distributed.get_world_size())
        if group != (rank, world_size):
            raise ConfigError(
                f"this loader was made for rank {rank} of {world_size}, before torch.distributed said rank {group[0]} "
                f"of {group[1]}: make it after init_process_group, or pass rank= and world_size="
            )


def has_process_group() -> bool:
    """Whether torch.distributed runs here, so that ranks can tell each other something."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def of_all_ranks(value: Any) -> list[Any]:
    """What each rank of the process group gives; all of them must call this."""
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def of_first_rank(value: Any) -> Any:
    """What the first rank of the process group gives; all of them must call this."""
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def cores() -> int:
    """How many processor cores this process may take: its share, where torchrun started several on this machine.

    >>> cores() >= 1
    True
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, found // int(beside)) if beside.isdecimal() and int(beside) else found


def _from_environment() -> tuple[int, int] | None:
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world_size is None:
        return None
    try:
        return _checked(int(rank), int(world_size), "the environment")
    except ValueError:
        raise ConfigError(f"RANK={rank!r} and WORLD_SIZE={world_size!r} in the environment are no numbers") from None


def _from_ray() -> tuple[int, int] | None:
    """Of a worker of Ray Train whose backend makes no process group; Ray is only asked where it was imported."""
    train = sys.modules.get("ray.train")
    if train is None:
        return None
    try:
        context = train.get_context()
        rank, world_size = context.get_world_rank(), context.get_world_size()
    except RuntimeError:  # this is no training function
        return None
    return _checked(rank, world_size, "Ray Train")


def _checked(rank: int, world_size: int, origin: str) -> tuple[int, int]:
    if not 0 <= rank < world_size:
        raise ConfigError(f"{origin} name rank {rank} of {world_size}, which does not exist; ranks count from 0")
    return rank, world_size
