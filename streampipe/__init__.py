"""Composable generator stages that stream sharded tar archives into PyTorch. Start with ``stream``."""

from streampipe.captions import Tags
from streampipe.context import Consumer, Position, Run
from streampipe.decorators import SKIP, cached, inference, logged, on_error, retry, timed
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
from streampipe.loader import Loader
from streampipe.pipeline import Pipeline
from streampipe.plan.buckets import Buckets
from streampipe.policy import ErrorPolicy
from streampipe.source import Answer, Cache, Network, Pin, Store, register_store
from streampipe.stages.stage import Stage, stage
from streampipe.stream import from_iterable, mix, stream
from streampipe.tar import Limits

__version__ = "0.1.0"

__all__ = [
    "SKIP",
    "AccessDenied",
    "Answer",
    "Buckets",
    "Cache",
    "ConfigError",
    "Consumer",
    "CorruptShard",
    "DecodeError",
    "DuplicateKey",
    "ErrorPolicy",
    "IndexMismatch",
    "LimitExceeded",
    "Limits",
    "Loader",
    "NameCollision",
    "Network",
    "OutputBusy",
    "PackError",
    "Pin",
    "Pipeline",
    "Position",
    "Run",
    "SampleError",
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
    "from_iterable",
    "inference",
    "logged",
    "mix",
    "on_error",
    "register_store",
    "retry",
    "stage",
    "stream",
    "timed",
]
