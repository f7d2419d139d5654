"""Attack a reader on purpose: an HTTP server, a TCP proxy and an opener that break where a test tells them to.

``FaultServer`` speaks HTTP and knows bodies; ``ChaosProxy`` knows only bytes and stands before any server;
``BrokenOpener`` needs no network at all. Standard library only.

And check what you add yourself: ``check_codec`` tells whether an image codec keeps its protocol, ``check_store``
whether a store does, ``check_source`` whether a sample source does.
"""

from streampipe.testing.answer import Request
from streampipe.testing.codec import check_codec
from streampipe.testing.conformance import check_store
from streampipe.testing.faults import (
    Chunked,
    Corrupt,
    Cut,
    Delay,
    Encoded,
    Fault,
    IgnoreRange,
    NoLength,
    Redirect,
    Reset,
    Stall,
    Status,
    Swap,
    Throttle,
    WrongLength,
    WrongRange,
)
from streampipe.testing.opener import BrokenOpener
from streampipe.testing.proxy import ChaosProxy
from streampipe.testing.samples import check_source
from streampipe.testing.server import FaultServer
from streampipe.testing.toxics import (
    Bandwidth,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)

__all__ = [
    "Bandwidth",
    "BrokenOpener",
    "ChaosProxy",
    "Chunked",
    "Corrupt",
    "Cut",
    "Delay",
    "Encoded",
    "Fault",
    "FaultServer",
    "IgnoreRange",
    "Latency",
    "LimitData",
    "NoLength",
    "Redirect",
    "Request",
    "Reset",
    "ResetPeer",
    "Slicer",
    "SlowClose",
    "Stall",
    "Status",
    "Swap",
    "Throttle",
    "Timeout",
    "Toxic",
    "WrongLength",
    "WrongRange",
    "check_codec",
    "check_source",
    "check_store",
]
