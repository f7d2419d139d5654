"""Shards made by a Ray cluster are those of one process, also where workers are killed in the middle."""

import os
import signal

import pytest

import streampipe as sp
from streampipe.cluster import Cluster
from streampipe.source import Source
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


def bad(path, tell):
    raise KeyError(f"{path} is odd")


def unreadable(path, tell):
    return Unreadable()


class Unreadable:
    """What cannot be handed back."""

    def __reduce__(self):
        raise ValueError("no pickle of it")


def test_an_exception_of_a_task_is_no_lost_task_and_is_said(cluster):
    for function, said in ((bad, "KeyError: '1 is odd'"), (unreadable, "ValueError: no pickle of it")):
        with pytest.raises(sp.PackError, match=f"a task of the Ray cluster failed with {said}"):
            next(Cluster().ordered(function, ["1", "2"], print))


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


class Killed(Source):
    """Ends the process that reads one of the shards where nobody has been before: as a machine that is lost."""

    def __init__(self, seen):
        super().__init__()
        self.seen, self.home = seen, os.getpid()

    def buffer(self, url):
        if str(url).endswith("00002.tar") and os.getpid() != self.home:
            try:
                os.close(os.open(self.seen, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().buffer(url)


def shards_of(tmp_path):
    return quiet(folder_of(tmp_path / "in", 9), tmp_path / "shards", max_samples=2).out


def test_an_index_is_the_same_though_a_worker_is_killed(tmp_path, cluster):
    shards, seen = shards_of(tmp_path), tmp_path / "seen"
    here = sp.index(shards, folder=str(tmp_path / "local"), progress=False)
    there = sp.index(shards, Killed(seen), folder=str(tmp_path / "ray"), engine="ray", progress=False)
    assert seen.exists()
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    assert (there.samples, there.bytes) == (here.samples, here.bytes) == (9, there.bytes)
    again = sp.index(shards, folder=str(tmp_path / "ray"), engine="ray", threads=1, progress=False)
    assert again.kept == again.shards == 5


def test_a_damaged_shard_is_left_out_of_the_index_on_a_cluster_too(tmp_path, cluster):
    shards = shards_of(tmp_path)
    with open(f"{shards}/00001.tar", "r+b") as file:
        file.truncate(700)
    found = sp.index(shards, folder=str(tmp_path / "ray"), engine="ray", on_error="skip", progress=False)
    assert len(found.failed) == 1
    assert "00001.tar" in found.failed[0]
    assert found.samples == 7


def test_verify_finds_the_same_though_a_worker_is_killed(tmp_path, cluster, monkeypatch):
    shards, seen = shards_of(tmp_path), tmp_path / "seen"
    with open(f"{shards}/00003.tar", "r+b") as file:
        file.seek(600)
        file.write(b"damage")
    here = sp.verify(shards, decode=True, progress=False)
    monkeypatch.setattr("streampipe.commands.verify.Source", lambda options: Killed(seen))
    there = sp.verify(shards, decode=True, engine="ray", progress=False)
    assert seen.exists()
    assert there.damages == here.damages
    assert there.damages
    assert there.shards == here.shards == 5


def test_engines_are_two():
    with pytest.raises(sp.ConfigError, match="engine is 'local' or 'ray', not 'spark'"):
        quiet("a", "b", engine="spark")
    with pytest.raises(sp.ConfigError, match="address= is of a Ray cluster"):
        quiet("a", "b", address="x")
