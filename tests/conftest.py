"""What all tests share."""

import gc
import multiprocessing
from multiprocessing import forkserver

import pytest
from hypothesis import HealthCheck, settings

from tests.warm import PRELOADED

# A loaded machine fails no test, and what passed once passes again. --hypothesis-profile explore draws new examples.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("explore", settings.get_profile("suite"), derandomize=False, max_examples=1000)
settings.load_profile("suite")

pytest.register_assert_rewrite("tests.laws", "tests.loader.life", "tests.engine.lanes")
collect_ignore = ["fuzz.py", "soak.py", "pack/slow.py"]  # run apart; fuzz.py needs atheris, and slow.py is slow


@pytest.fixture(autouse=True, scope="session")
def _own_memory(tmp_path_factory):
    """Remembered indexes go into a folder of this run, never into the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMPIPE_CACHE", str(tmp_path_factory.mktemp("memory")))
        yield


gc.disable()  # what is imported while tests are collected stays


def pytest_collection_finish():
    """Hundreds of thousands of objects of imported modules are looked at by no collection, here or in a forked child.

    There each look copies the page on which the object lies: a collection in a child took a second.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


multiprocessing.set_forkserver_preload(PRELOADED)


@pytest.fixture(scope="session")
def warm():
    """The method to start processes that begin with torch and streampipe imported, with no test's environment."""
    forkserver.ensure_running()
    return "forkserver"


FIRST = (
    "tests/test_train_text_to_image.py",
    "tests/write/test_kills.py",
    "tests/loader/test_loader.py",
    "tests/loader/test_accelerate.py",
    "tests/engine/test_lanes_laws.py",
    "tests/engine/test_lanes.py",
    "tests/test_resume.py",
    "tests/test_examples.py",
)
"""Files that take minutes: where two processes share the suite, neither is to begin with one of them at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
