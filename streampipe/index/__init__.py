"""What is known of a shard without reading it: one row a sample, in a Parquet file beside it.

A shard's: ``table`` the index · ``columns`` the scalars of json members · ``layout`` where fields are · ``stated`` a
size that the json says · ``facts`` all of that by name · ``find`` where an index is found · ``ready`` those that were
read.

Made: ``scan`` from a shard · ``writer`` while one is written · ``note``, ``learn`` while one is streamed · ``build`` of
all shards of a dataset · ``whole`` its manifest, brought up to date.

A dataset's: ``manifest`` one row a shard · ``dataset`` its identity · ``sizes`` sums of fields · ``merged`` the facts
of many shards in one file · ``answers`` questions that were answered, kept · ``memory`` where.

Of others: ``known`` what other tools count · ``sidecar``, ``separated``, ``parquet``, ``unpack`` files with more about
samples · ``beside`` those beside shards.
"""

from streampipe.index.build import Summary, index
from streampipe.index.find import Finder
from streampipe.index.scan import scan
from streampipe.index.table import ShardIndex

__all__ = ["Finder", "ShardIndex", "Summary", "index", "scan"]
