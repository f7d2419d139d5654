"""How long to try again, and when: a budget of time in which nothing comes, with growing random pauses between tries.

A pause is that of ``streampipe.backoff``, or what the server asks for, if that is longer.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

from streampipe import unwanted
from streampipe.backoff import pause
from streampipe.counters import counters
from streampipe.errors import SourceUnavailable, TruncatedShard
from streampipe.source.failures import Ended, Failure, cause, causes, failure
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.unwanted import Stop

_FINAL_TRIES = 8  # of what no time will change: an object that is shorter than it says, a host that has no name
_LEAST = 1e-3  # seconds of a first pause, where there are many tries: nobody is asked without a pause for minutes
_FIRST_PATIENCE = 30.0  # seconds
_SAID = 6  # tries after which the wait is logged
_log = logging.getLogger("streampipe")


class Tries:
    """The tries at one piece of work. ``progress`` begins the count anew."""

    def __init__(
        self,
        url: str,
        network: Network,
        stop: Stop | None = None,
        used: str = "",
        worked: Callable[[], bool] = lambda: True,
    ) -> None:
        self._worked = worked
        self._url = url
        self._used = used
        self._stop = stop or Stop()
        self._network = network
        self._begun = time.monotonic()
        self.made = 0
        self._only_ends = True

    def progress(self) -> None:
        """Something new came."""
        if self.made:
            self.made, self._only_ends = 0, True

    def again(self, error: BaseException, byte: int, done: str = "read") -> None:
        """After a failure: pause and return, or raise what it was.

        Raises:
            TruncatedShard: every try ended in good order at this byte: there are no more.
            SourceUnavailable: every try failed.
            SourceError: another try would not help.
        """
        found: Failure = failure(error, self._url, done, self._used)
        if found.error is error:
            raise error
        if not found.again:
            raise found.error from cause(error, self._url)
        counters.add("network", "failed requests")
        now = time.monotonic()
        if not self.made:
            self._begun = now
        self.made += 1
        self._only_ends = self._only_ends and isinstance(error, Ended)
        waited = now - self._begun
        if self._over(error, waited):
            self._give_up(error, byte, done)
        if self.made == _SAID:
            _log.warning(
                "%s: nothing in %d tries and %.0f s; it is tried again until %.0f s are over (Network.patience)",
                found.error, self.made, waited, self._patience,
            )  # fmt: skip
        longest = self._network.longest_wait
        first = self._network.first_wait if self.made < _FINAL_TRIES else max(self._network.first_wait, _LEAST)
        most = max(self._network.patience - waited, longest)
        seconds = max(pause(min(self.made, 32), first, longest), min(found.wait, most))
        counters.add("network", "wait seconds", seconds)
        if unwanted.pause(self._stop, seconds):
            raise found.error from cause(error, self._url)

    def _over(self, error: BaseException, waited: float) -> bool:
        """Whether this was the last try: of an object that is short, of a host without a name, or for the patience."""
        most = self._network.tries
        if most is not None and self.made >= most:
            return True
        if self._only_ends or _is_nameless(error):
            return self.made >= _FINAL_TRIES
        return waited >= self._patience

    @property
    def _patience(self) -> float:
        """How long to wait: not long for a store that never gave anything, which may be a URL with a mistake."""
        return self._network.patience if self._worked() else min(self._network.patience, _FIRST_PATIENCE)

    def _give_up(self, error: BaseException, byte: int, done: str) -> None:
        shown = redact(self._url)
        if self._only_ends:
            raise TruncatedShard(
                f"{shown} ends at byte {byte}, in {self.made} tries ({error}): it is shorter than it says; "
                f"upload it again"
            ) from cause(error, self._url)
        seconds = time.monotonic() - self._begun
        text = failure(error, self._url, done).error
        raise SourceUnavailable(
            f"{text}: {self.made} tries at byte {byte} brought nothing, in {seconds:.1f} s; check the connection "
            f"and the store, then run again (tries and pauses: network=sp.Network(...))"
        ) from cause(error, self._url)


def _is_nameless(error: BaseException) -> bool:
    return any(isinstance(each, socket.gaierror) and each.errno == socket.EAI_NONAME for each in causes(error))
