"""What all tests share."""

import pytest

pytest.register_assert_rewrite("tests.laws", "tests.loader.life", "tests.engine.lanes")
collect_ignore = ["fuzz.py", "soak.py"]  # run apart, and fuzz.py needs atheris


@pytest.fixture(autouse=True, scope="session")
def _own_memory(tmp_path_factory):
    """Remembered indexes go into a folder of this run, never into the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMPIPE_CACHE", str(tmp_path_factory.mktemp("memory")))
        yield
