"""Composable generator stages that stream sharded tar archives into PyTorch. Start with ``stream``."""

from streampipe.captions import Tags
from streampipe.commands.verify import verify
from streampipe.context import Consumer, Position, Run
from streampipe.decoding import Area
from streampipe.decoding.conditioning import Conditioning
from streampipe.decorators import SKIP, cached, inference, logged, on_error, retry, timed
from streampipe.device import DeviceLoader, to_device
from streampipe.engine.interleaved import merge_states
from streampipe.errors import (
    AccessDenied,
    ConfigError,
    CorruptShard,
    DecodeError,
    DuplicateKey,
    IndexMismatch,
    LimitExceeded,
    NameCollision,
    OutputBusy,
    PackError,
    SampleError,
    ShardChanged,
    ShardError,
    ShardMissing,
    SourceError,
    SourceUnavailable,
    StageError,
    StreampipeError,
    TooManyErrors,
    TruncatedShard,
    UnsafeFormat,
    UnsafeName,
    UnsupportedMember,
)
from streampipe.index import index
from streampipe.index.learn import Learn
from streampipe.lineage import Lineage
from streampipe.loader import Loader
from streampipe.pack import pack
from streampipe.pipeline import Pipeline
from streampipe.plan.buckets import Buckets
from streampipe.plan.schedule import Schedule
from streampipe.policy import ErrorPolicy
from streampipe.preview import preview
from streampipe.reading.folder import Folder
from streampipe.reading.parquet import Parquet
from streampipe.replay import replay
from streampipe.samplesource import SampleSource, register_source
from streampipe.source import Answer, Cache, Network, Pin, Store, register_store
from streampipe.stages.stage import Stage, stage
from streampipe.stream import concat, from_iterable, mix, split, stream
from streampipe.tar import Limits
from streampipe.views import show

__version__ = "0.1.0"

__all__ = [
    "SKIP",
    "AccessDenied",
    "Answer",
    "Area",
    "Buckets",
    "Cache",
    "Conditioning",
    "ConfigError",
    "Consumer",
    "CorruptShard",
    "DecodeError",
    "DeviceLoader",
    "DuplicateKey",
    "ErrorPolicy",
    "Folder",
    "IndexMismatch",
    "Learn",
    "LimitExceeded",
    "Limits",
    "Lineage",
    "Loader",
    "NameCollision",
    "Network",
    "OutputBusy",
    "PackError",
    "Parquet",
    "Pin",
    "Pipeline",
    "Position",
    "Run",
    "SampleError",
    "SampleSource",
    "Schedule",
    "ShardChanged",
    "ShardError",
    "ShardMissing",
    "SourceError",
    "SourceUnavailable",
    "Stage",
    "StageError",
    "Store",
    "StreampipeError",
    "Tags",
    "TooManyErrors",
    "TruncatedShard",
    "UnsafeFormat",
    "UnsafeName",
    "UnsupportedMember",
    "cached",
    "concat",
    "from_iterable",
    "index",
    "inference",
    "logged",
    "merge_states",
    "mix",
    "on_error",
    "pack",
    "preview",
    "register_source",
    "register_store",
    "replay",
    "retry",
    "show",
    "split",
    "stage",
    "stream",
    "timed",
    "to_device",
    "verify",
]
