"""Rows of the loader's life that are not asked of every driver: changed options, refusals, skips, tails, seeds, empty
shares."""

from __future__ import annotations

import copy
import io
import itertools
import json
import pickle
import subprocess
import sys
import warnings
from collections import Counter
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

import streampipe as sp
from tests import levels
from tests.data import shard
from tests.levels import keys_of, rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*worker:UserWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital':UserWarning"),
]

SOURCES = {
    "indexed": partial(levels.samples, "indexed", "each"),
    "indexed, opaque": partial(levels.samples, "indexed", "opaque"),
    "counted": partial(levels.samples, "counted", "each"),
    "streamed": partial(levels.samples, "streamed", "each"),
}
every_source = pytest.mark.parametrize("source", SOURCES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("levels")
    levels.write_levels(found)
    return found


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    """Shards of one size, so that no lane is an epoch ahead of the others after a few batches."""
    found = tmp_path_factory.mktemp("even")
    levels.write_levels(found, [5] * 12)
    return found


@pytest.fixture(scope="module")
def all_keys(folder):
    return sorted(keys_of(batches(SOURCES["indexed"](folder).batch(1))))


def batches(loader, number=None):
    """The rows of one pass, or of its first batches."""
    return [rows(batch) for batch in itertools.islice(loader, number)]


def via_json(state):
    return json.loads(json.dumps(state))


def make(folder, source, **options):
    return SOURCES[source](folder, **options).batch(4)


def saved_after(loader, number):
    """The state of a loader that was killed after so many batches, and what it had yielded."""
    running = iter(loader)
    got = [rows(next(running)) for _ in range(number)]
    return via_json(loader.state_dict()), got


def epoch_of(found, epoch):
    """Keys of one epoch among some batches."""
    return sorted(key for batch in found for each, key, _ in batch if each == epoch)


# --- epochs= and steps_per_epoch= changed since the state ---


SAVED = {
    "endless": ({"epochs": None}, {}),
    "one epoch": ({"epochs": 1}, {}),
    "three epochs": ({"epochs": 3}, {}),
    "steps": ({"epochs": None}, {"steps_per_epoch": 6}),
}


@every_source
@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_of_another_kind_of_pass_goes_on_to_the_end_of_its_epoch(even, source, saved, workers):
    options, cut = SAVED[saved]
    state, got = saved_after(make(even, source, **options).loader(workers, **cut), 3)
    loader = make(even, source, epochs=1).loader(workers)
    loader.load_state_dict(state)
    rest = batches(loader, 1000)
    all_keys = sorted(keys_of(batches(make(even, "indexed"))))
    assert epoch_of([*got, *rest], 0) == all_keys
    assert {epoch for batch in rest for epoch, _, _ in batch} == {0}
    following = batches(loader, 1000)
    assert sorted(keys_of(following)) == epoch_of(following, 1) == all_keys


@every_source
@pytest.mark.parametrize("saved", ["endless", "one epoch", "three epochs"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_goes_on_in_passes_of_steps(even, source, saved, workers):
    options, cut = SAVED[saved]
    state, got = saved_after(make(even, source, **options).loader(workers, **cut), 3)
    loader = make(even, source, epochs=None).loader(workers, steps_per_epoch=6)
    loader.load_state_dict(state)
    passes = [batches(loader, 1000) for _ in range(3)]
    assert len(passes[0]) in (3, 6)  # what had been taken of a pass, or a new pass
    assert [len(each) for each in passes[1:]] == [6, 6]
    seen = Counter((epoch, key) for batch in [*got, *itertools.chain(*passes)] for epoch, key, _ in batch)
    assert max(seen.values()) == 1, "a sample came twice in one epoch"


@every_source
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("before", "taken", "after", "lengths"),
    [(20, 15, 6, [6, 6]), (20, 3, 6, [3, 6]), (6, 4, 20, [16, 20]), (6, 6, 4, [4, 4]), (6, 4, 4, [4, 4])],
)
def test_steps_per_epoch_may_change(folder, source, workers, before, taken, after, lengths):
    """What was taken of a pass counts where the new pass is longer; else a new pass begins. The stream goes on."""
    endless = batches(make(folder, source, epochs=None).loader(workers), taken + sum(lengths))
    state, got = saved_after(make(folder, source, epochs=None).loader(workers, steps_per_epoch=before), taken)
    loader = make(folder, source, epochs=None).loader(workers, steps_per_epoch=after)
    loader.load_state_dict(state)
    passes = [batches(loader) for _ in lengths]
    assert [len(each) for each in passes] == lengths
    assert [*got, *itertools.chain(*passes)] == endless


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_of_a_pass_may_change(folder, workers):
    stream = batches(make(folder, "indexed", epochs=8).loader(workers))
    whole = len(batches(make(folder, "indexed", epochs=1).loader()))
    state, got = saved_after(make(folder, "indexed", epochs=1).loader(workers), 3)
    loader = make(folder, "indexed", epochs=3).loader(workers)
    loader.load_state_dict(state)
    passes = [batches(loader) for _ in range(2)]
    assert len(passes[0]) in (whole - 3, 3 * whole - 3)
    assert len(passes[1]) == len(loader) == 3 * whole
    assert [*got, *passes[0], *passes[1]] == stream[: 3 + len(passes[0]) + len(passes[1])]


def test_set_epoch_places_passes_of_steps_in_the_stream(folder):
    endless = batches(make(folder, "indexed", epochs=None).loader(), 20)
    loader = make(folder, "indexed", epochs=None).loader(steps_per_epoch=4)
    for number in (3, 1):
        loader.set_epoch(number)
        assert batches(loader) == endless[4 * number : 4 * number + 4]
    assert batches(loader) == endless[8:12]
    loader.set_epoch(3)
    assert batches(loader) == endless[12:16]


# --- two loaders, plain passes, states in the wrong place ---


@every_source
def test_loaders_of_two_ranks_over_one_pipeline_share_its_samples(folder, all_keys, source):
    pipe = make(folder, source, epochs=None)
    loaders = [pipe.loader(rank=rank, world_size=2, steps_per_epoch=30) for rank in range(2)]
    found = [batch for loader in loaders for batch in batches(loader)]
    assert epoch_of(found, 0) == all_keys


def test_plain_passes_over_a_pipeline_are_counted_by_the_pipeline_alone(folder):
    pipe = make(folder, "indexed")
    loader = pipe.loader()
    epochs = []
    for each in (pipe, loader, pipe, pipe, loader):
        epochs.append({epoch for batch in batches(each) for epoch, _, _ in batch})
    assert epochs == [{0}, {0}, {1}, {2}, {1}]


def right_or_refused(expected, run):
    """What cannot be done is refused with what to do instead; it is never done half."""
    try:
        got = run()
    except sp.ConfigError as error:
        assert "loader(" in str(error) or "StatefulDataLoader" in str(error), f"no advice: {error}"
    else:
        assert got == expected


@every_source
def test_a_state_of_the_pipeline_goes_on_in_its_loader_or_is_refused(folder, source):
    whole = batches(make(folder, source))
    pipe = make(folder, source)
    running = iter(pipe)
    for _ in range(3):
        next(running)
    state = via_json(pipe.state_dict())
    fresh = make(folder, source)
    fresh.load_state_dict(state)
    right_or_refused(whole[3:], lambda: batches(fresh.loader()))


@every_source
@pytest.mark.parametrize("workers", [1, 2])
def test_a_state_in_the_parent_of_plain_workers_is_refused_or_right(folder, source, workers):
    pipe = make(folder, source)
    running = iter(pipe)
    for _ in range(3):
        next(running)
    fresh = make(folder, source)
    fresh.load_state_dict(via_json(pipe.state_dict()))
    reference = make(folder, source)
    whole, following = batches(reference), batches(reference)
    loader = DataLoader(fresh, batch_size=None, num_workers=workers)
    expected = [sorted(keys_of(whole[3:])), sorted(keys_of(following))]
    right_or_refused(expected, lambda: [sorted(keys_of(batches(loader))) for _ in range(2)])


@every_source
def test_the_parent_of_plain_workers_does_not_claim_to_know_where_they_are(folder, source):
    pipe = make(folder, source)
    running = iter(DataLoader(pipe, batch_size=None, num_workers=2))
    for _ in range(3):
        next(running)
    with pytest.raises(sp.ConfigError, match=r"loader\(|StatefulDataLoader"):
        pipe.state_dict()


@pytest.mark.parametrize("option", ["in_order", "generator", "sampler", "batch_sampler"])
def test_options_of_torch_that_have_no_meaning_here_are_refused_with_advice(folder, option):
    with pytest.raises(sp.ConfigError, match=f"{option}="):
        make(folder, "indexed").loader(**{option: None})


def test_the_pipelines_stages_of_workers_that_are_no_forks_resume(folder, warm):
    whole = batches(make(folder, "indexed, opaque").loader(2))
    options = {"num_workers": 2, "multiprocessing_context": warm}
    state, got = saved_after(make(folder, "indexed, opaque").loader(**options), 3)
    loader = make(folder, "indexed, opaque").loader(**options)
    loader.load_state_dict(state)
    assert [*got, *batches(loader)] == whole


# --- states of several ranks ---


@every_source
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_state_taken_right_after_loading_a_list_is_valid(folder, source, ranks):
    def loader_of(rank, ranks):
        pipe = SOURCES[source](folder, epochs=None).batch(12 // ranks)
        return pipe.loader(rank=rank, world_size=ranks, steps_per_epoch=50)

    states = [saved_after(loader_of(rank, 2), 3)[0] for rank in range(2)]
    loaders = [loader_of(rank, ranks) for rank in range(ranks)]
    for loader in loaders:
        loader.load_state_dict(states)
    again = [via_json(loader.state_dict()) for loader in loaders]
    for rank, loader in enumerate(loaders):
        expected = batches(loader, 6)
        for given in (again, again[rank]):
            fresh = loader_of(rank, ranks)
            fresh.load_state_dict(given)
            assert via_json(fresh.state_dict()) == again[rank]
            assert batches(fresh, 6) == expected


# --- skipped and dropped samples ---


def bad(text):
    if text == "bad":
        raise ValueError("bad")
    return text


def drop(text):
    return sp.SKIP if text == "bad" else text


POLICY = sp.ErrorPolicy("skip", max_share=1.0)
SKIPS = {"an error": (bad, {"on_error": POLICY}), "sp.SKIP": (drop, {})}
BAD = (4, 8, 12, 13, 21)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """40 samples, of which a few are bad, at every level."""
    found = tmp_path_factory.mktemp("damaged")
    (found / "indexed").mkdir()
    for s in range(4):
        own = [(f"{10 * s + i:04d}", {"txt": "bad" if 10 * s + i in BAD else "good"}) for i in range(10)]
        (found / "indexed" / f"{s:05d}.tar").write_bytes(shard(own))
    levels.compress(found / "indexed", found / "counted", [10] * 4)
    return found


GOOD = {f"{i:04d}" for i in range(40)} - {f"{i:04d}" for i in BAD}


@pytest.mark.parametrize("level", ["indexed", "counted"])
@pytest.mark.parametrize("why", SKIPS)
@pytest.mark.parametrize("size", [None, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_take_equal_steps_of_equal_shape_whatever_is_skipped(damaged, level, why, size, workers):
    function, options = SKIPS[why]
    pipe = sp.stream(str(damaged / level), shuffle=8, **options).decode().map(function, "txt")
    pipe = pipe if size is None else pipe.batch(size)
    loaders = [pipe.loader(workers, rank=rank, world_size=2) for rank in range(2)]
    found = [[batch["__key__"] for batch in loader] for loader in loaders]
    assert [len(each) for each in found] == [len(loader) for loader in loaders] == [20 if size is None else 4] * 2
    if size is None:
        seen = list(itertools.chain(*found))
    else:
        assert {len(batch) for each in found for batch in each} == {size}
        seen = list(itertools.chain(*itertools.chain(*found)))
    assert set(seen) == GOOD, "bad samples came, or good ones did not"


@pytest.mark.parametrize("why", SKIPS)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_torch_makes_are_equal_on_all_ranks_too(damaged, why, workers, monkeypatch):
    function, options = SKIPS[why]
    counts = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        pipe = sp.stream(str(damaged / "indexed"), shuffle=8, **options).decode().map(function, "txt")
        loader = DataLoader(pipe, batch_size=2, collate_fn=list, num_workers=workers)
        counts.append([len(batch) for batch in loader])
    assert counts == [[2] * 10] * 2


# --- validation and seeds ---


@every_source
@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_a_fixed_epoch_is_the_same_in_every_pass(folder, source, options):
    loader = make(folder, source).loader(fixed_epoch=True, **options)
    first = batches(loader)
    assert first
    assert batches(loader) == first
    batches(loader, 2)
    assert batches(loader) == first
    state, got = saved_after(loader, 2)
    fresh = make(folder, source).loader(fixed_epoch=True, **options)
    fresh.load_state_dict(state)
    assert [*got, *batches(fresh)] == first
    assert batches(fresh) == first


@pytest.mark.parametrize("source", ["indexed", "streamed"])
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("kind", ["DataLoader", "StatefulDataLoader", "loader"])
def test_seeding_torch_at_the_same_place_of_each_epoch_repeats_none(folder, all_keys, source, persistent, kind):
    pipe = make(folder, source)
    if kind == "loader":
        loader = pipe.loader(2, persistent_workers=persistent)
    else:
        stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
        classes = {"DataLoader": DataLoader, "StatefulDataLoader": stateful}
        loader = classes[kind](pipe, batch_size=None, num_workers=2, persistent_workers=persistent)
    for epoch in range(4):
        torch.manual_seed(42)
        found = batches(loader)
        assert sorted(keys_of(found)) == epoch_of(found, epoch) == all_keys, f"pass {epoch}"


def test_seeding_torch_after_a_pass_that_was_broken_off_repeats_no_epoch(folder, all_keys):
    pipe = make(folder, "indexed")
    loader = DataLoader(pipe, batch_size=None, num_workers=2)
    for epoch in range(4):
        torch.manual_seed(42)
        found = batches(loader, 2 if epoch % 2 == 0 else None)
        assert {each for batch in found for each, _, _ in batch} == {epoch}
        if epoch % 2:
            assert sorted(keys_of(found)) == all_keys


# --- endless streams ---


class Shards:
    """An opener over shards in memory, some of them cut off."""

    def __init__(self, counts, cut=()):
        self.shards = {}
        for number, count in enumerate(counts):
            own = [(f"{number:03d}{i:04d}", {"txt": "x"}) for i in range(count)]
            data = shard(own)
            self.shards[f"mem://{number:05d}.tar"] = data[:700] if number in cut else data
        self.keys = [f"{n:03d}{i:04d}" for n, count in enumerate(counts) if n not in cut for i in range(count)]

    def __call__(self, url):
        return io.BytesIO(self.shards[url])

    def stream(self, **options):
        return sp.stream(list(self.shards), opener=self, **{"shuffle": True, "epochs": None, **options})


UNEVEN = {
    "an empty shard": ((10, 10, 10, 0), (), 1, 4, None),
    "an empty shard, steps": ((10, 10, 10, 0), (), 1, 4, 10),
    "a small shard, ranks": ((10, 10, 10, 1), (), 2, 3, 10),
    "a damaged shard": ((10, 10, 10, 10), (3,), 1, 4, None),
    "one shard": ((7,), (), 1, 3, 10),
    "fewer samples than workers": ((1, 0, 1), (), 1, 3, None),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_a_worker_without_a_share_of_an_epoch_goes_on_with_the_next(name):
    counts, cut, ranks, workers, steps = UNEVEN[name]
    shards, found = Shards(counts, cut), []
    for rank in range(ranks):
        pipe = shards.stream(on_error=POLICY if cut else "raise").batch(1)
        options = {} if steps is None else {"steps_per_epoch": steps}
        loader = pipe.loader(workers, rank=rank, world_size=ranks, **options)
        mine = []
        while len(mine) < 300 // ranks:
            found_now = batches(loader, 300 // ranks - len(mine))
            assert found_now, f"rank {rank}: the endless stream ended after {len(mine)} batches"
            mine += found_now
        found += mine
    seen = Counter((epoch, key) for batch in found for epoch, key, _ in batch)
    assert max(seen.values()) == 1
    for epoch in (0, 1):
        lost = set(shards.keys) - {key for each, key in seen if each == epoch}
        assert not lost, f"epoch {epoch} lost {sorted(lost)[:5]}"


def nothing(sample):
    return False


def broken(sample):
    raise ValueError("broken")


VOID = {
    "garbage": lambda: Shards((5, 5), cut=(0, 1)).stream(on_error=sp.ErrorPolicy("skip", 1.0, 10**6)),
    "empty shards": lambda: Shards((0, 0)).stream(),
    "all skipped": lambda: Shards((5, 5)).stream(on_error=sp.ErrorPolicy("skip", 1.0, 10**6)).map(broken),
    "all filtered": lambda: Shards((5, 5)).stream().filter(nothing),
}


@pytest.mark.parametrize("why", VOID)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [None, 5])
def test_an_endless_pass_over_nothing_is_an_error_that_says_so(why, workers, steps):
    options = {} if steps is None else {"steps_per_epoch": steps}
    loader = VOID[why]().batch(1).loader(workers, **options)
    with pytest.raises(sp.StreampipeError, match="no sample|skipped|dropped|nothing"):
        next(iter(loader))


@pytest.mark.parametrize("source", ["indexed", "streamed"])
def test_an_endless_plain_pass_over_nothing_is_an_error_too(folder, source):
    pipe = SOURCES[source](folder, epochs=None).filter(nothing).batch(2)
    for plain in (pipe, DataLoader(pipe, batch_size=None), DataLoader(pipe, batch_size=None, num_workers=2)):
        with pytest.raises(sp.StreampipeError, match="no sample|skipped|dropped|nothing"):
            next(iter(plain))


# --- a last batch that is dropped ---


@pytest.mark.parametrize("source", ["indexed", "counted"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["batch", "loader"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_fewer_samples_than_a_batch_are_not_dropped_without_a_word(folder, source, workers, how, ranks):
    pipe = SOURCES[source](folder).batch(64 // ranks, tail="drop" if how == "batch" else "short")
    options = {"rank": 0, "world_size": ranks, **({"tail": "drop"} if how == "loader" else {})}
    with pytest.raises(sp.ConfigError, match="45"):
        next(iter(pipe.loader(workers, **options)))


@pytest.mark.parametrize("source", ["indexed, opaque", "streamed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_fewer_uncounted_samples_than_a_batch_are_an_error_or_a_warning_at_the_end(folder, source, workers):
    loader = SOURCES[source](folder).batch(64, tail="drop").loader(workers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*idle")
        with pytest.raises((sp.StreampipeError, UserWarning), match="64"):
            list(loader)


@pytest.mark.parametrize("source", ["indexed", "streamed"])
def test_a_plain_dataloader_is_told_too_when_all_is_dropped(folder, source):
    pipe = SOURCES[source](folder).batch(64, tail="drop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((sp.StreampipeError, UserWarning), match="64"):
            list(DataLoader(pipe, batch_size=None))


ENDS_IN_A_PASS = """
import streampipe as sp
loader = sp.from_iterable([{"n": i} for i in range(9)]).batch(2).loader()
batches = iter(loader)
next(batches)
raise SystemExit("over")
"""


def test_a_process_that_ends_in_a_pass_says_nothing_of_it():
    done = subprocess.run([sys.executable, "-c", ENDS_IN_A_PASS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "over\n")


# --- copies, and what is refused ---


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_loader_is_not_copied_and_says_what_to_copy(folder, copied, used):
    loader = make(folder, "indexed").loader()
    if used:
        batches(loader, 1)
    with pytest.raises(sp.ConfigError, match="copy or pickle the pipeline"):
        copied(loader)


def test_a_state_that_is_refused_changes_nothing(folder):
    loader = make(folder, "indexed").loader()
    batches(loader, 3)
    before = loader.state_dict()
    other = make(folder, "indexed", seed=8).loader()
    batches(other, 2)
    with pytest.raises(sp.ConfigError, match="seed"):
        loader.load_state_dict(other.state_dict())
    assert loader.state_dict() == before


def test_a_pass_on_a_device_that_nobody_asks_is_none(folder):
    loader = sp.to_device(make(folder, "indexed").loader(), "cpu")
    iter(loader)
    assert [epoch for epoch in range(2) if rows(next(iter(loader)))[0][0] == epoch] == [0, 1]
