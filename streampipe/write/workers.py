"""Shards made by worker processes: each makes its share, and tells the parent what it read and counted."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from streampipe.counters import counters
from streampipe.errors import ConfigError, PackError, StreampipeError
from streampipe.lifeline import end_with_parent
from streampipe.write.work import Tell, Work

_OFTEN = 0.1  # seconds between two messages of a worker


def in_workers(work: Work, numbers: Sequence[int], workers: int, context: Any, tell: Tell) -> None:
    """Make the shards of these numbers in ``workers`` processes. Ends when all have ended, or at the first error.

    Raises:
        PackError: a process died.
        ConfigError: the pipeline cannot be handed to a spawned process.
    """
    start: Any = get_context(context) if context is None or isinstance(context, str) else context
    running: dict[Connection, Any] = {}
    try:
        for worker in range(workers):
            ours, theirs = start.Pipe(duplex=False)
            process = start.Process(target=_work, args=(work, numbers[worker::workers], theirs), daemon=True)
            try:
                process.start()
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise ConfigError(
                    f"the pipeline cannot be handed to a worker process ({error}): use functions that a module holds "
                    f"by name, not lambdas or local ones, or multiprocessing_context='fork'"
                ) from error
            theirs.close()  # so that the end of the process is the end of the pipe
            running[ours] = process
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                try:
                    _hear(connection.recv(), tell)
                except EOFError:
                    _check_ended(running.pop(connection))
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _hear(message: Any, tell: Tell) -> None:
    if isinstance(message, BaseException):
        raise message
    if isinstance(message, dict):
        counters.merge(message)
    else:
        tell(message)


def _check_ended(process: Any) -> None:
    process.join()
    if process.exitcode:
        raise PackError(
            f"a worker process of write ended with status {process.exitcode} (killed, or out of memory); use fewer "
            f"workers or smaller batches, and run the same again: finished shards are kept"
        )


def _work(work: Work, numbers: Sequence[int], connection: Connection) -> None:
    """A worker process."""
    end_with_parent()
    torch.set_num_threads(1)
    counters.take()  # what a forked worker was born with is the parent's
    untold, last = 0, time.monotonic()

    def tell(samples: int) -> None:
        nonlocal untold, last
        untold += samples
        if time.monotonic() - last > _OFTEN:
            connection.send(untold)
            untold, last = 0, time.monotonic()

    try:
        for number in numbers:
            work.make(number, tell)
            connection.send(counters.take())
        connection.send(untold)
    except StreampipeError as error:
        connection.send(type(error)(str(error)))
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        connection.send(PackError(f"a worker process of write failed with {type(error).__name__}: {error}"))
        raise
