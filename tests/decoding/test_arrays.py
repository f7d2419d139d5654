"""Arrays reach a batch as what they are, however they are stored; one by one they have memory of their own."""

import io
import json

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe.decoding.arrays import Unread, npy, owned, safetensors

st = pytest.importorskip("safetensors.torch")


def stored(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


ARRAYS = [
    np.arange(6, dtype=np.float16).reshape(2, 3),
    np.array(3.5),
    np.zeros((0, 4), np.int64),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.arange(4, dtype=">f4"),
    np.array([True, False]),
    np.array([1 + 2j], np.complex64),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}-{array.shape}")
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_npy_file_is_what_numpy_reads(array, version):
    data = stored(array, version)
    for whole in (data, memoryview(data)):
        for found in (npy(whole), owned(npy(whole, unread=True))):
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, np.load(io.BytesIO(data)))
            assert found.flags.writeable
            assert found.flags.owndata or found.base is not None
            found[...] = 0  # nobody else's memory
    np.testing.assert_array_equal(npy(data), array)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("array", [*ARRAYS[:2], *ARRAYS[5:]], ids=lambda array: f"{array.dtype.str}-{array.shape}")
def test_a_batch_of_arrays_is_those_of_its_samples(tmp_path, array, threads):
    arrays = [array, ~array if array.dtype == bool else array + 1, array]
    samples = [{"__key__": f"{i}", "x.npy": stored(each), "txt": b"a"} for i, each in enumerate(arrays)]
    (batch,) = sp.from_iterable(samples).decode(threads=threads).batch(3)
    assert batch["x.npy"].is_contiguous()
    np.testing.assert_array_equal(batch["x.npy"].numpy(), np.stack(arrays))
    assert batch["txt"] == ["a"] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8])
def test_lone_tensors_are_what_the_package_reads(dtype):
    tensors = [torch.arange(6).reshape(2, 3).to(dtype) + i for i in range(2)]
    data = [st.save({"tensor": each}) for each in tensors]
    for one, wanted in zip(data, tensors, strict=True):
        assert isinstance(safetensors(one, unread=True), Unread)
        assert torch.equal(safetensors(memoryview(one)), wanted)
    (batch,) = sp.from_iterable([{"__key__": str(i), "z.safetensors": d} for i, d in enumerate(data)]).decode().batch(2)
    assert torch.equal(batch["z.safetensors"], torch.stack(tensors))


def header(text, rest=b""):
    return len(text).to_bytes(8, "little") + text + rest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header(b"{"),
        header(json.dumps({"tensor": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode(), bytes(7)),
        header(json.dumps({"tensor": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode(), bytes(9)),
        header(json.dumps({"tensor": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}).encode(), bytes(8)),
        header(json.dumps({"tensor": {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}}).encode(), bytes(8)),
        header(json.dumps({"tensor": {"dtype": "F32", "shape": [2], "data_offsets": [4, 8]}}).encode(), bytes(8)),
        header(json.dumps({"tensor": [1]}).encode(), bytes(8)),
    ],
)
def test_damaged_tensors_are_refused(data):
    (sample,) = [{"__key__": "a", "z.safetensors": data}]
    with pytest.raises(sp.DecodeError, match="z.safetensors"):
        list(sp.from_iterable([sample]).decode().batch(1))


def test_arrays_of_two_shapes_do_not_share_a_batch_and_a_skipped_sample_moves_no_row():
    samples = [{"__key__": f"{i}", "x.npy": stored(np.full(2 + (i == 3), i))} for i in range(5)]
    with pytest.raises(sp.StageError, match=r"'x.npy' cannot be stacked.*'3'"):
        list(sp.from_iterable(samples).decode().batch(5))
    samples[3]["x.npy"] = b"no array"
    policy = sp.ErrorPolicy("skip", max_share=1)
    found = [batch["x.npy"].tolist() for batch in sp.from_iterable(samples, on_error=policy).decode().batch(2)]
    assert found == [[[0, 0], [1, 1]], [[2, 2], [2, 2]], [[4, 4]]]  # its slot is filled from the same batch


def test_a_collate_of_the_users_is_given_arrays_of_their_own():
    samples = [{"__key__": f"{i}", "x.npy": stored(np.full(2, i))} for i in range(2)]
    (batch,) = sp.from_iterable(samples).decode().batch(2, collate=list)
    assert [type(each["x.npy"]) for each in batch] == [np.ndarray] * 2
    (one, _) = sp.from_iterable(samples).decode()
    one["x.npy"][0] = 9
