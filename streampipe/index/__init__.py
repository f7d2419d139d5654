"""What is known of a shard without reading it: one row a sample, in a Parquet file beside it."""

from streampipe.index.build import Summary, index
from streampipe.index.find import Finder
from streampipe.index.scan import scan
from streampipe.index.table import ShardIndex

__all__ = ["Finder", "ShardIndex", "Summary", "index", "scan"]
