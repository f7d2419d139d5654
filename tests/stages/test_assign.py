"""``assign`` gives every sample the same fields, and batches are still decided before it runs."""

import pytest
import torch

import streampipe as sp
from streampipe import stages
from streampipe.engine.indexed import IndexedEngine
from tests.data import write_shards
from tests.laws import check_lazy, check_picklable, engine_of

SAMPLES = [{"__key__": "a", "txt": "x"}, {"__key__": "b", "loss_weight": 3}]


def test_fields_are_set_in_place_of_those_that_are_there():
    stage = stages.assign(fields={"loss_weight": 0.5, "dataset": "reg"})
    assert list(stage(SAMPLES)) == [
        {"__key__": "a", "txt": "x", "loss_weight": 0.5, "dataset": "reg"},
        {"__key__": "b", "loss_weight": 0.5, "dataset": "reg"},
    ]
    assert SAMPLES[1]["loss_weight"] == 3  # the samples given are not changed
    check_picklable(stage, SAMPLES)
    check_lazy(stage, SAMPLES, ahead=0)


def test_it_is_planned_and_batches_hold_lists_or_stacked_tensors(tmp_path):
    write_shards(tmp_path, [5])
    pipe = sp.stream(str(tmp_path)).assign(dataset="reg", weight=torch.tensor(2.0)).batch(4)
    assert isinstance(engine_of(pipe), IndexedEngine)
    batch = next(iter(pipe.loader()))
    assert batch["dataset"] == ["reg"] * 4
    assert batch["weight"].tolist() == [2.0] * 4


def test_metadata_is_not_assigned():
    with pytest.raises(sp.ConfigError, match="'__key__' is metadata"):
        list(stages.assign(fields={"__key__": "x"})(SAMPLES))
