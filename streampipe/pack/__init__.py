"""Folders to shards: ``names`` which files are one sample, ``layouts`` where they lie, ``listing`` all that a folder
holds, ``split`` which sample goes where, ``shard`` one shard, ``job`` whose folder it is, ``run`` all of it.
"""

from streampipe.pack.listing import Listing, scan
from streampipe.pack.names import File, Item
from streampipe.pack.run import Summary, pack
from streampipe.pack.split import split

__all__ = ["File", "Item", "Listing", "Summary", "pack", "scan", "split"]
