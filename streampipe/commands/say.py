"""What commands print of shards and servers: nothing that a terminal takes for an order."""

from __future__ import annotations

import sys

from streampipe.printable import printable


def say(*columns: object, error: bool = False) -> None:
    """A line of columns, with tabs between them, to standard output (or, with ``error``, to standard error)."""
    print(*(printable(str(each), None) for each in columns), sep="\t", file=sys.stderr if error else sys.stdout)
