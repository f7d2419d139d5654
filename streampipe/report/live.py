"""A report while the loader runs: on a line of tqdm's, or as a table that stays in its place (rich)."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from tqdm import tqdm

from streampipe.errors import ConfigError
from streampipe.report.summary import Summary
from streampipe.report.text import table

_EVERY = 0.5  # seconds


class Live(Protocol):
    """What shows a loader that runs."""

    def batch(self, samples: int) -> None:
        """One more batch was given out."""

    def close(self) -> None:
        """The pass is over."""


def live(kind: str, look: Callable[[], Summary], total: int | None) -> Live:
    """The line or the table of a pass.

    Raises:
        ConfigError: rich is not installed, which the table needs.
    """
    return Line(look, total) if kind == "line" else Table(look)


class Line:
    """A bar of tqdm's with samples a second, the share of waiting, and what takes most of the readers' time."""

    def __init__(self, look: Callable[[], Summary], total: int | None) -> None:
        self._look = look
        self._bar = tqdm(total=total, unit="batch", dynamic_ncols=True)
        self._next = monotonic() + _EVERY

    def batch(self, samples: int) -> None:
        """One more batch was given out."""
        self._bar.update()
        if monotonic() >= self._next:
            self._next = monotonic() + _EVERY
            self._bar.set_postfix_str(line(self._look()), refresh=False)

    def close(self) -> None:
        """The pass is over: the last numbers stay."""
        self._bar.set_postfix_str(line(self._look()))
        self._bar.close()


def line(found: Summary) -> str:
    """The shortest form of a report.

    >>> line(Summary(rate=640.2, wait_share=0.031))
    '640 samples/s, waits 3 %'
    """
    parts = [f"{found.rate:,.0f} samples/s", f"waits {100 * found.wait_share:.0f} %"]
    most = max(found.stages, key=lambda row: row.own_seconds, default=None)
    if most is not None:
        parts.append(f"{most.name} {100 * (most.utilisation or most.share):.0f} %")
    return ", ".join(parts)


class Table:
    """The whole report, in its place in the terminal."""

    def __init__(self, look: Callable[[], Summary]) -> None:
        try:
            from rich.live import Live as RichLive
        except ImportError:
            raise ConfigError("loader(progress='table') needs rich: pip install 'streampipe[rich]'") from None
        self._look = look
        self._next = 0.0
        self._live: Any = RichLive(auto_refresh=False)
        self._live.start()

    def batch(self, samples: int) -> None:
        """One more batch was given out."""
        if monotonic() >= self._next:
            self._next = monotonic() + _EVERY
            self._show()

    def close(self) -> None:
        """The pass is over: the last numbers stay."""
        self._show()
        self._live.stop()

    def _show(self) -> None:
        from rich.text import Text

        self._live.update(Text(table(self._look())), refresh=True)
