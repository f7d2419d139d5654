"""Rows of batches to come: written where the batch has them, whatever stands between, and never in two batches."""

import io
import sys

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe.stages.collate import collate
from streampipe.stages.rows import Block, Rows, joined
from tests.data import photo

LATENT = torch.arange(12.0).reshape(3, 4)


def samples(count):
    return list(_samples(count))


def _samples(count):
    for i in range(count):
        image = photo(i, 40, 50)
        yield {
            "__key__": f"{i}",
            "jpg": image,
            "latent.npy": npy(LATENT.numpy() + i),
            "txt": b"a cat",
            "cls": b"%d" % i,
        }


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@sp.stage(rows="each", state="nothing", fields=("txt",))
def shouted(samples):
    for sample in samples:
        yield {**sample, "txt": sample["txt"].upper()}


BETWEEN = {
    "nothing": lambda field: lambda pipe: pipe,
    "select": lambda field: lambda pipe: pipe.select(field, "txt"),
    "drop": lambda field: lambda pipe: pipe.drop("cls"),
    "rename": lambda field: lambda pipe: pipe.rename(x=field),
    "several": lambda field: (
        lambda pipe: pipe.apply(shouted()).caption("txt").map(len, "txt").assign(weight=1.0).default(n=3)
    ),
}


def rows_of(pipe, monkeypatch):
    """The batches of a pipeline, and of how many of their fields nothing was copied."""
    taken = []

    def spied(values):
        found = joined(values)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(sys.modules["streampipe.stages.collate"], "joined", spied)
    return list(pipe), sum(taken)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("field", ["jpg", "latent.npy"])
@pytest.mark.parametrize("between", BETWEEN)
def test_stages_that_leave_fields_as_they_are_leave_them_in_the_memory_of_the_batch(
    between, field, threads, monkeypatch
):
    other = {"jpg": "latent.npy", "latent.npy": "jpg"}[field]
    made = [{name: value for name, value in each.items() if name != other} for each in samples(7)]
    between = BETWEEN[between](field)
    found, taken = rows_of(between(sp.from_iterable(made).decode(16, threads=threads)).batch(3), monkeypatch)
    wanted = list(between(sp.from_iterable(made).decode(16).map(lambda sample: sample)).batch(3))
    assert taken == 3
    for one, other in zip(found, wanted, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
            assert same, name


def test_a_field_that_a_function_replaces_is_its_own(monkeypatch):
    kinds = set()

    def half(value):
        kinds.add(type(value))
        return value / 2

    pipe = sp.from_iterable(samples(4)).decode(16).rename(image="jpg", latent="latent.npy")
    found, taken = rows_of(pipe.map(half, "latent").map(torch.neg, "image").batch(4), monkeypatch)
    assert (taken, kinds) == (0, {np.ndarray})
    assert torch.equal(found[0]["latent"][1], (LATENT + 1) / 2)


def test_a_function_of_whole_samples_sees_what_decode_makes():
    kinds = []
    pipe = (
        sp.from_iterable(samples(2))
        .decode(16)
        .default(extra=lambda sample: kinds.append(type(sample["latent.npy"])) or 0)
    )
    list(pipe.batch(2))
    assert kinds == [np.ndarray, np.ndarray]


def test_a_batch_that_lacks_a_sample_is_copied_and_the_next_one_is_not(monkeypatch):
    kept = [{**each, "txt": b"" if each["__key__"] == "1" else each["txt"]} for each in samples(9)]
    pipe = sp.from_iterable(kept, on_error="skip").decode(16).map(lambda text: text[0], "txt")
    found, taken = rows_of(pipe.batch(3), monkeypatch)
    assert [batch["__key__"] for batch in found] == [["0", "2", "0"], ["3", "4", "5"], ["6", "7", "8"]]
    assert taken == 2


def test_rows_are_joined_once_in_order_and_from_the_first_on():
    block, _ = Rows(3).next({})
    block.begin("x", (2,), torch.float32)
    rows = [block.row("x", i).fill_(i) for i in range(3)]
    assert joined([rows[1], rows[2]]) is None
    assert joined([rows[0], rows[2], rows[1]]) is None
    assert joined([rows[0], rows[1][:1]]) is None
    assert joined([rows[0], rows[1].view(torch.int32)]) is None
    assert joined([rows[0], None]) is None
    assert joined([*rows, rows[0]]) is None
    first = joined(rows[:2])
    assert torch.equal(first, torch.tensor([[0.0, 0], [1, 1]]))
    assert joined(rows) is None  # the first two are a batch's


def test_a_sample_that_is_kept_and_comes_again_shares_no_memory_with_the_batch_that_it_was_in():
    (batch,) = (
        sp.from_iterable(samples(2)).decode(16).select("jpg").batch(2, collate=lambda rows: (rows, collate(rows)))
    )
    rows, first = batch
    second = collate(rows)
    second["jpg"].zero_()
    assert first["jpg"].any()


def test_memory_that_another_tensor_has_now_is_no_block_any_more():
    block = Block(2)
    block.begin("x", (1 << 16,), torch.uint8)
    address = block.row("x", 0).data_ptr()
    del block
    others = [torch.empty(2, 1 << 16, dtype=torch.uint8) for _ in range(8)]
    assert all(joined(list(other)) is None for other in others), address


def test_a_field_of_no_bytes_has_no_rows():
    block = Block(2)
    block.begin("x", (0, 3), torch.float32)
    assert block.row("x", 0) is None
