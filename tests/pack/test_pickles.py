"""Pickles of other tools become formats that cannot run code; what would run code does not, and is named."""

import io
import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load

import streampipe as sp
from streampipe.pack.pickles import unpickled
from streampipe.tar import TarWriter
from tests.pack.test_pack import contents, quiet


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_values_arrays_and_tensors_get_safe_formats(tmp_path):
    fields = {
        "latent.pth": saved(torch.arange(6.0).reshape(2, 3)),
        "both.pt": saved({"a": torch.ones(2), "b": torch.zeros(1, dtype=torch.bfloat16)}),
        "array.pyd": pickle.dumps(np.arange(4, dtype=np.int16)),
        "pkl": pickle.dumps({"n": 1, "tags": ["x"]}),
        "txt": b"as it is",
    }
    with open(tmp_path / "a.tar", "wb") as file:
        shard = TarWriter(file.write)
        shard.add("0", fields)
        shard.close()
    assert contents_of(tmp_path, "kept", unpickle=False) == fields
    found = contents_of(tmp_path, "out", unpickle=True)
    assert sorted(found) == ["array.npy", "both.safetensors", "latent.npy", "txt", "value.json"]
    assert np.load(io.BytesIO(found["latent.npy"])).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert load(found["both.safetensors"])["b"].dtype == torch.bfloat16
    assert np.load(io.BytesIO(found["array.npy"])).dtype == np.int16
    assert json.loads(found["value.json"]) == {"n": 1, "tags": ["x"]}


def contents_of(folder, name, **options):
    quiet(f"{folder}/a.tar", folder / name, **options)
    return contents(folder / name)["0"]


@pytest.mark.parametrize("kind", ["pkl", "pyd", "pth"])
@pytest.mark.parametrize(
    "value", [Bomb(), [Bomb()], np.array([Bomb()], object)], ids=["alone", "inside", "in an array"]
)
def test_what_would_run_code_does_not(tmp_path, monkeypatch, kind, value):
    monkeypatch.chdir(tmp_path)
    data = saved(value) if kind == "pth" else pickle.dumps(value)
    with pytest.raises(sp.DecodeError, match=rf"field 'x\.{kind}': it holds more than .* was not run"):
        unpickled({f"x.{kind}": data})
    assert not os.path.exists("ran")


def test_objects_and_names_that_are_taken_are_refused():
    with pytest.raises(sp.DecodeError, match="array of Python's objects"):
        unpickled({"x.pkl": pickle.dumps(np.array([1, "a"], object))})
    with pytest.raises(sp.DecodeError, match=r"would become 'x\.json', which is there"):
        unpickled({"x.pkl": pickle.dumps([1]), "x.json": b"{}"})
