"""Composable generator stages that stream sharded tar archives into PyTorch. Start with ``stream``.

Nothing is imported before it is used, so ``import streampipe`` and ``streampipe --help`` wait for neither torch nor
pyarrow. A public name stands here three times: for type checkers, in ``__all__``, and with its module in ``_FROM``.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streampipe.captions import Tags
    from streampipe.combine import concat, mix, split
    from streampipe.commands.verify import verify
    from streampipe.context import Consumer, Position, Run
    from streampipe.decoding import Area
    from streampipe.decoding.conditioning import Conditioning
    from streampipe.decorators.cached import cached
    from streampipe.decorators.inference import inference
    from streampipe.decorators.logged import logged
    from streampipe.decorators.on_error import on_error
    from streampipe.decorators.retry import retry
    from streampipe.decorators.skip import SKIP
    from streampipe.decorators.timed import timed
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
    from streampipe.plan.compound import Compound
    from streampipe.plan.schedule import Schedule
    from streampipe.policy import ErrorPolicy
    from streampipe.preview import preview
    from streampipe.reading.folder import Folder
    from streampipe.reading.parquet import Parquet
    from streampipe.replay import replay
    from streampipe.report.saved import merged_report
    from streampipe.samplesource import SampleSource, register_source
    from streampipe.source import Answer, Cache, Network, Pin, Store, register_store
    from streampipe.stages.stage import Stage, stage
    from streampipe.stream import from_iterable, stream
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
    "Compound",
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
    "merged_report",
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

_FROM = {
    "streampipe.captions": "Tags",
    "streampipe.combine": "concat mix split",
    "streampipe.commands.verify": "verify",
    "streampipe.context": "Consumer Position Run",
    "streampipe.decoding": "Area",
    "streampipe.decoding.conditioning": "Conditioning",
    "streampipe.decorators.cached": "cached",
    "streampipe.decorators.inference": "inference",
    "streampipe.decorators.logged": "logged",
    "streampipe.decorators.on_error": "on_error",
    "streampipe.decorators.retry": "retry",
    "streampipe.decorators.skip": "SKIP",
    "streampipe.decorators.timed": "timed",
    "streampipe.device": "DeviceLoader to_device",
    "streampipe.engine.interleaved": "merge_states",
    "streampipe.errors": "AccessDenied ConfigError CorruptShard DecodeError DuplicateKey IndexMismatch LimitExceeded "
    "NameCollision OutputBusy PackError SampleError ShardChanged ShardError ShardMissing SourceError "
    "SourceUnavailable StageError StreampipeError TooManyErrors TruncatedShard UnsafeFormat UnsafeName "
    "UnsupportedMember",
    "streampipe.index": "index",
    "streampipe.index.learn": "Learn",
    "streampipe.lineage": "Lineage",
    "streampipe.loader": "Loader",
    "streampipe.pack": "pack",
    "streampipe.pipeline": "Pipeline",
    "streampipe.plan.buckets": "Buckets",
    "streampipe.plan.compound": "Compound",
    "streampipe.plan.schedule": "Schedule",
    "streampipe.policy": "ErrorPolicy",
    "streampipe.preview": "preview",
    "streampipe.reading.folder": "Folder",
    "streampipe.reading.parquet": "Parquet",
    "streampipe.replay": "replay",
    "streampipe.report.saved": "merged_report",
    "streampipe.samplesource": "SampleSource register_source",
    "streampipe.source": "Answer Cache Network Pin Store register_store",
    "streampipe.stages.stage": "Stage stage",
    "streampipe.stream": "from_iterable stream",
    "streampipe.tar": "Limits",
    "streampipe.views": "show",
}
"""Where public names come from."""
_PLACES = {name: module for module, names in _FROM.items() for name in names.split()}


class _Package(ModuleType):
    """The package, in which a public name is never hidden by the module of the same name (``index``, ``stream``)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):  # Python puts a module there when it is imported
            super().__setattr__(name, value)

    def __reduce__(self) -> Any:
        """By name, as any module: Ray, Dask and others send functions of ``__main__`` with what they refer to."""
        return import_module, (self.__name__,)


if not TYPE_CHECKING:  # or a type checker would take any name for one that is there

    def __getattr__(name: str) -> Any:
        """A public name or a module, when it is first asked for."""
        if name in _PLACES:
            found = getattr(import_module(_PLACES[name]), name)
        elif not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            found = import_module(f"{__name__}.{name}")
        else:
            raise import_module(f"{__name__}.spelling").no_name(name, __all__)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
