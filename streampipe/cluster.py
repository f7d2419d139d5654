"""Work on a Ray cluster, in order and bounded: the counterpart of ``streampipe.processes`` for many machines.

Strategy: a piece of work is a task, as many at once as there are processors (or as were asked for). Each makes a file
that is a function of the piece alone and appears whole, so a task that is lost with its machine is simply given out
again, and two that run at the same time write the same bytes. Results are given out in the order of the pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from streampipe.errors import ConfigError, PackError, StreampipeError
from streampipe.processes import Tell

T = TypeVar("T")
R = TypeVar("R")
ENGINES = ("local", "ray")
_RETRIES = 8
"""How often a piece is given out again whose process or machine was lost."""


@dataclass(frozen=True)
class Cluster:
    """Where work is done: a Ray cluster.

    Args:
        address: of the cluster, as ``ray start`` says it; None: the one that this process is connected to, or that the
            environment names, or else one that is started on this machine.
        workers: pieces at once; None: one for each processor of the cluster.
    """

    address: str | None = None
    workers: int | None = None

    def ordered(self, function: Callable[[T, Tell], R], items: Iterable[T], tell: Tell) -> Generator[R, None, None]:
        """``function(item, tell)`` of each item, in processes of the cluster: the results in their order.

        Raises:
            PackError: a piece was lost again and again, or the cluster is gone.
            ConfigError: Ray is not installed, or there is no cluster at the address.
        """
        ray = self._connected()
        most = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        given = ray.put(function)
        work = ray.remote(max_retries=_RETRIES)(_work)
        waiting: list[Any] = []
        try:
            for item in items:
                waiting.append(work.remote(given, item))
                if len(waiting) >= 2 * most:
                    yield self._result(ray, waiting.pop(0), tell)
            while waiting:
                yield self._result(ray, waiting.pop(0), tell)
        finally:
            for each in waiting:  # nobody wants them any more
                with suppress(Exception):  # where the cluster is gone: what was raised says so
                    ray.cancel(each, force=True)

    def _connected(self) -> Any:
        try:
            import ray
            from ray import is_initialized  # which a folder of this name has not: Ray leaves one in /tmp
        except ImportError:
            raise ConfigError("engine='ray' needs one more package: pip install 'streampipe[ray]'") from None
        if not is_initialized():
            try:
                ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"there is no Ray cluster at {self.address or 'the address of the environment'} ({error}); start "
                    f"one with: ray start --head"
                ) from error
        return ray

    def _result(self, ray: Any, task: Any, tell: Tell) -> Any:
        try:
            done: _Done = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            raise _failed(error.cause or error) from error
        except ray.exceptions.RayError as error:
            why = str(error).strip().partition("\n")[0]
            raise PackError(
                f"a task of the Ray cluster was lost ({type(error).__name__}: {why}); run the same again: finished "
                f"shards are kept"
            ) from error
        tell(done.told)
        if done.error is not None:
            raise done.error
        return done.value


class _Done(NamedTuple):
    value: Any
    told: int
    error: StreampipeError | None


def _work(function: Callable[[Any, Tell], Any], item: Any) -> _Done:
    """A task. Errors of ours are results: giving the piece out again would not mend them."""
    told = 0

    def tell(amount: int) -> None:
        nonlocal told
        told += amount

    try:
        return _Done(function(item, tell), told, None)
    except StreampipeError as error:
        return _Done(None, told, type(error)(str(error)))
    except Exception as error:
        return _Done(None, told, _failed(error))


def _failed(error: BaseException) -> PackError:
    return PackError(f"a task of the Ray cluster failed with {type(error).__name__}: {error}")


def cluster_of(engine: str, address: str | None, workers: int | None) -> Cluster | None:
    """The cluster that is meant; None: this machine.

    Raises:
        ConfigError: there is no such engine.

    >>> cluster_of("ray", "10.0.0.1:6379", 0), cluster_of("local", None, 4)
    (Cluster(address='10.0.0.1:6379', workers=None), None)
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine is 'local' or 'ray', not {engine!r}")
    if engine == "local":
        if address is not None:
            raise ConfigError("address= is of a Ray cluster: say engine='ray' too")
        return None
    return Cluster(address, workers or None)
