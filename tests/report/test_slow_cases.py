"""What is made slow on purpose is what the report names, and its advice fits."""

import contextlib
import functools
import os
import time

import pytest

import streampipe.source.local as local
from streampipe.testing import FaultServer
from tests.data import write_shards
from tests.report import runs


def measured(test):
    """What is judged is real time, which a loaded machine can spoil: one undisturbed run of several is enough."""

    @functools.wraps(test)
    def again(*args, **kwargs):
        for _ in range(4):
            with contextlib.suppress(AssertionError):
                return test(*args, **kwargs)
        return test(*args, **kwargs)

    return again


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [40, 40])
    return folder


@pytest.mark.parametrize("options", [{}, {"threads": 2}], ids=str)
@measured
def test_a_slow_map_is_named_and_wants_threads(folder, options):
    found = runs.run(runs.pipe(folder).map(runs.sleepy, "txt").batch(8), 8, **options).summary()
    assert found.limit == "map(sleepy)"
    assert "map(sleepy)" in found.verdict  # on a busy machine some calls are late, and named
    assert "threads=" in found.verdict
    assert "samples/s" in found.verdict


@measured
def test_a_slow_map_in_workers_is_named(folder):
    found = runs.run(runs.pipe(folder).map(runs.sleepy, "txt").batch(8), 12, num_workers=2).summary()
    assert found.limit == "map(sleepy)"
    assert "num_workers=" in found.verdict


@measured
def test_a_stage_of_ones_own_is_named(folder):
    found = runs.run(runs.pipe(folder).apply(runs.own()).batch(8), 8, threads=2).summary()
    assert found.limit == "own"
    assert "threads=" in found.verdict


@measured
def test_a_stages_own_threads_are_told_how_busy_they_are(folder):
    found = runs.run(runs.pipe(folder).map(runs.sleepy, "txt", threads=2).batch(8), 8, threads=1).summary()
    assert found.limit == "map(sleepy)"
    (row,) = [row for row in found.stages if row.name == "map(sleepy)"]
    assert row.threads == 2
    assert row.utilisation > 0.5


@measured
def test_code_that_holds_pythons_lock_wants_workers(folder):
    found = runs.run(runs.pipe(folder).map(runs.computing, "txt").batch(8), 8).summary()
    assert found.limit == "map(computing)"
    assert "num_workers=" in found.verdict or "cores that there are for it are in use" in found.verdict


@measured
def test_a_slow_consumer_is_told_that_data_are_not_to_blame(folder):
    found = runs.run(runs.pipe(folder).batch(8), 12, step=0.03, threads=1).summary()
    assert found.limit == "consumer"
    assert found.wait_share < 0.05
    assert "more would gain nothing" in found.verdict
    assert found.capacity > found.rate


@measured
def test_a_slow_disk_is_named(folder, monkeypatch):
    class Slow:
        def __getattr__(self, name):
            return getattr(os, name)

        def pread(self, *args):
            time.sleep(0.01)
            return os.pread(*args)

    monkeypatch.setattr(local, "os", Slow())
    found = runs.run(runs.pipe(folder).batch(8), 8, threads=1).summary()
    assert found.limit == "disk"
    assert "reading from the disk takes" in found.verdict
    assert found.disk_bytes > 0
    assert found.disk_seconds > 0.5


@measured
def test_a_slow_link_is_named(folder):
    objects = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    with FaultServer(objects) as server:
        server.bandwidth = 150_000
        found = runs.run(runs.pipe([server.url(name) for name in sorted(objects)]).batch(8), 8, threads=1).summary()
    assert found.limit == "network"
    assert "waiting for the network takes" in found.verdict
    assert found.requests >= 2
    assert found.network_bytes > 10_000


@pytest.mark.parametrize("options", [{}, {"threads": 2}], ids=str)
@measured
def test_a_few_slow_samples_are_named_with_a_key(folder, options):
    found = runs.run(runs.pipe(folder).map(runs.rarely_slow, "txt").batch(8), 20, **options).summary()
    assert found.limit == "map(rarely_slow)"
    assert "one call in" in found.verdict
    (row,) = [row for row in found.stages if row.name == "map(rarely_slow)"]
    assert int(row.slowest[0][1]) % 20 == 3
    assert f"sample {row.slowest[0][1]!r}" in found.verdict
