"""Names in a stage's options of which no sample has a field: mostly one is misspelt, and nothing else would say so."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from streampipe.context import Run
from streampipe.decoding.several import list_of

log = logging.getLogger("streampipe")
LOOKED_AT = 100
"""Samples of one reader's pass after which a name is taken for a mistake: some fields are in few samples."""


class Unseen:
    """The names of one option that no sample had so far. ``any_of``: they are alternatives, one of them is enough."""

    def __init__(self, stage: str, option: str, names: Collection[str], any_of: bool = False) -> None:
        self._stage, self._option = stage, option
        self._names = set(names)
        self._any_of = any_of
        self._there: dict[str, None] = {}
        self._samples = 0

    def look(self, sample: Iterable[str]) -> None:
        """At the names of a sample's fields."""
        if not self._names:
            return
        fields = [name for name in sample if not name.startswith("__")]
        self._samples += 1
        found = {each for name in fields for each in (name, name.partition(".")[0], list_of(name))}
        if self._any_of and self._names & found:
            self._names = set()
        self._names -= found
        self._there |= dict.fromkeys(fields)
        if self._names and self._samples >= LOOKED_AT:
            log.warning(
                "%s: %s= names %s, and none of the first %d samples has that among %s: is it misspelt?",
                self._stage,
                self._option,
                " and ".join(map(repr, sorted(self._names))),
                self._samples,
                ", ".join(self._there) or "its images",
            )
            self._names = set()


def unseen(run: Run, option: str, names: Collection[str], any_of: bool = False) -> Unseen:
    """What a reader has seen in a pass of the names of an option, however often the stage was started."""
    key = f"unseen {run.stage} {option} {sorted(names)}"
    found: Unseen = run.shared.setdefault(key, Unseen(run.stage, option, names, any_of))
    return found
