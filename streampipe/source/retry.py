"""How often to try again, and when: a budget of tries that bring nothing, with growing random pauses between them.

A pause is that of ``streampipe.backoff``, or what the server asks for, if that is longer.
"""

from __future__ import annotations

import threading
import time

from streampipe.backoff import pause
from streampipe.counters import counters
from streampipe.errors import SourceUnavailable, TruncatedShard
from streampipe.source.failures import Ended, Failure, cause, failure
from streampipe.source.location import redact
from streampipe.source.network import Network


class Tries:
    """The tries at one piece of work. ``progress`` begins the count anew."""

    def __init__(self, url: str, network: Network, stop: threading.Event | None = None, used: str = "") -> None:
        self._url = url
        self._used = used
        self._stop = stop or threading.Event()
        self._network = network
        self._begun = time.monotonic()
        self.made = 0
        self._only_ends = True

    def progress(self) -> None:
        """Something new came."""
        if self.made:
            self.made, self._only_ends, self._begun = 0, True, time.monotonic()

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
        self.made += 1
        self._only_ends = self._only_ends and isinstance(error, Ended)
        if self.made >= self._network.tries:
            self._give_up(error, byte, done)
        longest = self._network.longest_wait
        seconds = max(pause(self.made, self._network.first_wait, longest), min(found.wait, 3 * longest))
        counters.add("network", "wait seconds", seconds)
        if self._stop.wait(seconds):
            raise found.error from cause(error, self._url)

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
