"""Folders to shards: ``split`` which sample goes where, ``change`` what is done to images, ``shard`` one shard, ``job``
whose folder it is, ``run`` all of it.
"""

from streampipe.pack.run import Summary, pack
from streampipe.pack.split import split

__all__ = ["Summary", "pack", "split"]
