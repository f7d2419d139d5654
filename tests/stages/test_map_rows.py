"""``map`` of functions that take ``out=``: the batches of plain functions, written where they are, or a clear error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.stages.rows import Block
from tests.data import write_shards

SAMPLES = [{"__key__": f"{i}", "x": i, "txt": f"t{i}"} for i in range(11)]
KINDS = {
    "tensor": lambda i: torch.full((3, 5), float(i)),
    "bfloat16": lambda i: torch.full((7,), i, dtype=torch.bfloat16),
    "number": lambda i: torch.tensor(i),
    "image": lambda i: torch.full((3, 4, 4), i, dtype=torch.uint8).permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "array": lambda i: np.full((2, 3), i, np.float32),
    "picture": lambda i: np.full((4, 3, 3), i, np.uint8).transpose(1, 0, 2),
}


def writes(make, calls=None):
    """A function that takes ``out=``, and one that makes the same and does not."""

    def fn(value, out=None):
        if calls is not None:
            calls.append(out)
        made = make(value)
        if out is None:
            return made
        out.copy_(made) if isinstance(out, torch.Tensor) else np.copyto(out, made)
        return out if value % 2 else None

    return fn


def check_same(found, wanted):
    found, wanted = list(found), list(wanted)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert list(one) == list(other)
        assert one["__key__"] == other["__key__"]
        assert one["txt"] == other["txt"]
        assert (one["x"].dtype, one["x"].shape, one["x"].stride()) == (
            other["x"].dtype,
            other["x"].shape,
            other["x"].stride(),
        )
        assert torch.equal(one["x"], other["x"])


@pytest.mark.parametrize("threads", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", ["short", "drop", "pad"])
def test_batches_are_those_of_a_function_that_makes_its_values(kind, threads, tail):
    pipe = sp.from_iterable(SAMPLES)
    found = pipe.map(writes(KINDS[kind]), "x", threads=threads).batch(4, tail=tail)
    check_same(found, pipe.map(KINDS[kind], "x").batch(4, tail=tail))


def test_all_but_the_first_value_of_a_batch_are_written_where_the_batch_has_them():
    calls = []
    first, *_ = sp.from_iterable(SAMPLES).map(writes(KINDS["tensor"], calls), "x").batch(4)
    assert [out is None for out in calls[:4]] == [True, False, False, False]
    assert [out.data_ptr() for out in calls[1:4]] == [row.data_ptr() for row in first["x"][1:]]


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 10)), st.sets(st.integers(0, 10)), st.sampled_from([None, 2]))
def test_samples_that_are_dropped_or_fail_change_no_other(dropped, failing, threads):
    def fate(value):
        if value in failing:
            raise ValueError("bad")
        return value in dropped

    def writing(value, out=None):
        if fate(value):
            if out is not None:
                out.fill_(-1)  # it may have begun
            return sp.SKIP
        return writes(KINDS["tensor"])(value, out)

    def plain(value):
        return sp.SKIP if fate(value) else KINDS["tensor"](value)

    def taken(fn):
        pipe = sp.from_iterable(SAMPLES, on_error=sp.ErrorPolicy("raise")).map(fn, "x", threads=threads).batch(3)
        try:
            return list(pipe)
        except sp.StreampipeError as error:
            return str(error).replace(fn.__name__, "fn")

    found, wanted = taken(writing), taken(plain)
    if isinstance(wanted, str):
        assert found == wanted
    else:
        check_same(found, wanted)


def test_batches_are_the_same_in_lanes_with_threads_and_workers(tmp_path):
    write_shards(tmp_path, [9, 7, 12])
    pipe = sp.stream(tmp_path, shuffle=5, seed=2).decode()
    plain = list(pipe.map(KINDS["tensor"], "cls").batch(4))
    for options in ({}, {"threads": 2}, {"num_workers": 2}):
        found = list(pipe.map(outside, "cls").batch(4).loader(**options))
        assert all(torch.equal(a["cls"], b["cls"]) for a, b in zip(found, plain, strict=True))


def outside(value, out=None):
    """A function that can be sent to workers."""
    return writes(KINDS["tensor"])(value, out)


def test_without_a_batch_that_follows_out_is_none():
    calls = []
    pipe = sp.from_iterable(SAMPLES).map(writes(KINDS["tensor"], calls), "x")
    list(pipe)
    list(pipe.map(str, "txt").map(lambda sample: sample).batch(3))
    list(pipe.batch(3, collate=list))
    assert set(map(type, calls)) == {type(None)}


def test_functions_of_torch_and_numpy_with_out_are_taken():
    pipe = sp.from_iterable([{"__key__": "a", "x": np.float32([1, 4])}, {"__key__": "b", "x": np.float32([9, 16])}])
    (batch,) = pipe.map(np.sqrt, "x").batch(2)
    assert batch["x"].tolist() == [[1, 2], [3, 4]]


def ignores(value, out=None):
    return torch.ones(3)


def gives_text(value, out=None):
    return "text"


def larger(value, out=None):
    return torch.add(torch.ones(3 + value), 1, out=out)


def needs(value, out):
    return out


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (ignores, r"stage 'map\(ignores\)', sample '1'.*was given out=, the row of its batch, and returned something"),
        (gives_text, r"stage 'map\(gives_text\)', sample '0'.*takes out=, and gave a str where out was None"),
        (larger, r"stage 'map\(larger\)', sample '1'.*resize"),
    ],
)
@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized:UserWarning")
def test_wrong_use_is_an_error_that_says_what_to_do(fn, message):
    with pytest.raises(sp.StageError, match=message):
        list(sp.from_iterable(SAMPLES).map(fn, "x").batch(4))


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized:UserWarning")
def test_a_value_that_is_smaller_than_its_row_is_an_error():
    def smaller(value, out=None):
        return torch.add(torch.ones(5 - value), 1, out=out)

    with pytest.raises(sp.StageError, match="field 'x' cannot be stacked: it is .*'0' and .*'1'"):
        list(sp.from_iterable(SAMPLES[:3]).map(smaller, "x").batch(3))


def test_functions_that_cannot_be_called_so_are_refused_at_once():
    pipe = sp.from_iterable(SAMPLES)
    with pytest.raises(sp.ConfigError, match="out= of the function needs the default None"):
        pipe.map(needs, "x")
    with pytest.raises(sp.ConfigError, match=r"say which field it makes: map\(function, field\)"):
        pipe.map(ignores)
    assert [len(each["x"]) for each in pipe.map(lambda value, out=3: [out] * value, "x")] == list(range(11))


def test_a_row_ends_where_the_next_begins():
    block = Block(3)
    block.begin("x", (4,), torch.float32)
    with pytest.raises(RuntimeError, match="resiz"):
        block.row("x", 0).resize_(5)
