"""A report in the form that is asked for."""

from __future__ import annotations

import json

from streampipe.errors import ConfigError
from streampipe.report.chrome import chrome_trace
from streampipe.report.page import page
from streampipe.report.seen import Seen
from streampipe.report.summarize import summarize
from streampipe.report.summary import Facts
from streampipe.report.text import table

FORMATS = ("text", "json", "html", "trace")


def text_of(seen: Seen, facts: Facts, format: str) -> str:
    """The report.

    Raises:
        ConfigError: a trace was asked for, and none was kept.
    """
    if format == "trace":
        if not seen.counted.spans:
            raise ConfigError("there is no trace: make the loader with loader(trace=True), and run it")
        return chrome_trace(seen.counted.spans)
    found = summarize(seen, facts)
    if format == "json":
        return json.dumps(found.as_dict(), indent=1)
    return page(found, seen.counted.spans) if format == "html" else table(found)
