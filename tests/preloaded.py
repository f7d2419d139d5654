"""What the server of ``tests.warm`` has imported: torch, streampipe without what needs an extra package, helpers."""

import fsspec.implementations.local  # noqa: F401
import hypothesis  # noqa: F401
import numpy.random  # noqa: F401
import pytest  # noqa: F401
import torch
import torch.distributed

import streampipe
import streampipe.cli
import tests.levels  # noqa: F401

for name in streampipe.__all__:
    getattr(streampipe, name)
torch.set_num_threads(1)  # programs of tests are small, and many run at once
