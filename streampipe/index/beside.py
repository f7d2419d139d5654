"""What lies beside the shards of a stream, for stages that need it: read once for each shard in use, then let go."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from streampipe.context import Run, where
from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.pool import Pool
from streampipe.source import Source
from streampipe.tar import Limits
from streampipe.unwanted import Unwanted, asking, is_unwanted, result
from streampipe.urls import ShardList

_MOST_HELD = 256
_FEW_HELD = 2
_AT_ONCE = 16


class _Live:
    """What a process holds. Never pickled, never used after a fork."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.held: OrderedDict[str, Future[Any]] = OrderedDict()
        self.most = _FEW_HELD
        self.gone: deque[tuple[int, str]] = deque(maxlen=_MOST_HELD)


class Beside:
    """The shards that a stage's samples come from, the source that reads them, and what is held of files beside them.

    A plan says how many shards are in use at once (``run.open_shards``), and so many files are held. Without a plan it
    is found out: two, and twice as many whenever one that was let go is wanted again in the same epoch.

    Args:
        shards: the stream's; without them a sample's ``__url__`` is its shard.
    """

    def __init__(
        self, shards: ShardList | None = None, source: Source | None = None, limits: Limits | None = None
    ) -> None:
        self.shards = shards
        self.source = source or Source()
        self.limits = limits or Limits()
        self._now: _Live | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_now": None}

    def shard_of(self, sample: Mapping[str, Any], run: Run) -> str:
        """The URL of the shard that a sample came from, as it was given: with its query, if it has one.

        Raises:
            ConfigError: a stage in front dropped what says so.
        """
        position = sample.get("__position__")
        if self.shards is not None and position is not None:
            return self.shards[int(position.shard)]
        url = sample.get("__url__") if self.shards is None else None
        if not url:
            raise ConfigError(
                f"stage {run.stage!r}, {where(sample)}: it does not say which shard it came from; keep __url__ and "
                f"__position__ in the stages before"
            )
        return str(url)

    def held(self, url: str, load: Callable[[str], Any], epoch: int, run: Run, what: str) -> Any:
        """What ``load`` gives for a file, loaded when it is wanted for the first time, and counted as ``what``.

        Several threads may ask; a file is loaded by the first of them, and the others wait for it.
        """
        while True:
            found, mine = self._found(url, load, epoch, run, what)
            try:
                return result(found)
            except Unwanted:  # of whoever loaded it: his work, not ours, may be wanted no more
                if mine or is_unwanted()():
                    raise

    def _found(self, url: str, load: Callable[[str], Any], epoch: int, run: Run, what: str) -> tuple[Future[Any], bool]:
        """What is held of a file, or comes; and whether it was loaded here."""
        live = self._live()
        with live.lock:
            found = live.held.get(url)
            mine = found is None
            if found is None:
                if (epoch, url) in live.gone:
                    live.most = min(2 * live.most, _MOST_HELD)
                live.most = max(live.most, min(run.open_shards, _MOST_HELD))
                found = live.held[url] = Future()
                while len(live.held) > live.most:
                    live.gone.append((epoch, live.held.popitem(last=False)[0]))
            else:
                live.held.move_to_end(url)
        if mine:
            try:
                found.set_result(load(url))
                counters.add(run.stage, what)
            except BaseException as error:
                with live.lock:
                    if live.held.get(url) is found:
                        del live.held[url]
                found.set_exception(error)
        return found, mine

    def together(self, urls: Iterable[str], load: Callable[[str], Any], epoch: int, run: Run, what: str) -> None:
        """Load those of the files that are not held, several at once: a batch's first samples are of many shards."""
        live = self._live()
        with live.lock:
            new = [url for url in dict.fromkeys(urls) if url not in live.held]
        unwanted = is_unwanted()

        def one(url: str) -> None:
            with asking(unwanted):
                self.held(url, load, epoch, run, what)

        if len(new) > 1:
            with Pool(min(len(new), _AT_ONCE), thread_name_prefix="streampipe-beside") as pool:
                list(pool.map(one, new))

    def _live(self) -> _Live:
        if self._now is None or self._now.process != os.getpid():
            self._now = _Live()
        return self._now
