"""What a loader counts is its own, merged over threads and workers."""

import time

import pytest
import torch

import streampipe as sp
from streampipe.counters import counters
from tests.data import shard, write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [20, 20])
    return str(folder)


def keep_even(sample):
    return int(sample["__key__"]) % 2 == 0


def length(text):
    return len(text)


@pytest.mark.parametrize(
    "options", [{}, {"threads": 2}, {"num_workers": 2}, {"num_workers": 2, "trace": True}], ids=str
)
def test_counts_are_the_same_however_the_loader_runs(folder, options):
    before = counters.get("filter(keep_even)", "dropped")
    loader = sp.stream(folder, shuffle=True).filter(keep_even).map(length, "txt").batch(4).loader(**options)
    batches = list(loader)
    found = loader.summary()
    assert found.batches == len(batches)
    assert found.samples == 20
    rows = {row.name: row for row in found.stages}
    assert (rows["filter(keep_even)"].samples_in, rows["filter(keep_even)"].samples_out) == (40, 20)
    assert (rows["map(length)"].samples_in, rows["map(length)"].samples_out) == (20, 20)
    (drop,) = found.drops
    assert drop["samples"] == 20
    assert drop["examples"]
    assert all(int(key) % 2 for key in drop["examples"])
    assert counters.get("filter(keep_even)", "dropped") == before + 20
    assert len(found.first_batch_seconds) == 1


def test_training_and_validation_are_counted_apart(folder):
    train = sp.stream(folder, shuffle=True).batch(4).loader(threads=1)
    validate = sp.stream(folder).take(8).batch(4).loader(threads=1)
    seen = []
    for number, _ in enumerate(train):
        if number == 5:
            seen = list(validate)
    assert len(seen) == 2
    assert (train.summary().batches, train.summary().samples) == (10, 40)
    assert (validate.summary().batches, validate.summary().samples) == (2, 8)
    assert "2 batches" in validate.report()


def test_the_step_is_measured_by_the_loader_and_pauses_between_passes_are_none(folder):
    loader = sp.stream(folder).batch(10).loader()
    for _ in loader:
        time.sleep(0.01)
    time.sleep(0.5)
    for _ in loader:
        time.sleep(0.01)
    found = loader.summary()
    assert 8 * 0.01 <= found.step_seconds < 0.5
    assert len(found.first_batch_seconds) == 2


def test_errors_are_told_with_their_sample(tmp_path):
    samples = [(f"{n:04d}", {"cls": str(n) if n % 5 else "no number"}) for n in range(20)]
    (tmp_path / "00000.tar").write_bytes(shard(samples))
    policy = sp.ErrorPolicy("skip", max_share=0.5)
    loader = sp.stream(str(tmp_path), on_error=policy).decode().batch(4).loader()
    list(loader)
    found = loader.summary()
    (error,) = [each for each in found.errors if each["reason"] == "DecodeError"]
    assert error["samples"] == 4
    assert "sample '0000'" in error["examples"][0]
    assert found.slots_filled == 4
    assert "DecodeError" in loader.report()


def test_batches_that_lie_ready_are_counted(folder):
    loader = sp.stream(folder).batch(2).loader(threads=1, prefetch=3)
    for _ in loader:
        time.sleep(0.02)
    found = loader.summary()
    assert found.ready_share > 0.5
    assert 1 < found.queue_fill <= found.queue_size + 1
    assert found.queue_size == 3


def test_only_some_items_are_timed_where_looking_at_the_clock_would_cost(folder):
    loader = sp.stream(folder, epochs=None).rename(text="txt").batch(2).loader()
    for number, _ in enumerate(loader):
        if number == 400:
            break
    found = loader.summary()
    assert 0 < found.timed_share < 0.9
    assert sum(row.own_seconds for row in found.stages) < 1.5 * found.making_seconds


def test_ranks_are_merged_into_one_report(folder):
    from streampipe.report import merged, summarize

    loaders = [sp.stream(folder).batch(4).loader(rank=rank, world_size=2) for rank in range(2)]
    for each in loaders:
        list(each)
    seen = merged([each._recorder.seen() for each in loaders])
    found = summarize(seen, loaders[0]._facts())
    assert found.samples == 40
    assert found.batches == 10


def one_in_twenty_is_slow(text):
    time.sleep(0.05 if int(text[-4:]) % 20 == 3 else 0.005)
    return text


def test_slow_samples_stop_nobody_and_change_no_batch(tmp_path):
    write_shards(tmp_path, [160, 160])
    pipe = sp.stream(str(tmp_path), shuffle=True)
    plain = [batch["__key__"] for batch in pipe.batch(8).loader()]
    loader = pipe.map(one_in_twenty_is_slow, "txt").batch(8).loader(threads=4, prefetch=8)
    assert [batch["__key__"] for batch in loader] == plain
    found = loader.summary()
    assert found.idle_seconds / (found.idle_seconds + found.making_seconds) < 0.2


def test_what_lies_before_the_first_batch_is_asked_for_is_no_wait_for_data(folder):
    loader = sp.stream(folder).batch(4).loader()
    passing = iter(loader)
    time.sleep(0.3)
    began = time.perf_counter()
    for _ in passing:
        pass
    found = loader.summary()
    assert found.first_batch_seconds[0] < found.wait_seconds
    assert found.wait_seconds + found.step_seconds <= time.perf_counter() - began


def test_the_last_step_of_a_pass_in_steps_is_one_too(folder):
    loader = sp.stream(folder, epochs=None).batch(4).loader(steps_per_epoch=1)
    for _ in range(6):
        for _ in loader:
            time.sleep(0.01)
    found = loader.summary()
    assert found.step_seconds >= 6 * 0.01
    assert found.rate <= found.samples / found.step_seconds


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}], ids=str)
@pytest.mark.parametrize(
    "change",
    [
        lambda pipe: pipe.batch(4).map(lambda batch: (torch.zeros(4, 9), "a text")),
        lambda pipe: pipe.map(len, "txt").select("txt", metadata=False).batch(4),
        lambda pipe: pipe.map(len, "txt").batch(4).map(lambda batch: batch["txt"]),
        lambda pipe: pipe.batch(4).map(lambda batch: {"all": torch.tensor(1), "txt": batch["txt"]}),
    ],
    ids=["tuple", "no keys", "tensor", "a number first"],
)
def test_samples_are_counted_whatever_batches_are_made_of(folder, change, options):
    loader = change(sp.stream(folder)).loader(**options)
    list(loader)
    assert (loader.summary().batches, loader.summary().samples) == (10, 40)


def test_a_sample_that_is_made_of_many_numbers_is_one():
    loader = sp.from_iterable([(torch.zeros(3, 4), 1)] * 5).loader()
    list(loader)
    assert loader.summary().samples == 5


def reading(samples):
    yield from samples


def test_a_stage_that_is_named_as_reading_has_a_row_of_its_own(folder):
    loader = sp.stream(folder).apply(reading).batch(4).loader()
    list(loader)
    rows = [(row.name, row.samples_out) for row in loader.summary().stages]
    assert rows == [("reading", 40), ("reading#2", 40), ("batch", 10)]


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_what_a_condition_drops_is_told_once_by_reason(folder, tier):
    loader = sp.stream(folder, tier=tier).where("key < '0010010' and key != '0000002'").batch(4).loader()
    list(loader)
    found = loader.summary()
    assert sorted((each["samples"], each["reason"]) for each in found.drops) == [
        (1, "dropped because key != '0000002' is false"),
        (10, "dropped because key < '0010010' is false"),
    ]
    assert "11 dropped" not in loader.report()


def drops(found):
    return [(each["stage"], each["samples"]) for each in found.drops]


@pytest.mark.parametrize("change", [lambda pipe: pipe, lambda pipe: pipe.filter(keep_even)], ids=["planned", "lanes"])
def test_each_loader_tells_what_its_plan_leaves_out_whoever_asked_first(folder, change):
    pipe = change(sp.stream(folder, shuffle=True).where("key != '0000002'")).batch(4)
    pipe.explain()
    for loader in (pipe.loader(), pipe.loader(threads=2)):
        list(loader)
        assert ("where", 1) in drops(loader.summary())
        assert ("where", 1) in drops(sp.to_device(loader, "cpu").summary())


def test_ranks_together_tell_once_what_the_plan_leaves_out(folder):
    loaders = [sp.stream(folder).where("key < '0010010'").batch(4).loader(rank=rank, world_size=2) for rank in range(2)]
    for each in loaders:
        list(each)
    assert [drops(each.summary()) for each in loaders] == [[("where", 10)], []]
