"""The laws and the behaviour of every built-in stage."""

import json
import pickle
from itertools import islice

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe import stages
from streampipe.context import Run
from tests.data import write_shards
from tests.laws import check_lazy, check_picklable, check_resume, run

SAMPLES = [{"__key__": f"{i}", "txt": f"text {i}".encode(), "n": i} for i in range(12)]


def double(value):
    return value * 2


def is_even(sample):
    return sample["n"] % 2 == 0


def jitter(sample, rng):
    return {**sample, "r": int(rng.integers(1 << 30))}


@sp.stage
def every(samples, step: int = 2):
    """Every step-th sample."""
    for i, sample in enumerate(samples):
        if i % step == 0:
            yield sample


ALL = {
    "map": stages.map(fn=double, field="n"),
    "map in threads": stages.map(fn=double, field="n", threads=2),
    "filter": stages.filter(fn=is_even),
    "select": stages.select(fields=("txt",)),
    "rename": stages.rename(names={"text": "json;txt"}),
    "shuffle": stages.shuffle(size=4),
    "take": stages.take(n=5),
    "decode": stages.decode(),
    "batch": stages.batch(size=5),
    "own": every(step=3),
}


@pytest.mark.parametrize("name", ALL)
def test_stages_are_picklable_and_stay_so_after_use(name):
    check_picklable(ALL[name], SAMPLES)


@pytest.mark.parametrize("name", ALL)
def test_stages_are_lazy_generators(name):
    extra = {"batch": 12, "shuffle": 6, "map in threads": 16, "own": 12, "filter": 6}
    check_lazy(ALL[name], SAMPLES, ahead=extra.get(name, 1))


def test_a_stage_keeps_the_functions_metadata_and_shows_its_parameters():
    assert every.__name__ == "every"
    assert every.__doc__ == "Every step-th sample."
    assert repr(every(step=3)) == "every(step=3)"
    assert repr(stages.map(fn=double, field="n")) == "map(fn=double, field='n')"
    assert list(every("abcd")) == ["a", "c"]
    assert list(every("abcd", step=3)) == ["a", "d"]
    assert pickle.loads(pickle.dumps(every)) is every


def test_a_stage_refuses_parameters_that_it_does_not_have():
    with pytest.raises(sp.ConfigError, match="step"):
        every(stride=3)
    with pytest.raises(sp.ConfigError, match="by name"):
        every(3)


def test_the_shuffle_stage_resumes_from_integers():
    def make(position):
        return stages.shuffle(size=5, position=position)(SAMPLES[max(0, position - 5) :], Run(seed=3, stage="shuffle"))

    check_resume(make, len(SAMPLES))


def test_batches_are_shuffled_epoch_by_epoch_and_resume(tmp_path):
    write_shards(tmp_path, [9, 8, 7])

    def pipe():
        return sp.stream(str(tmp_path), epochs=2).batch(2).shuffle(6)

    whole = [batch["__key__"] for batch in pipe().loader()]
    assert len(whole) == 24
    assert sorted(whole[:12]) == sorted(whole[12:]) != whole[:12] != whole[12:]
    for step in (3, 14):
        loader = pipe().loader()
        assert [batch["__key__"] for batch in islice(loader, step)] == whole[:step]
        resumed = pipe().loader()
        resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
        assert [batch["__key__"] for batch in resumed] == whole[step:]


def test_shuffle_does_not_mix_epochs():
    samples = [{"__key__": str(i), "__position__": sp.Position(epoch, 0, i)} for epoch in range(3) for i in range(8)]
    out = list(stages.shuffle(size=100)(iter(samples)))
    assert [s["__position__"].epoch for s in out] == [0] * 8 + [1] * 8 + [2] * 8
    assert len({tuple(s["__key__"] for s in out[i : i + 8]) for i in (0, 8, 16)}) == 3


def test_map_gives_a_seeded_generator_to_functions_that_ask():
    run = Run(seed=1, stage="map(jitter)")
    first = [s["r"] for s in stages.map(fn=jitter)(SAMPLES, run)]
    assert [s["r"] for s in stages.map(fn=jitter, threads=3)(SAMPLES[::-1], run)] == first[::-1]
    assert [s["r"] for s in stages.map(fn=jitter)(SAMPLES, Run(seed=2, stage="map(jitter)"))] != first


def test_map_drops_skipped_samples_and_refuses_none():
    out = stages.map(fn=lambda s: sp.SKIP if s["n"] % 2 else s)(SAMPLES)
    assert [s["n"] for s in out] == [0, 2, 4, 6, 8, 10]
    with pytest.raises(sp.StageError, match="returned None"):
        list(stages.map(fn=lambda s: None)(SAMPLES))


def test_map_keeps_the_metadata_of_a_new_dict():
    (sample,) = stages.map(fn=lambda s: {"m": s["n"]})([{"__key__": "k", "__url__": "u", "n": 1}])
    assert sample == {"__key__": "k", "__url__": "u", "m": 1}


def test_a_stop_iteration_in_a_function_is_an_error_not_an_end():
    def stop(sample):
        raise StopIteration

    with pytest.raises(sp.StageError, match="StopIteration"):
        list(sp.from_iterable(SAMPLES).map(stop))


def test_errors_in_own_stages_name_the_stage_and_the_last_sample():
    @sp.stage
    def fails(samples):
        for sample in samples:
            if sample["n"] == 2:
                raise KeyError("width")
            yield sample

    with pytest.raises(sp.StageError, match="stage 'fails', sample '2': KeyError: 'width'") as error:
        list(sp.from_iterable(SAMPLES).apply(fails))
    assert isinstance(error.value.__cause__, KeyError)


def test_skip_drops_samples_whose_function_fails():
    def fails(n):
        return 1 // (n % 3)

    pipe = sp.from_iterable(SAMPLES, on_error=sp.ErrorPolicy("skip", max_in_row=1)).map(fails, "n")
    assert [s["__key__"] for s in pipe] == [s["__key__"] for s in SAMPLES if s["n"] % 3]


def test_missing_fields_are_named():
    for pipe in (
        sp.from_iterable(SAMPLES).select("jpg;png"),
        sp.from_iterable(SAMPLES).rename(image="jpg;png"),
        sp.from_iterable(SAMPLES).map(double, "jpg;png"),
    ):
        with pytest.raises(sp.StageError, match=r"no field 'jpg;png' \(it has txt, n\)"):
            list(pipe)


def test_rename_never_overwrites():
    with pytest.raises(sp.StageError, match="already has a field 'n'"):
        list(sp.from_iterable(SAMPLES).rename(n="txt"))


def test_a_filter_that_keeps_nothing_is_an_error():
    with pytest.raises(sp.StageError, match="every one of 12 samples"):
        list(sp.from_iterable(SAMPLES).filter(lambda s: False))


def test_take_is_shared_by_all_consumers():
    pipe = sp.from_iterable(SAMPLES).take(7)
    assert sum(len(list(run(pipe, sp.Consumer(r, 2, w, 2), 0))) for r in range(2) for w in range(2)) == 7
    assert len(list(pipe.take(0))) == 0


def test_batch_stacks_tensors_and_lists_the_rest():
    rows = [{"__key__": str(i), "x": torch.full((2,), i), "a": np.ones(3), "t": "s", "n": i} for i in range(5)]
    batches = list(sp.from_iterable(rows).batch(2))
    assert [b["x"].shape[0] for b in batches] == [2, 2, 1]
    assert batches[0]["a"].shape == (2, 3)
    assert batches[1]["__key__"] == ["2", "3"]
    assert batches[1]["n"].tolist() == [2, 3]
    assert len(list(sp.from_iterable(rows).batch(2, tail="drop"))) == 2
    assert list(sp.from_iterable(rows).batch(2, collate=len)) == [2, 2, 1]


def test_a_field_cannot_have_two_new_names():
    pipe = sp.from_iterable([{"__key__": "a", "jpg": b"x"}]).rename(image="jpg;png", thumb="png;jpg")
    with pytest.raises(sp.StageError, match="sample 'a': field 'jpg' cannot be both 'image' and 'thumb'"):
        list(pipe)


def test_unbatch_undoes_batch():
    rows = [{"__key__": str(i), "x": torch.full((2,), i)} for i in range(5)]
    back = list(sp.from_iterable(rows).batch(2).unbatch())
    assert [(r["__key__"], r["x"].tolist()) for r in back] == [(r["__key__"], r["x"].tolist()) for r in rows]


def test_a_batch_with_a_value_that_is_no_samples_cannot_be_taken_apart():
    pipe = sp.from_iterable([{"__key__": "a", "t": torch.ones(3), "tokens": 3}]).pack(8, concat="t")
    with pytest.raises(
        sp.StageError, match=r"field 'max_seqlen' of a batch is 3, .* put drop\('max_seqlen'\) in front"
    ):
        list(pipe.unbatch())


def test_what_cannot_be_stacked_is_explained():
    with pytest.raises(sp.StageError, match=r"field .x. cannot be stacked.*in .b.; fill the shorter ones up"):
        list(sp.from_iterable([{"__key__": "a", "x": torch.ones(2)}, {"__key__": "b", "x": torch.ones(3)}]).batch(2))
    with pytest.raises(sp.StageError, match=r"only one of them has 'y'"):
        list(sp.from_iterable([{"__key__": "a"}, {"__key__": "b", "y": 1}]).batch(2))


def test_wrong_sizes_are_refused():
    pipe = sp.from_iterable(SAMPLES)
    for make in (pipe.batch, pipe.take, pipe.shuffle):
        with pytest.raises(sp.ConfigError, match="is a whole number, . or more, not -1"):
            make(-1)


def test_a_pipeline_shows_its_chain():
    text = repr(sp.from_iterable(SAMPLES).map(double, "n").batch(3))
    assert "map(fn=double, field='n')" in text
    assert "batch(size=3)" in text
