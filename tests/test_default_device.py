"""Programs set ``torch.set_default_device("cuda")``: batches are made on the CPU nevertheless, as workers want it."""

import ast
from pathlib import Path

import torch

import streampipe as sp
from streampipe.decoding.conditioning import Conditioning, encode, read
from tests.data import photo

ROOT = Path(sp.__file__).parent
MAKERS = {"arange", "as_tensor", "empty", "full", "ones", "rand", "tensor", "zeros"}


def test_batches_are_on_the_cpu_whatever_the_default_device_is():
    samples = [{"__key__": str(i), "jpg": photo(i, 90, 70), "cls": b"3", "t": [1] * (i + 1)} for i in range(4)]
    pipe = sp.from_iterable(samples)
    with torch.device("meta"):
        batches = [
            *pipe.decode(16, crop="random", flip=0.5).batch(2, pad={"t": 0}),
            *pipe.decode().fit((200, 200), mode="pad").batch(2, pad={"t": 0}).loader(threads=2),
            *pipe.pack(5, lambda sample: len(sample["t"]), concat="t"),
        ]
        kept = read(encode(Conditioning(["a"], mask=[[1, 0]], t5=torch.ones(1, 2, 64, device="cpu")), True))
    tensors = [x for batch in batches for x in batch.values() if isinstance(x, torch.Tensor)] + [kept[0]["t5"]]
    assert len(tensors) > 20
    assert {each.device.type for each in tensors} == {"cpu"}


def test_every_tensor_that_is_made_says_where():
    silent = []
    for path in ROOT.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            match call:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr=name), keywords=given):
                    if name in MAKERS and "device" not in {each.arg for each in given}:
                        silent.append(f"{path.name}:{call.lineno}")
    assert not silent, silent
