"""What loaders counted, as files: of ranks and jobs that cannot talk to each other, put together afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streampipe.counters import Counted, Took
from streampipe.errors import ConfigError
from streampipe.observe import Histogram, Slow, Span
from streampipe.report.forms import FORMATS, text_of
from streampipe.report.seen import Seen, merged
from streampipe.report.summary import Facts, StageFacts

_KIND = "streampipe: what a loader counted, 1"


def saved(seen: Seen, facts: Facts) -> str:
    """All that was counted, as JSON, for ``merged_report``."""
    counted = seen.counted
    found = {
        "kind": _KIND,
        "facts": asdict(facts),
        "sums": [[*at, amount] for at, amount in counted.sums.items()],
        "examples": [[*at, texts] for at, texts in counted.examples.items()],
        "took": [[*at, list(took.durations.counts.items()), took.slowest] for at, took in counted.took.items()],
        "spans": counted.spans,
        "waits": list(seen.waits.counts.items()),
        "first": seen.first,
        "clock": seen.clock,
    }
    return json.dumps(found)


def merged_report(
    paths: Iterable[str | os.PathLike[str]], format: str = "text", path: str | os.PathLike[str] | None = None
) -> str:
    """One report of several loaders' counts: of the ranks of a job, each of which wrote
    ``loader.report("counts", f"rank{rank}.json")``.

    They need not run any more, and no process group is needed. ``loader.report(all_ranks=True)`` does the same in a job
    that has one.

    Args:
        paths: the files.
        format: ``"text"``, ``"json"``, ``"html"``, or ``"trace"``.
        path: a file to write it to as well.

    Raises:
        ConfigError: there is none, one is no such file, or they are of loaders with other stages.

    >>> import pathlib, tempfile, streampipe as sp
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for rank in range(2):
    ...     loader = sp.from_iterable([{"n": i} for i in range(8)]).batch(2).loader()
    ...     batches = list(loader)
    ...     _ = loader.report("counts", folder / f"rank{rank}.json")
    >>> "8 batches" in sp.merged_report(sorted(folder.iterdir()))
    True
    """
    if format not in FORMATS:
        raise ConfigError(f"merged_report(format=) is one of {', '.join(FORMATS)}, not {format!r}")
    files = list(paths)
    every = [_loaded(each) for each in files]
    if not every:
        raise ConfigError('merged_report was given no files; loader.report("counts", path) writes one')
    first = every[0][1]
    for each, (_, facts) in zip(files, every, strict=True):
        names, others = ([stage.name for stage in one.stages] for one in (first, facts))
        if names != others:
            raise ConfigError(
                f"{each} is of a loader with other stages ({', '.join(others)}) than ({', '.join(names)})"
            )
    together = first.of_ranks(sum(facts.ranks for _, facts in every))
    text = text_of(merged([seen for seen, _ in every]), together, format)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text


def _loaded(path: str | os.PathLike[str]) -> tuple[Seen, Facts]:
    try:
        found: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        if found["kind"] != _KIND:
            raise ValueError(f"it is {found['kind']!r}")
        counted = Counted(
            {(name, what): amount for name, what, amount in found["sums"]},
            {(name, what): texts for name, what, texts in found["examples"]},
            {
                (name, what): Took(Histogram(dict(sizes)), [Slow(*each) for each in slowest])
                for name, what, sizes, slowest in found["took"]
            },
            [Span(*each) for each in found["spans"]],
        )
        facts = Facts(**{**found["facts"], "stages": tuple(StageFacts(**each) for each in found["facts"]["stages"])})
        return Seen(counted, Histogram(dict(found["waits"])), found["first"], float(found.get("clock", 0))), facts
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{path} is no file of a loader\'s counts ({error}); loader.report("counts", path) writes one'
        ) from error
