"""Folders to shards."""

from streampipe.pack.pack import Summary, pack
from streampipe.pack.scan import Item, Scan, scan
from streampipe.pack.split import split

__all__ = ["Item", "Scan", "Summary", "pack", "scan", "split"]
