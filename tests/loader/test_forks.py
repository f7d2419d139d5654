"""A process that is forked while a pass is open: what runs for the parent stays the parent's, and both go on."""

import multiprocessing
import os

import pytest

import streampipe as sp
from tests.data import write_shards

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*worker:UserWarning"),
]
OPTIONS = [{"threads": 2}, {"num_workers": 1}, {"num_workers": 1, "persistent_workers": True}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("shards")
    write_shards(found, [40])
    return str(found)


def keys(batches):
    return [batch["__key__"] for batch in batches]


def told(batches, to):
    to.send(keys(batches))
    to.close()


def in_a_fork(batches):
    """What a forked process is given, while this one waits."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=told, args=(batches, there))
    child.start()
    there.close()
    try:
        return here.recv()
    finally:
        child.join()


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fork_and_its_parent_both_go_on_with_the_open_pass(folder, options):
    make = sp.stream(folder, shuffle=True).batch(4).loader
    whole, loader = keys(make()), make(**options)
    batches = iter(loader)
    assert [next(batches)["__key__"] for _ in range(2)] == whole[:2]
    assert in_a_fork(batches) == whole[2:]
    assert keys(batches) == whole[2:]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fork_goes_on_in_the_stream_of_steps_with_threads_and_workers_of_its_own(folder, options):
    make = sp.stream(folder, shuffle=True, epochs=None).batch(4).loader
    stream, loader = keys(make(steps_per_epoch=6)), make(steps_per_epoch=3, **options)
    batches = iter(loader)
    assert next(batches)["__key__"] == stream[0]
    assert in_a_fork(loader) == stream[1:4]
    assert keys(batches) == stream[1:3]
    assert keys(loader) == stream[3:]
