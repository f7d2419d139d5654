"""Pipelines to shards: ``encode`` values to bytes, ``draft`` files that appear whole, ``job`` whose folder it is,
``spec`` a pipeline in words, ``work`` one shard, ``workers`` many at once, ``run`` all of it.
"""

from streampipe.write.encode import encode_field, encode_sample
from streampipe.write.run import Options, Summary, write

__all__ = ["Options", "Summary", "encode_field", "encode_sample", "write"]
