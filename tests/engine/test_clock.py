"""Which epoch a plain pass is: agreed on by workers that begin late, by copies, and by iterators that nobody asks."""

import copy
import pickle

import pytest
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe.engine.clock import Clock
from tests.data import write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("shards")
    write_shards(found, [9])
    return str(found)


def epoch_of(batches):
    return next(iter(batches))["__position__"][0].epoch


def test_a_worker_that_begins_late_takes_the_epoch_of_its_own_set():
    clock = Clock()
    for identity, expected in ((11, 0), (12, 1), (11, 0), (13, 2), (12, 1), (11, 0), (14, 3)):
        epoch = clock.begin(identity, 1)
        clock.claim(identity, epoch)
        assert epoch == expected, f"pass {identity}"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_each_pass_of_workers_over_a_copy_of_a_pipeline_is_a_new_epoch(folder, copied):
    loader = DataLoader(copied(sp.stream(folder).batch(4)), batch_size=None, num_workers=1)
    assert [epoch_of(list(loader)) for _ in range(3)] == [0, 1, 2]


def test_workers_take_a_state_from_before_training_once(folder):
    pipe = sp.stream(folder).batch(4)
    pipe.set_epoch(2)
    state, pipe = pipe.state_dict(), sp.stream(folder).batch(4)
    pipe.load_state_dict(state)
    loader = DataLoader(pipe, batch_size=None, num_workers=1)
    epochs = []
    for epoch in (2, 3, 4):
        pipe.set_epoch(epoch)  # no warning: the state was taken, and is not given up
        epochs.append(epoch_of(list(loader)))
    assert epochs == [2, 3, 4]


def test_two_passes_that_are_made_before_either_is_asked_are_two_epochs(folder):
    pipe = sp.stream(folder).batch(4)
    first, second = iter(pipe), iter(pipe)
    assert (epoch_of(second), epoch_of(first), epoch_of(pipe)) == (0, 1, 2)


def test_a_plain_pass_that_nobody_asks_leaves_the_loaded_state_to_the_next(folder):
    pipe = sp.stream(folder).batch(4)
    batches = iter(pipe)
    first = next(batches)["__key__"]
    state = pipe.state_dict()
    pipe.load_state_dict(state)
    unasked = iter(pipe)
    assert pipe.state_dict() == state
    rest = [key for batch in pipe for key in batch["__key__"]]
    assert len(first) + len(rest) == len({*first, *rest}) == 9
    assert len(list(unasked)) == len(list(pipe)) == 3  # whole epochs


class _Slow:
    """The cells of a clock, of which the first look takes so long that something happens behind it."""

    def __init__(self, cell, happens):
        self.cell, self.happens = cell, happens

    def __getitem__(self, at):
        value = int(self.cell[at])
        happens, self.happens = self.happens, lambda: None
        happens()
        return value

    def __setitem__(self, at, value):
        self.cell[at] = value


def test_a_worker_whose_sibling_begins_while_it_looks_takes_the_same_epoch():
    clock, sibling = Clock(), Clock()
    sibling._cell = clock._cell
    clock.claim(7, 1)
    clock._cell = _Slow(clock._cell, lambda: sibling.claim(8, sibling.begin(8, 1)))
    assert clock.begin(8, 1) == sibling.begin(8, 1) == 2


def test_an_epoch_that_is_set_between_iter_and_the_first_item_is_that_of_the_pass(folder):
    pipe = sp.stream(folder).batch(4)
    batches = iter(pipe)
    pipe.set_epoch(7)
    assert (epoch_of(batches), epoch_of(pipe)) == (7, 8)
    batches = iter(pipe)
    pipe.set_epoch(3)  # an earlier one
    assert (epoch_of(batches), epoch_of(pipe)) == (3, 4)
    pipe.load_state_dict(pipe.state_dict())
    batches = iter(pipe)
    with pytest.warns(UserWarning, match=r"given up by set_epoch\(6\)"):
        pipe.set_epoch(6)
    assert len(list(batches)) == 3
    assert epoch_of(pipe) == 7
