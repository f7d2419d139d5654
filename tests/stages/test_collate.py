"""Samples to batches: numbers and tensors become tensors, texts lists, unequal lengths are filled up where asked."""

import io

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe.stages import collate
from tests.data import write_photos


def column(values, **options):
    return collate([{"__key__": str(i), "x": value} for i, value in enumerate(values)], **options)["x"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], torch.int64),
        ([0.5, 2.5], torch.float32),
        ([1, 0.5], torch.float32),
        ([True, False], torch.bool),
        ([np.float64(0.5), np.float32(1)], torch.float32),
        ([np.int32(3), 4], torch.int64),
    ],
)
def test_numbers_become_one_tensor(values, dtype):
    found = column(values)
    assert found.dtype == dtype
    assert found.tolist() == [float(v) if dtype == torch.float32 else v for v in values]


@pytest.mark.parametrize("values", [["a", "b"], [1, None], [True, 2], [1, "b"], [1 << 70, 1], [(1, 2)] * 2, [{}, {}]])
def test_what_is_no_number_stays_a_list(values):
    assert column(values) == values


def test_metadata_stays_a_list():
    assert collate([{"__key__": 1, "__step__": 2}] * 2) == {"__key__": [1, 1], "__step__": [2, 2]}


def test_assigned_numbers_are_tensors_of_a_batch():
    pipe = sp.from_iterable([{"__key__": "a"}, {"__key__": "b"}]).assign(loss_weight=0.5, source="reg").batch(2)
    (batch,) = pipe
    assert torch.equal(batch["loss_weight"], torch.tensor([0.5, 0.5]))
    assert batch["source"] == ["reg", "reg"]


def test_tuples_become_a_tuple():
    images, labels, texts = collate([(torch.zeros(3, 2, 2), 1, "a"), (torch.ones(3, 2, 2), 2, "b")])
    assert images.shape == (2, 3, 2, 2)
    assert labels.tolist() == [1, 2]
    assert texts == ["a", "b"]
    with pytest.raises(sp.StageError, match=r"tuples of different lengths .* \[1, 2\]"):
        collate([(1,), (1, 2)])


def test_unequal_lengths_are_filled_up_where_asked():
    tokens = [torch.tensor([5, 6, 7]), torch.tensor([8])]
    assert column(tokens, pad={"x": 9}).tolist() == [[5, 6, 7], [8, 9, 9]]
    assert column([[5, 6], [7]], pad={"x": 0}).tolist() == [[5, 6], [7, 0]]  # as tokenizers give them
    assert column([np.zeros((1, 2)), np.zeros((3, 1))], pad={"x": -1}).shape == (2, 3, 2)
    with pytest.raises(sp.StageError, match=r"fill the shorter ones up, as in batch\(n, pad=\{'x': 0\}\)"):
        column(tokens)
    with pytest.raises(sp.StageError, match="'x' cannot be padded: it is a str"):
        column(["a", "b"], pad={"x": 0})
    with pytest.raises(sp.StageError, match="names 'y', which the samples lack"):
        column(tokens, pad={"y": 0})


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(3, 5, 4, dtype=torch.uint8)], r"decode\(size=512\)"),
        ([torch.zeros(2), torch.zeros(2, dtype=torch.int64)], "one dtype"),
        ([torch.zeros(2), None], r"default\(x=function\)"),
    ],
)
def test_what_cannot_be_stacked_says_what_to_do(values, advice):
    with pytest.raises(sp.StageError, match=advice):
        column(values)


def tokens(text):
    return torch.arange(len(text) % 5 + 1)


def test_images_in_a_batchs_memory_and_padded_tokens_go_together(tmp_path):
    write_photos(tmp_path, [12])
    pipe = sp.stream(str(tmp_path)).decode(16).map(lambda s: {**s, "t": torch.arange(int(s["__key__"]) % 5 + 1)})
    (batch,) = pipe.batch(12, pad={"t": -1})
    assert batch["t"].shape == (12, 5)
    fused = sp.stream(str(tmp_path)).rename(image="jpg").map(tokens, "txt").decode(16).batch(12, pad={"txt": -1})
    (batch,) = fused
    assert batch["image"].shape == (12, 3, 16, 16)


def test_a_batch_without_metadata_holds_what_was_selected(tmp_path):
    write_photos(tmp_path, [4])
    pipe = sp.stream(str(tmp_path)).decode(16)
    (batch,) = pipe.select("jpg", metadata=False).batch(4)
    assert list(batch) == ["jpg"]
    (batch,) = pipe.batch(4).select("jpg", metadata=False)
    assert list(batch) == ["jpg"]


def test_a_random_choice_behind_lost_keys_is_refused(tmp_path):
    write_photos(tmp_path, [4])
    with pytest.raises(sp.ConfigError, match=r"put select\(..., metadata=False\) behind the stage"):
        list(sp.stream(str(tmp_path)).select("jpg", metadata=False).decode(16, flip=0.5))


def test_a_function_behind_batch_has_choices_of_its_own(tmp_path):
    write_photos(tmp_path, [4, 4])

    def noise(batch, rng):
        return {**batch, "noise": float(rng.random())}

    first, second = (
        [each["noise"] for each in sp.stream(str(tmp_path)).select("txt").batch(4).map(noise)] for _ in range(2)
    )
    assert first == second
    assert len({*first}) == 2


@pytest.mark.parametrize("fused", [True, False])
def test_arrays_of_one_number_are_numbers_and_any_order_of_bytes_is_read(fused):
    samples = [{"__key__": str(i), "score.npy": npy(np.float32(i)), "x.npy": npy(np.full(3, i, ">f4"))} for i in (1, 2)]
    pipe = sp.from_iterable(samples).decode()
    (batch,) = (pipe if fused else pipe.map(lambda sample: sample)).batch(2)
    assert torch.equal(batch["score.npy"], torch.tensor([1.0, 2.0]))
    assert torch.equal(batch["x.npy"], torch.tensor([[1.0] * 3, [2.0] * 3]))


@pytest.mark.parametrize("fused", [True, False])
def test_arrays_in_either_order_of_axes_share_a_batch(fused):
    arrays = [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))]
    for each in (arrays, arrays[::-1]):
        pipe = sp.from_iterable([{"__key__": str(i), "x.npy": npy(a)} for i, a in enumerate(each)]).decode()
        (batch,) = (pipe if fused else pipe.map(lambda sample: sample)).batch(2)
        assert batch["x.npy"].tolist() == [each[0].tolist()] * 2


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("values", [[torch.zeros(2), None], [None, torch.zeros(2)], [None, np.zeros(2, np.float32)]])
def test_whether_a_batch_can_be_made_does_not_depend_on_who_is_first(values):
    with pytest.raises(
        sp.StageError, match=r"of shape \(2,\) in sample '[01]' and None in '[01]'; give those that lack"
    ):
        column(values)


@pytest.mark.skipif(np.dtype(np.longdouble) == np.float64, reason="this machine has no longer floats")
def test_an_array_of_numbers_that_torch_does_not_have_is_named():
    with pytest.raises(
        sp.StageError, match="field 'x' cannot be stacked: torch has no numbers of the type .* in sample '0'"
    ):
        column([np.zeros(2, np.longdouble)] * 2)


def test_lists_that_are_filled_up_have_one_dtype_also_where_some_are_empty():
    assert column([[], [0.5, 2]], pad={"x": -1}).tolist() == [[-1, -1], [0.5, 2]]
    assert column([[1], [0.5, 2]], pad={"x": 0}).tolist() == [[1, 0], [0.5, 2]]
    assert column([[True], [False, True]], pad={"x": 0}).dtype == torch.bool
    assert column([[], []], pad={"x": 0}).dtype == torch.int64
    assert column([torch.ones(1).half(), []], pad={"x": 0}).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("value", "pad", "dtype"), [([1], 0.5, "int64"), ([True], -100, "bool"), (torch.ones(1).byte(), -1, "uint8")]
)
def test_a_value_to_fill_up_with_is_one_that_the_field_can_have(value, pad, dtype):
    with pytest.raises(sp.StageError, match=rf"'x' is torch.{dtype}, which does not have that value"):
        column([value] * 2, pad={"x": pad})


def test_a_value_that_wants_a_gradient_says_so():
    with pytest.raises(sp.StageError, match="in sample '0' it wants a gradient, .* torch.no_grad"):
        column([torch.ones(2, requires_grad=True)] * 2)


def test_arrays_that_cannot_be_written_to_are_read():
    assert column([np.frombuffer(b"ab", np.uint8)] * 2).tolist() == [[97, 98]] * 2  # torch would warn
