"""Folders to shards."""

from streampipe.pack.scan import Item, Scan, scan
from streampipe.pack.split import split
from streampipe.pack.write import Summary, pack

__all__ = ["Item", "Scan", "Summary", "pack", "scan", "split"]
