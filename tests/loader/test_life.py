"""The law of the loader's life on every driver and level, and what cannot be done refused with what to do."""

from __future__ import annotations

from functools import cache, partial

import pytest

from tests import levels
from tests.levels import BATCH
from tests.loader.life import ROWS, Case, Driver

# More workers than the lanes of so few samples have columns: a warning says that some are idle.
# And torchdata calls what this torch warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*worker:UserWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital':UserWarning"),
]

LOADER, THREADS = Driver("loader", "ours"), Driver("threads", "ours", options={"threads": 2})
ONE, THREE = Driver("1 worker", "ours", 1), Driver("3 workers", "ours", 3)
PERSISTENT = Driver("persistent", "ours", 2, {"persistent_workers": True})
PLAIN, PLAIN_2 = Driver("DataLoader", "torch"), Driver("DataLoader 2", "torch", 2)
STATEFUL, STATEFUL_2 = Driver("StatefulDataLoader", "torchdata"), Driver("StatefulDataLoader 2", "torchdata", 2)

SOURCES = {
    "indexed": partial(levels.samples, "indexed", "each"),
    "indexed, filter": partial(levels.samples, "indexed", "filter"),
    "indexed, opaque": partial(levels.samples, "indexed", "opaque"),
    "counted": partial(levels.samples, "counted", "each"),
    "counted, opaque": partial(levels.samples, "counted", "opaque"),
    "streamed": partial(levels.samples, "streamed", "each"),
    "streamed, split": partial(levels.samples, "streamed", "split"),
    "opened": partial(levels.samples, "opened", "each"),
    "mix": levels.mixed,
    "bucket": levels.bucketed,
}
EPOCHS, TWO, STEPS = (None, 1), (None, 2), (4, 1)
"""What a pass is: (steps_per_epoch, epochs)."""
LENGTHS = {EPOCHS: "epoch", TWO: "two epochs", STEPS: "steps"}
LOCAL = ("indexed", "indexed, opaque", "streamed")
PLAN = [  # every source in this process; of those that start workers, as few as meet every level and kind of pass
    *((source, LOADER, length) for source in SOURCES for length in (EPOCHS, STEPS)),
    *((source, THREADS, length) for source in ("indexed", "streamed") for length in (EPOCHS, STEPS)),
    *((source, LOADER, TWO) for source in (*LOCAL, "bucket")),
    *((source, driver, EPOCHS) for driver in (PLAIN, STATEFUL) for source in LOCAL),
    ("indexed", THREE, STEPS),
    ("indexed, opaque", THREE, EPOCHS),
    ("counted", THREE, EPOCHS),
    ("streamed", THREE, STEPS),
    ("bucket", THREE, EPOCHS),
    ("streamed", ONE, STEPS),
    ("indexed", PERSISTENT, EPOCHS),
    ("indexed, opaque", PERSISTENT, STEPS),
    *((source, driver, EPOCHS) for driver in (PLAIN_2, STATEFUL_2) for source in ("indexed", "streamed")),
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("levels")
    levels.write_levels(found)
    return found


@cache
def case_of(folder, source, driver, length):
    """One case for all its rows, so that the uninterrupted run is made once."""
    return Case(lambda **options: SOURCES[source](folder, **options).batch(BATCH), driver, *length)


CELLS = [
    pytest.param(source, driver, length, name, id=f"{name}-{source}-{driver.name}-{LENGTHS[length]}")
    for source, driver, length in PLAN
    for name, (_, when) in ROWS.items()
    if when(Case(lambda: None, driver, *length))
]


@pytest.mark.parametrize(("source", "driver", "length", "name"), CELLS)
def test_life(folder, source, driver, length, name):
    ROWS[name][0](case_of(folder, source, driver, length))
