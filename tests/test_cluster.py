"""Shards made by a Ray cluster are those of one process, also where workers are killed in the middle."""

import os
import signal

import pytest

import streampipe as sp
from streampipe.cluster import Cluster
from tests.pack.test_pack import folder_of, quiet
from tests.pack.test_resume import files

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def once(path, tell):
    """Ends its own process where nobody has been before."""
    tell(3)
    if path.endswith("2"):
        try:
            os.close(os.open(f"{path}.seen", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return path, "again"
        os.kill(os.getpid(), signal.SIGKILL)
    if path.endswith("7"):
        raise sp.PackError(f"{path} is full")
    return path, "at once"


def test_results_come_in_order_lost_tasks_again_and_errors_in_their_place(tmp_path, cluster):
    told = []
    found = Cluster().ordered(once, [f"{tmp_path}/{i}" for i in range(9)], told.append)
    first = [next(found) for _ in range(7)]
    assert first == [(f"{tmp_path}/{i}", "again" if i == 2 else "at once") for i in range(7)]
    with pytest.raises(sp.PackError, match="7 is full"):
        next(found)
    assert told == [3] * 8


def test_a_folder_is_packed_into_the_same_bytes(tmp_path, cluster):
    source = folder_of(tmp_path / "in", 9)
    quiet(source, tmp_path / "local", max_samples=2, shuffle=True)
    quiet(source, tmp_path / "ray", max_samples=2, shuffle=True, engine="ray")
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_a_pipeline_is_written_as_the_same_bytes(tmp_path, cluster):
    quiet(folder_of(tmp_path / "in", 9), tmp_path / "shards")
    pipe = sp.stream(tmp_path / "shards", shuffle=True, seed=1).rename(caption="txt")
    for name, options in (("local", {}), ("ray", {"engine": "ray", "num_workers": 2})):
        pipe.write(f"{tmp_path}/{name}/{{:05d}}.tar", max_samples=4, progress=False, **options)
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_engines_are_two():
    with pytest.raises(sp.ConfigError, match="engine is 'local' or 'ray', not 'spark'"):
        quiet("a", "b", engine="spark")
    with pytest.raises(sp.ConfigError, match="address= is of a Ray cluster"):
        quiet("a", "b", address="x")
