"""The reports of a loader: what its recorder saw, with how it runs, in the form that is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streampipe import report
from streampipe.engine.chain import named
from streampipe.engine.engine import Engine
from streampipe.errors import ConfigError
from streampipe.loader.feed import Crew
from streampipe.report import Facts, Seen, StageFacts, Summary
from streampipe.report.forms import FORMATS, text_of
from streampipe.report.saved import saved
from streampipe.spec import AnyStage
from streampipe.stages.stage import Stage
from streampipe.world import cores, has_process_group, of_all_ranks

FORMS = (*FORMATS, "counts")


def facts_of(engine: Engine[Any] | None, crew: Crew, prefetch: int) -> Facts:
    """How a loader runs, for its reports."""
    stages = [] if engine is None else [_stage(name, stage, crew.inner) for name, stage in named(engine.chain)]
    shards: Any = None if engine is None else getattr(engine.spec.source, "shards", None)
    remote = bool(shards) and "://" in str(shards[0])
    return Facts(tuple(stages), crew.workers, crew.threads, prefetch, 1, cores(), remote)


def _stage(name: str, stage: AnyStage, threads: int) -> StageFacts:
    options: Mapping[str, Any] = stage.options if isinstance(stage, Stage) else {}
    both = options.get("decode", options.get("map"))  # with batch in one
    options = both if isinstance(both, Mapping) else options
    if "threads" not in options:
        return StageFacts(name, foreign=not _is_own(stage), python="fn" in options)
    own = options["threads"]
    return StageFacts(name, threads if own is None else own, True, "fn" in options)


def _is_own(stage: AnyStage) -> bool:
    """Whether the library has the stage."""
    return isinstance(stage, Stage) and stage.define.function.__module__.startswith("streampipe.")


def look(seen: Seen, facts: Facts) -> Summary:
    """The numbers of this rank as they are now."""
    return report.summarize(seen, facts)


def report_of(seen: Seen, facts: Facts, format: str, path: str | os.PathLike[str] | None, all_ranks: bool) -> str:
    """The report in one of its formats; also written to ``path``."""
    if format not in FORMS:
        raise ConfigError(f"report(format=) is one of {', '.join(FORMS)}, not {format!r}")
    if all_ranks and has_process_group():
        every = of_all_ranks(seen)
        seen, facts = report.merged(every), facts.of_ranks(len(every))
    text = saved(seen, facts) if format == "counts" else text_of(seen, facts, format)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text
