"""Batches on their way from workers: whole, never overwritten, and nothing is left of them."""

import gc
import os
import pickle
import signal
from collections import namedtuple
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.loader.handover import Packed, Shelf
from streampipe.memory import Blocks, empty
from tests.data import write_photos, write_shards
from tests.warm import Program

EDGE = 160


def sent(item, shelf, blocks, worker=0):
    """What comes out on the other side; both are this process."""
    return pickle.loads(ForkingPickler.dumps(Packed(item, shelf.name, worker, blocks)))


def filled(blocks, number, size=EDGE * EDGE):
    """A tensor in a block, all of one number."""
    lent = blocks.take(size)
    return torch.empty(0, dtype=torch.uint8).set_(lent.untyped_storage()).fill_(number)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from([40_000, 44_000, 90_000])), max_size=25))
def test_a_batch_that_is_kept_is_never_overwritten(steps):
    blocks, shelf, kept = Blocks(shared=True), Shelf(), []
    for number, (in_block, drop, size) in enumerate(steps, 1):
        value = filled(blocks, number, size) if in_block else torch.full((size,), number, dtype=torch.uint8)
        batch = sent({"x": value, "half": value[: size // 2], "n": number}, shelf, blocks)
        del value
        kept.append((number, batch["x"] if number % 2 else batch["half"].numpy()[3:]))
        del batch
        for _ in range(min(drop, len(kept))):
            kept.pop(len(kept) // 2)
        assert all((each == number).all() for number, each in kept)


def test_blocks_go_round_and_are_sent_once():
    blocks, shelf = Blocks(shared=True), Shelf()
    seen = set()
    for number in range(20):
        batch = sent({"x": filled(blocks, number)}, shelf, blocks)
        assert (batch["x"] == number).all()
        seen.add(batch["x"].data_ptr())
        del batch
    assert len(seen) == len(shelf.blocks) == 1


def test_what_is_sent_twice_or_kept_by_the_worker_is_whole_in_each_parcel():
    blocks, shelf = Blocks(shared=True), Shelf()
    mine = filled(blocks, 7)
    first = sent({"x": mine}, shelf, blocks)
    second = sent({"x": mine}, shelf, blocks)
    del first
    for number in range(5):
        sent({"x": filled(blocks, number)}, shelf, blocks)
    assert (mine == 7).all()
    assert (second["x"] == 7).all()


Pair = namedtuple("Pair", "a b")
ITEMS = [
    torch.arange(6).reshape(2, 3),
    torch.arange(60_000).reshape(200, 300).t(),
    torch.rand(2, 3, 90, 90).to(memory_format=torch.channels_last),
    torch.rand(300, 300)[:, ::3],
    torch.rand(50_000).to(torch.bfloat16),
    torch.tensor(3.5),
    torch.empty(0, 4),
    torch.rand(20_000, dtype=torch.complex64).conj(),
    torch.rand(9, requires_grad=True),
    torch.ones(3, 4).to_sparse(),
    Pair(torch.rand(40_000), 1),
    [torch.rand(2), ({"a": torch.rand(40_000)}, "text", None)],
    {"a": b"bytes", "b": [1, 2, 3], "c": torch.ones(2, dtype=torch.bool)},
    "streampipe",
    torch.zeros(2, 3)[None].expand(7, 2, 3),
]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("number", range(len(ITEMS)))
def test_any_item_comes_as_it_was(number):
    blocks, shelf = Blocks(shared=True), Shelf()
    same(sent(ITEMS[number], shelf, blocks), ITEMS[number])


def same(found, item):
    """Fail where two items differ, or tensors of them in their kind or layout."""
    assert type(found) is type(item)
    if isinstance(item, torch.Tensor):
        assert (found.dtype, found.shape, found.requires_grad) == (item.dtype, item.shape, item.requires_grad)
        if item.layout is torch.strided and item.numel() and item.is_contiguous(memory_format=torch.contiguous_format):
            assert found.stride() == item.stride()
        assert torch.equal(found.to_dense(), item.to_dense())
    elif isinstance(item, dict):
        assert list(found) == list(item)
        for name in item:
            same(found[name], item[name])
    elif isinstance(item, (list, tuple)):
        assert len(found) == len(item)
        for one, other in zip(found, item, strict=True):
            same(one, other)
    else:
        assert found == item


def test_a_fork_of_the_parent_gives_nothing_back():
    blocks, shelf = Blocks(shared=True), Shelf()
    batch = sent({"x": filled(blocks, 5)}, shelf, blocks)
    child = os.fork()
    if not child:
        del batch
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for number in range(3):
        sent({"x": filled(blocks, number)}, shelf, blocks)
    assert (batch["x"] == 5).all()


def labelled(batch):
    """A batch with a large tensor that a function made, by which the keys can be told."""
    numbers = torch.tensor([int(key) for key in batch["__key__"]])
    batch["made"] = numbers[:, None, None].expand(-1, 100, 100).contiguous()
    return batch


@pytest.mark.parametrize(
    "options", [{"persistent_workers": True, "threads": 2}, {"multiprocessing_context": "forkserver"}]
)
@pytest.mark.usefixtures("warm")
def test_batches_of_workers_that_are_kept_stay_as_they_came(tmp_path, options):
    write_photos(tmp_path, [10, 9, 11])
    pipe = sp.stream(tmp_path, shuffle=7).decode(size=120).batch(2).map(labelled)
    whole = {key: image for batch in pipe for key, image in zip(batch["__key__"], batch["jpg"], strict=True)}
    loader = pipe.loader(num_workers=2, **options)
    kept = []
    for _ in range(3 if "persistent_workers" in options else 1):
        for number, batch in enumerate(loader):
            kept.append(batch if number % 3 else {**batch, "jpg": batch["jpg"][:1], "__key__": batch["__key__"][:1]})
            if number % 4 == 0:
                del kept[len(kept) // 2]
    assert len(kept) > 8
    for batch in kept:
        for key, image, made in zip(batch["__key__"], batch["jpg"], batch["made"], strict=False):
            assert torch.equal(image, whole[key])
            assert (made == int(key)).all()


def large(sample):
    return {"x": torch.zeros(50_000)}


def be_killed(folder):
    pipe = sp.stream(folder, epochs=None).map(large).batch(4)
    for number, _ in enumerate(pipe.loader(num_workers=2)):
        if number == 6:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("warm")
def test_a_killed_parent_leaves_nothing_in_shared_memory(tmp_path):
    write_shards(tmp_path, [20, 20])
    before = segments()
    assert Program(be_killed, tmp_path, stderr=Path(os.devnull)).wait() == -signal.SIGKILL
    assert segments() <= before


def segments():
    """The names of torch's segments of shared memory."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("torch", "psm"))}


def test_small_tensors_need_no_shared_memory():
    blocks, shelf = Blocks(shared=True), Shelf()
    sent({"time_ids": empty((4, 6), torch.int64), "n": torch.ones(3)}, shelf, blocks)
    assert not shelf.blocks
