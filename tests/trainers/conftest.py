"""What the tests of trainers share: shards, and that the trainers' own warnings are none of ours."""

from pathlib import Path

import pytest

from tests.data import write_shards

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for kind in ("DeprecationWarning", "FutureWarning", "UserWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four shards of ten samples."""
    found = tmp_path_factory.mktemp("shards")
    write_shards(found, [10] * 4)
    return str(found)
