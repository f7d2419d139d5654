"""``default``: fields that some samples lack."""

import pytest
import torch

import streampipe as sp
from streampipe import stages
from streampipe.counters import counters

SAMPLES = [
    {"__key__": "a", "image": torch.ones(3, 2, 2), "mask": torch.zeros(1, 2, 2), "txt": "x"},
    {"__key__": "b", "image": torch.ones(3, 2, 2)},
]


def white(sample):
    return torch.ones_like(sample["image"][:1])


def batches(**fields):
    return list(sp.from_iterable(SAMPLES).apply(stages.default(fields=fields)).batch(2))


def test_fields_that_are_missing_share_a_batch():
    before = counters.get("default", "mask filled in")
    (batch,) = batches(mask=white, txt="")
    assert batch["mask"].tolist() == [[[[0, 0], [0, 0]]], [[[1, 1], [1, 1]]]]
    assert batch["txt"] == ["x", ""]
    assert counters.get("default", "mask filled in") - before == 1


def test_without_a_default_the_error_names_the_stage():
    with pytest.raises(sp.StageError, match=r"only one of them has 'mask', 'txt'; .*default\(mask=...\)"):
        list(sp.from_iterable(SAMPLES).batch(2))


def test_a_value_of_another_kind_is_an_error_that_says_how():
    with pytest.raises(sp.StageError, match=r"'mask' cannot be stacked: .*None in 'b'.*default\(mask=function\)"):
        batches(mask=None, txt="")


def test_what_is_there_stays():
    sample = {"__key__": "a", "n": None, "m": 0}
    assert list(stages.default(fields={"n": 1, "m": 2, "o": 3})([sample])) == [{**sample, "o": 3}]
    assert "o" not in sample


def test_a_function_that_raises_names_the_sample_or_is_skipped():
    bad = lambda sample: 1 / 0  # noqa: E731
    with pytest.raises(sp.StageError, match="stage 'default', sample 'b': ZeroDivisionError"):
        batches(mask=bad, txt="")
    pipe = sp.from_iterable(SAMPLES, on_error="skip").apply(stages.default(fields={"mask": bad}))
    assert [each["__key__"] for each in pipe] == ["a"]


@pytest.mark.parametrize(
    ("fields", "words"), [({}, "name the fields"), ({"__key__": 1}, "is metadata"), ({"": 1}, "is meta")]
)
def test_options_are_checked_when_the_stage_is_made(fields, words):
    with pytest.raises(sp.ConfigError, match=words):
        stages.default(fields=fields)
