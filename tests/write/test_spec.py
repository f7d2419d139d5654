"""Two pipelines that read alike write the same: what changes results changes the words, and nothing else does."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe import stages
from streampipe.write.spec import describe


def scale(x, by=2, *, names=("a",)):
    return x * by if x in {"a", "b", "c", "d"} else names


def closed(value):
    def inner(x):
        return x, value

    return inner


class Shift:
    def __init__(self, by):
        self.by = by
        self.me = self  # things may hold themselves

    def __call__(self, x):
        return x + self.by

    def down(self, x):
        return x - self.by


@sp.stage
def every(samples, n: int = 2):
    yield from list(samples)[::n]


def linear(bias=0.0):
    torch.manual_seed(0)
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.bias += bias
    return module


DIFFERENT = [
    [stages.map(fn=scale), stages.map(fn=scale, field="x"), stages.map(fn=len), every(n=3), every(n=4), every()],
    [lambda x: x + 1, lambda x: x + 2, lambda x: x - 1, lambda y: y.a, lambda y: y.b],
    [functools.partial(scale, by=2), functools.partial(scale, by=3), functools.partial(scale, 2), scale],
    [closed(1), closed(2), closed([1, 2]), closed(np.arange(3)), closed(np.arange(3.0)), closed({"a": b"x"})],
    [Shift(1), Shift(2), Shift(1).down, Shift(2).down],
    [linear(), linear(0.5), torch.nn.Dropout(0.1), torch.nn.Dropout(0.2)],
    [sp.inference(linear()), sp.inference(linear(1.0)), sp.inference(linear(), autocast=torch.bfloat16)],
    [{"a": 1}, {"a": 2}, {"b": 1}, ["a", 1], ("a", 1), {"a", "b"}, {"a", "c"}, None, "None"],
    [re.compile("a"), re.compile("b"), Path("a"), torch.float16, torch.zeros(2), torch.ones(2)],
]


@pytest.mark.parametrize("things", DIFFERENT)
def test_what_differs_reads_differently_and_the_same_again_alike(things):
    words = [describe(thing) for thing in things]
    assert len(set(words)) == len(words)
    assert [describe(thing) for thing in things] == words
    assert not any(re.search("0x[0-9a-f]{6}", each) for each in words)


def test_what_decorators_counted_and_devices_are_no_part_of_it():
    timed = sp.timed(sp.cached(Shift(1)))
    before = describe(timed)
    timed(3)
    assert describe(timed) == before
    assert describe(sp.inference(linear(), device="cpu")) == describe(sp.inference(linear()))
    other = sp.inference(linear())
    other(torch.zeros(1, 2))
    assert describe(other) == describe(sp.inference(linear()))


def test_words_are_the_same_in_every_process():
    code = "from tests.write.test_spec import *; print([describe(each) for each in (scale, {'a', 'b', 'c'}, every())])"
    words = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(words) == 1
