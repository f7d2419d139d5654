"""What commands print of shards and servers: nothing that a terminal takes for an order."""

from __future__ import annotations

import json
import sys
from typing import Any

from streampipe.printable import printable
from streampipe.report.html import finite


def say(*columns: object, error: bool = False) -> None:
    """A line of columns, with tabs between them, to standard output (or, with ``error``, to standard error)."""
    print(*(printable(str(each), None) for each in columns), sep="\t", file=sys.stderr if error else sys.stdout)


def say_json(value: Any) -> None:
    """Plain values as JSON in a line: ASCII, and null for NaN and infinity, which JSON does not have."""
    print(json.dumps(finite(value)))
