"""Work on a stream in processes, in order and bounded: the counterpart of ``streampipe.threads``.

Strategy: each worker has a pipe of its own and one piece of work at a time. The parent hands out pieces as workers
become free, hears of progress meanwhile, and gives the results out in the order of the pieces. A worker that dies
closes its pipe, so its death is seen at once. Workers end with their parent, and at the first error.
"""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from streampipe.errors import ConfigError, PackError, StreampipeError
from streampipe.lifeline import end_with_parent

T = TypeVar("T")
R = TypeVar("R")
Tell = Callable[[int], object]
"""Is told how far a piece of work has come."""
_OFTEN = 0.1  # seconds between two messages of a worker about that


class _Result(NamedTuple):
    value: Any
    error: StreampipeError | None


def ordered(
    function: Callable[[T, Tell], R], items: Iterable[T], workers: int, *, tell: Tell, context: Any = None
) -> Iterator[R]:
    """``function(item, tell)`` of each item, up to ``workers`` at once, each in a process: the results in their order.

    Items are pulled when a worker is free, at most ``2 * workers`` before the result that is waited for. An error is
    raised where its result would have come, when those before it are done. With ``workers`` 0 there is no process.

    Raises:
        PackError: a process died.
        ConfigError: function or items cannot be handed to a spawned process.
    """
    if workers <= 0:
        for item in items:
            yield function(item, tell)
        return
    pool = _Pool(function, workers, context)
    try:
        yield from pool.run(iter(items), tell)
    finally:
        pool.end()


UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError)
"""What is raised where a process that is not forked is to be given what cannot be pickled."""


def not_handed(error: Exception) -> ConfigError:
    """The error for that."""
    return ConfigError(
        f"the work cannot be handed to a worker process ({error}): use functions that a module holds by name, or "
        f"multiprocessing_context='fork'"
    )


class _Pool:
    def __init__(self, function: Callable[[Any, Tell], Any], workers: int, context: Any) -> None:
        start: Any = get_context(context) if context is None or isinstance(context, str) else context
        self._processes: dict[Connection, Any] = {}
        self._free: list[Connection] = []
        self._busy: dict[Connection, int] = {}
        self._workers = workers
        try:
            for _ in range(workers):
                ours, theirs = start.Pipe()
                process = start.Process(target=_work, args=(function, theirs), daemon=True)
                process.start()
                theirs.close()  # so that the end of the process is the end of the pipe
                self._processes[ours] = process
                self._free.append(ours)
        except UNPICKLABLE as error:
            self.end()
            raise not_handed(error) from error
        except BaseException:
            self.end()
            raise

    def run(self, items: Iterator[Any], tell: Tell) -> Iterator[Any]:
        done: dict[int, _Result] = {}
        given = due = 0
        more = True
        while True:
            while more and self._free and given - due < 2 * self._workers:
                item = next(items, items)
                if item is items:
                    more = False
                    break
                connection = self._free.pop()
                self._send(connection, item)
                self._busy[connection] = given
                given += 1
            while due in done:
                result = done.pop(due)
                if result.error is not None:
                    raise result.error
                due += 1
                yield result.value
            if not self._busy and not more and due == given:
                return
            if self._busy and due not in done:
                self._hear(done, tell)

    def _send(self, connection: Connection, item: Any) -> None:
        try:
            connection.send(item)
        except (BrokenPipeError, ConnectionResetError):
            self._died(connection)

    def _hear(self, done: dict[int, _Result], tell: Tell) -> None:
        for connection in wait(list(self._busy)):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except (EOFError, ConnectionResetError):
                self._died(connection)
            if isinstance(message, int):
                tell(message)
            else:
                done[self._busy.pop(connection)] = message
                self._free.append(connection)

    def _died(self, connection: Connection) -> None:
        process = self._processes[connection]
        process.join()
        raise PackError(
            f"a worker process ended with status {process.exitcode} (killed, or out of memory); use fewer workers, and "
            f"run the same again: finished shards are kept"
        )

    def end(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for connection, process in self._processes.items():
            process.join()
            connection.close()


def _work(function: Callable[[Any, Tell], Any], connection: Connection) -> None:
    """A worker process."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the parent ends the workers
    untold, last = 0, 0.0

    def tell(amount: int) -> None:
        nonlocal untold, last
        untold += amount
        if (now := time.monotonic()) - last > _OFTEN:
            connection.send(untold)
            untold, last = 0, now

    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            result = _Result(function(item, tell), None)
        except StreampipeError as error:
            result = _Result(None, type(error)(str(error)))
        except Exception as error:
            result = _Result(None, PackError(f"a worker process failed with {type(error).__name__}: {error}"))
        connection.send(untold)
        connection.send(result)
        untold = 0
