"""Anything to shards: ``find`` what there is, of a folder or of a sample source (``catalog``), ``sift`` what is wanted
of it, ``split`` which sample goes where, ``change`` what is done to images, ``shard`` one shard, ``job`` whose folder
it is, ``run`` all of it.
"""

from streampipe.pack.run import pack
from streampipe.pack.split import split
from streampipe.pack.summary import Summary

__all__ = ["Summary", "pack", "split"]
