"""Law 4 in lanes: a stream goes on from where its lanes stand, or exactly by replaying them."""

import io
import json
import re
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe import stages
from streampipe.context import FILLED_IN, Consumer
from streampipe.engine.compile import opaque_in
from streampipe.engine.engine import is_nothing
from streampipe.stages.stage import stage
from tests.data import shard, write_shards
from tests.laws import _plain, engine_of, run


class Memory:
    """An opener over shards in memory that notes what is opened."""

    def __init__(self, sizes):
        self.opened = []
        self.shards = {}
        for number, size in enumerate(sizes):
            keys = [f"{number:03d}{i:04d}" for i in range(size)]
            self.shards[f"memory://{number:05d}.tar"] = shard([(key, {"txt": key, "cls": key}) for key in keys])

    def __call__(self, url):
        self.opened.append(url)
        return io.BytesIO(self.shards[url])

    def stream(self, **options):
        return sp.stream(list(self.shards), tier="sequential", opener=self, **{"seed": 3, **options})


def even(sample):
    return int(sample["__key__"]) % 2 == 0


def some(sample):
    return sp.SKIP if int(sample["__key__"]) % 5 == 1 else sample


def same(sample):
    return sample


def early(sample):
    return int(sample["__key__"]) % 10000 < 3


CHAINS = {
    "an end that was only taken in": lambda pipe: pipe.filter(early).shuffle(2).batch(3).unbatch().take(100).batch(4),
    "nothing": lambda pipe: pipe,
    "batch": lambda pipe: pipe.batch(3),
    "filter": lambda pipe: pipe.filter(even),
    "where": lambda pipe: pipe.where("key > '0000002'").decode().batch(2),
    "skip": lambda pipe: pipe.map(some).batch(4, tail="drop"),
    "threads": lambda pipe: pipe.map(some, threads=3).decode(threads=2).batch(2),
    "threads in front": lambda pipe: pipe.decode(threads=2).shuffle(3).map(some, threads=2),
    "batches": lambda pipe: pipe.batch(2).map(same, threads=2),
    "shuffle": lambda pipe: pipe.shuffle(4),
    "no shuffle": lambda pipe: pipe.shuffle(0),
    "two shuffles": lambda pipe: pipe.shuffle(4).filter(even).shuffle(2).batch(2),
    "texts": lambda pipe: pipe.caption("txt", dropout=0.3).assign(set="a").select("caption", "set").shuffle(2).batch(3),
    "take": lambda pipe: pipe.shuffle(2).take(11).batch(2),
    "take and go on": lambda pipe: pipe.take(9).shuffle(3),
    "unbatch": lambda pipe: pipe.batch(3).unbatch().shuffle(2).batch(4).unbatch(),
    "everything": lambda pipe: pipe.filter(even).shuffle(3).map(some, threads=2).batch(3).unbatch().take(20).batch(2),
}


def rest(pipe, consumer, state=None):
    """A consumer's items from a state on, each with the state behind it, which went through text."""
    engine = engine_of(pipe, consumer.world_size, consumer.num_workers if consumer.num_workers > 1 else 0)
    if state is None:
        at = engine.later(engine.first(0), consumer.worker)
    else:
        engine, at = engine.load([state], consumer.rank, consumer.world_size)
    stride = engine.stride(consumer)
    for item, moved, _ in engine.items(at, pipe.spec.epochs, consumer, own=True):
        at = engine.later(engine.behind(at, moved), stride - 1)
        if not is_nothing(item):
            yield item, json.loads(json.dumps(engine.state(at, consumer.rank, consumer.world_size)))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=7),
    st.sampled_from([False, True, 1, 3, 10]),
    st.sampled_from(sorted(CHAINS)),
    st.sampled_from([(0, 1, 0, 1), (0, 1, 2, 3), (1, 2, 0, 2), (3, 4, 1, 2)]),
    st.integers(1, 3),
    st.integers(0, 3),
)
@example([1], False, "skip", (0, 1, 0, 1), 1, 0)  # fewer samples than a batch, and short ones are left out
@example([7], False, "everything", (0, 1, 0, 1), 1, 0)  # its last samples are filtered out behind the last batch
def test_every_stream_goes_on_from_its_mark(sizes, shuffle, chain, consumer, epochs, seed):
    memory = Memory(sizes)
    pipe = CHAINS[chain](memory.stream(shuffle=shuffle, epochs=epochs, seed=seed))
    consumer = Consumer(*consumer)
    engine = engine_of(pipe, consumer.world_size, consumer.num_workers if consumer.num_workers > 1 else 0)
    assert opaque_in(engine.work.stream, engine.work.head.chain) is None
    if consumer.worker >= engine.stride(consumer):
        return
    try:
        whole = list(rest(pipe, consumer))
    except (sp.StageError, sp.ConfigError) as error:  # a filter that leaves nothing, or too little for a batch
        assert "dropped every one" in str(error) or "there was no step" in str(error)
        return
    items = [_plain(item) for item, _ in whole]
    assert items == [_plain(item) for item in run(pipe, consumer, 0)]
    for step, (_, state) in enumerate(whole, 1):
        left = list(rest(pipe, consumer, state))
        assert [_plain(item) for item, _ in left] == items[step:], f"from step {step}"
        assert [each for _, each in left] == [each for _, each in whole[step:]]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("epoch", [0, 5])
def test_a_resume_opens_no_shard_before_the_window(threads, epoch):
    memory = Memory([5] * 40)
    pipe = memory.stream(shuffle=7, epochs=None).filter(even).map(same, threads=threads).shuffle(3).batch(2)
    steps = (epoch * 200 + 150) // 4
    whole = rest(pipe, Consumer())
    *_, (_, state) = islice(whole, steps)
    lanes = len(state["standing"])
    assert all(len(json.dumps(each)) < 60 for each in state["standing"].values())
    following = [batch["__key__"] for batch, _ in islice(whole, 2)]
    memory.opened.clear()
    assert [batch["__key__"] for batch, _ in islice(rest(pipe, Consumer(), state), 2)] == following
    window = (
        7 + 2 * 3 + 8 + 4 * threads
    )  # samples: of the source, of the stage behind the filter, of two batches, ahead
    assert len(memory.opened) <= lanes * (window // 5 + 2 + 3)  # and three shards that the source is told of


def test_a_damaged_shard_shifts_no_position():
    memory = Memory([6, 7, 5, 6, 4])
    urls = list(memory.shards)
    memory.shards[urls[1]] = memory.shards[urls[1]][: 4 * 2 * 1024 + 512]  # three samples, and one that may go on
    memory.shards[urls[3]] = b"no tar at all" * 100
    policy = sp.ErrorPolicy("skip", max_share=1.0)
    pipe = memory.stream(shuffle=5, epochs=2, on_error=policy).shuffle(3).batch(2)
    whole = list(rest(pipe, Consumer()))
    items = [batch["__key__"] for batch, _ in whole]
    assert sum(map(len, items)) == 2 * (6 + 3 + 5 + 4)
    for step, (_, state) in enumerate(whole, 1):
        assert [batch["__key__"] for batch, _ in rest(pipe, Consumer(), state)] == items[step:]


@stage
def pairs(samples):
    last = None
    for sample in samples:
        if last is not None:
            yield {"__key__": last["__key__"] + sample["__key__"]}
        last = sample


def test_an_opaque_stage_is_gone_through_again_and_explain_says_which_of_the_two():
    memory = Memory([3, 4, 2])
    pipe = memory.stream(shuffle=3).batch(2)
    assert "from where each lane stopped" in pipe.explain()
    pipe = memory.stream(shuffle=3, epochs=2).apply(pairs).batch(2)
    why = "each lane is replayed from the beginning of its epoch, because "
    assert f"{why}stage pairs() may keep something" in pipe.explain()
    assert why in sp.from_iterable(iter_of_two).explain()
    whole = list(rest(pipe, Consumer()))
    for step, (_, state) in enumerate(whole, 1):
        assert all(mark is None for _, _, mark in state["standing"].values())
        left = [batch["__key__"] for batch, _ in rest(pipe, Consumer(), state)]
        assert left == [batch["__key__"] for batch, _ in whole[step:]]


def iter_of_two():
    return iter([1, 2])


def test_a_filter_may_find_nothing_in_a_rest():
    memory = Memory([3, 20])
    pipe = memory.stream().filter(lambda sample: sample["__key__"] < "0010000")
    *whole, (_, state) = rest(pipe, Consumer())
    assert len(whole) == 2
    assert list(rest(pipe, Consumer(), state)) == []


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [7, 1, 9, 4, 6, 3])
    return folder


def sequential(shards, **options):
    pipe = sp.stream(str(shards), tier="sequential", seed=3, shuffle=5, **options)
    return pipe.filter(even).shuffle(4).decode().batch(2)


def test_a_stage_that_works_in_threads_keeps_the_trail():
    """``ordered`` takes in ahead of what it yields: without the run's trail the mark would be a later sample's."""
    for path in Path(stages.__path__[0]).glob("*.py"):
        text = path.read_text()
        assert len(re.findall(r"\bordered\(", text)) == len(re.findall(r"\bordered\([^\n]*\brun=run\b", text)), (
            path.name
        )


def keys(batches):
    return [batch["__key__"] for batch in batches]


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (0, {}),
        (0, {"threads": 2}),
        (1, {}),
        (3, {}),
        (3, {"threads": 2, "persistent_workers": True}),
        (2, {"multiprocessing_context": "forkserver"}),
    ],
)
@pytest.mark.usefixtures("warm")
def test_a_loader_goes_on_at_every_step_over_two_epochs(shards, workers, options):
    whole_loader = sequential(shards, epochs=2).loader(num_workers=workers)
    batches, states = iter(whole_loader), []
    whole = []
    while True:
        states.append(json.loads(json.dumps(whole_loader.state_dict())))
        if (batch := next(batches, None)) is None:
            break
        whole.append(batch["__key__"])
    following = keys(whole_loader)
    stride = 9 if "multiprocessing_context" in options else 1
    for step in range(0, len(states), stride):
        loader = sequential(shards, epochs=2).loader(num_workers=workers, **options)
        loader.load_state_dict(states[step])
        left = whole[step:]
        assert keys(loader) == (left or following), f"step {step}"
        if step % 5 == 0 and left:
            assert keys(loader) == following


@pytest.mark.parametrize("workers", [0, 2])
def test_an_endless_stream_cut_into_passes_goes_on_at_every_step(shards, workers):
    endless = sequential(shards, epochs=None).loader(num_workers=workers)
    whole = keys(islice(endless, 40))
    loader = sequential(shards).loader(num_workers=workers, steps_per_epoch=11)
    got = []
    for step in range(33):
        resumed = sequential(shards).loader(num_workers=workers, steps_per_epoch=11)
        if step:
            resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
        batches = iter(resumed)
        got.append(next(batches)["__key__"])
        loader = resumed
        if step % 11 == 10:
            assert list(batches) == []
    assert got == whole[:33]


def test_a_pipelines_state_may_be_loaded_by_its_loader_and_back(shards):
    whole = keys(sequential(shards).loader())
    pipe = sequential(shards)
    got = keys(islice(DataLoader(pipe, batch_size=None), 3))
    loader = sequential(shards).loader()
    loader.load_state_dict(pipe.state_dict())
    got += keys(islice(loader, 2))
    fresh = sequential(shards)
    fresh.load_state_dict(loader.state_dict())
    assert got + keys(DataLoader(fresh, batch_size=None)) == whole
    wrong = sequential(shards)
    wrong.load_state_dict(loader.state_dict() | {"worker": [1, 2]})
    with pytest.raises(sp.ConfigError, match="keep the number of workers, or save and load with"):
        iter(wrong)


def test_a_plain_dataloader_goes_on_at_every_step(shards):
    pipe = sequential(shards)
    whole, following = keys(DataLoader(pipe, batch_size=None)), keys(DataLoader(pipe, batch_size=None))
    for step in range(len(whole) + 1):
        pipe = sequential(shards)
        got = keys(islice(DataLoader(pipe, batch_size=None), step))
        fresh = sequential(shards)
        fresh.load_state_dict(json.loads(json.dumps(pipe.state_dict())))
        assert got + keys(DataLoader(fresh, batch_size=None)) == (whole if step < len(whole) else whole + following)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.filterwarnings("ignore")
def test_torchdatas_stateful_dataloader_goes_on_at_every_step(shards, workers):
    StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    loader = StatefulDataLoader(sequential(shards, epochs=2), batch_size=None, num_workers=workers)
    whole, states = [], []
    for batch in loader:
        whole.append(batch["__key__"])
        states.append(loader.state_dict())
    for step, state in enumerate(states[:-1], 1):
        fresh = StatefulDataLoader(sequential(shards, epochs=2), batch_size=None, num_workers=workers)
        fresh.load_state_dict(state)
        assert keys(fresh) == whole[step:], f"step {step}"


def run_job(shards, ranks, workers, states, steps):
    """Some steps on every rank: their states, by way of text, and (epoch, key) of all that was received."""
    after, seen = [], []
    for rank in range(ranks):
        loader = sequential(shards).loader(workers, rank=rank, world_size=ranks, steps_per_epoch=1000)
        if states:
            loader.load_state_dict(states[rank])
        for batch in islice(loader, steps):
            seen += [(p.epoch, k) for k, p in zip(batch["__key__"], batch["__position__"], strict=True)]
        after.append(json.loads(json.dumps(loader.state_dict())))
    return after, seen


@pytest.mark.filterwarnings("ignore:.*workers stay idle:UserWarning")
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 2), (3, 1)])
def test_streams_dealt_to_another_job_go_on_from_their_marks_and_are_dealt_again(shards, ranks, workers):
    states, seen = run_job(shards, 2, 3, [], 1)
    again, more = run_job(shards, ranks, workers, [states] * ranks, 2)
    same, rest = run_job(shards, ranks, workers, again, 40)
    _, other = run_job(shards, 2, 1, [again] * 2, 40)
    for everything in (seen + more + rest, seen + more + other):
        assert len(everything) == len(set(everything))
        assert len([key for epoch, key in everything if epoch == 0]) == 17  # the even ones of 30
    assert all(mark is not None for state in same for _, _, mark in state["standing"].values())


@stage(rows="any", state="offset")
def sums(samples, run: sp.Run):
    """Keeps its own small state: how many samples there were, and the sum of their numbers."""
    seen, total = run.kept or (0, 0)
    for sample in samples:
        seen, total = seen + 1, total + int(sample["__key__"])
        if seen % 3 == 0:
            run.keep([seen, total])
            yield {**sample, "total": total}


@pytest.mark.parametrize("shuffle", [False, 3])
def test_a_stage_that_keeps_a_state_of_its_own_is_not_replayed(shuffle):
    memory = Memory([9, 4, 8, 7])
    pipe = memory.stream(shuffle=shuffle, epochs=2).apply(sums).batch(2)
    whole = list(rest(pipe, Consumer()))
    items = [_plain(item) for item, _ in whole]
    assert items
    for step, (_, state) in enumerate(whole, 1):
        assert [_plain(item) for item, _ in rest(pipe, Consumer(), state)] == items[step:]
    assert "from where each lane stopped" in pipe.explain()


@sp.stage(rows="each")
def tell_lanes(samples, *, run=FILLED_IN):
    for sample in samples:
        yield {**sample, "lanes": run.lanes}


@pytest.mark.parametrize(("shuffle", "lanes"), [(True, 8), (False, 1)])
def test_lanes_that_one_reader_may_have_share_what_a_process_may_hold(shuffle, lanes):
    """Each has a shuffle's window of its own. Readers with a stream each are processes of their own."""
    pipe = Memory([4] * 8).stream(shuffle=shuffle).apply(tell_lanes()).filter(lambda sample: True).batch(4)
    for ranks in (1, 2):
        engine = engine_of(pipe, ranks)
        assert engine.work.shape.number == (8 if shuffle else ranks)
        batches = engine.items(engine.first(0), 1, Consumer(0, ranks))
        assert {each for batch, _, _ in batches for each in batch["lanes"].tolist()} == {lanes}


def test_what_fills_no_inner_batch_of_a_lane_is_counted_and_nothing_at_all_is_an_error(tmp_path):
    write_shards(tmp_path, [20] * 8)
    loader = sp.stream(tmp_path).batch(9, tail="drop").filter(bool).loader()
    given = sum(len(batch["__key__"]) for batch in loader)
    assert 0 < given < 160
    assert re.search(rf"batch +{160 - given} left out at an epoch's end", loader.report())
    with pytest.raises(sp.ConfigError, match="its lanes have fewer than a batch each"):
        list(sp.stream(tmp_path).batch(9, tail="drop").unbatch().batch(10).loader())
