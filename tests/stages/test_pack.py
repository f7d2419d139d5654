"""``pack`` as samples come: windows, exact resume, costs, and what a pack is joined to."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe import stages
from streampipe.context import Consumer, Run, Trail
from streampipe.counters import counters
from streampipe.stages.varlen import join
from tests.data import photo, shard
from tests.laws import _marking, check_state, engine_of, run

costs = st.lists(st.integers(1, 30), min_size=1, max_size=60)


def rows(numbers):
    return [{"__key__": f"{i:03d}", "n": n} for i, n in enumerate(numbers)]


@settings(max_examples=25, deadline=None)
@given(costs, st.integers(1, 20))
def test_every_sample_is_in_one_pack_and_the_stage_goes_on_behind_any(numbers, window):
    stage, samples = stages.pack(budget=30, cost="n", window=window), rows(numbers)
    packs = list(stage(samples))
    assert sorted(key for pack in packs for key in pack["__key__"]) == [row["__key__"] for row in samples]
    assert all(pack["n"].sum() <= 30 for pack in packs)
    check_state(stage, samples)


def test_what_does_not_fill_a_pack_waits_for_the_next_window():
    rng = np.random.default_rng(0)
    samples = rows(np.clip(rng.lognormal(5, 1, 8_000).astype(int), 1, 4000).tolist())
    packs = list(stages.pack(budget=8000, cost="n", window=500)(samples))
    assert sum(int(pack["n"].sum()) for pack in packs) / (8000 * len(packs)) > 0.98
    waited = list(stages.pack(budget=8000, cost="n", window=500)(iter(samples)))
    assert [pack["__key__"] for pack in waited] == [pack["__key__"] for pack in packs]


def test_a_mark_is_small_and_one_that_is_damaged_is_refused():
    trail = Trail()
    for _ in stages.pack(budget=100, cost="n", window=10)(_marking(rows([7] * 200), 0, trail), Run(trail=trail)):
        assert len(json.dumps(trail.mark)) < 200
    for at in ([3], [1, 2, 3, None], [-1, 0, [], None], [0, 1, [1], None], "abcd"):
        with pytest.raises(sp.ConfigError, match="behind stage pack: it is damaged"):
            list(stages.pack(budget=9, cost="n")([], Run(stage="pack", at=at)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for number, size in enumerate([30, 9, 41, 20, 12, 8]):
        texts = [(f"{number}{i:02d}", {"txt": "x" * (1 + i * 7 % 23)}) for i in range(size)]
        (folder / f"{number:05d}.tar").write_bytes(shard(texts))
    return folder


def length(sample):
    return len(sample["txt"])


def streamed(folder, **options):
    return sp.stream(str(folder), seed=1, shuffle=6, tier="sequential", **options).decode().pack(60, length, window=8)


def test_lanes_have_the_same_packs_on_other_ranks_and_go_on_anywhere(folder):
    keys = [f"{n}{i:02d}" for n, size in enumerate([30, 9, 41, 20, 12, 8]) for i in range(size)]
    whole = [pack["__key__"] for pack in streamed(folder).loader()]
    assert sorted(key for pack in whole for key in pack) == keys
    pipe = streamed(folder, epochs=None)
    shape = engine_of(pipe).work.shape
    assert shape.number > 1
    for workers in (n for n in (2, 3) if shape.columns % n == 0):
        made = [run(streamed(folder), Consumer(0, 1, w, workers), 0) for w in range(workers)]
        assert [next(made[i % workers])["__key__"] for i in range(12)] == whole[:12]
    for stop in (1, 5, len(whole) - 1):
        first, second = streamed(folder).loader(), streamed(folder).loader()
        begun = [pack["__key__"] for pack in islice(first, stop)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert begun + [pack["__key__"] for pack in second] == whole


def test_costs_come_from_fields_json_and_images_as_they_were_stored(tmp_path):
    samples = [(f"{i}", {"jpg": photo(i, 64, 32 + 16 * i), "json": json.dumps({"words": i})}) for i in range(3)]
    (tmp_path / "0.tar").write_bytes(shard(samples))
    cost = "height * width // 256 + words + 1"
    wanted = [64 * (32 + 16 * i) // 256 + i + 1 for i in range(3)]
    for tier in ("planned", "sequential"):
        for size in ((), (16,)):  # whatever decode brings them to
            pipe = sp.stream(str(tmp_path), tier=tier).decode(*size).pack(1000, cost, limit=wanted[1])
            assert sorted(key for pack in pipe for key in pack["__key__"]) == ["0", "1"]


def test_what_cannot_be_packed_is_an_error_that_says_what_to_do():
    def packed(samples, **options):
        return list(sp.from_iterable(samples, on_error=options.pop("on_error", "raise")).pack(9, **options))

    with pytest.raises(
        sp.StageError, match=r"stage 'pack', sample '000': it costs 12, more than the budget of 9; leave"
    ):
        packed(rows([12]), cost="n")
    with pytest.raises(sp.StageError, match=r"sample '000': it has no cost \(length\): a value is missing"):
        packed(rows([12]), cost="length")
    with pytest.raises(sp.StageError, match=r"cost= gave 1.5; a cost is a whole number, 1 or more"):
        packed(rows([12]), cost=lambda sample: 1.5)
    with pytest.raises(sp.StageError, match=r"dropped every one of 3 samples: all cost more than limit=2"):
        packed(rows([3, 4, 5]), cost="n", limit=2)
    counters.take()
    (found,) = packed(rows([3, 12, 4]), cost="n", limit=8)
    assert found["__key__"] == ["000", "002"]
    assert counters.get("pack", "left out, cost above limit") == 1
    (found,) = packed(rows([3, 12, 4]), cost="n", on_error="skip")
    assert found["__key__"] == ["000", "002"]
    (found,) = packed(rows([3, 0, 4]), cost=lambda sample: 9 // sample["n"] // 3, on_error="skip")
    assert found["__key__"] == ["000"]  # the second one cannot be divided by, the third one costs 0
    (found,) = packed([{"__key__": "a", "n": 3}, {"__key__": "b", "m": 4}], cost="n + m", missing=0)
    assert (found["n"], found["m"]) == ([3, None], [None, 4])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 0}, "budget is a whole number, 1 or more"),
        ({"cost": 3}, "cost is a column, an expression"),
        ({"cost": "5"}, "names no column"),
        ({"cost": "import os"}, r"pack: cost: 'import os' is no expression"),
        ({"missing": 1}, "missing is 'error', or 0"),
        ({"missing": 0, "cost": len}, "a function of your own says"),
        ({"fixed": True}, "name them by concat="),
        ({"concat": "a", "collate": list}, "not both"),
        ({"window": 0}, "window is a whole number"),
        ({"limit": 10}, "no pack has room for a sample of limit=10"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(sp.ConfigError, match=words):
        stages.pack(**{"budget": 9, **options})


# what a pack is joined to


def test_a_pack_has_the_forms_that_attention_kernels_take():
    samples = [
        {"__key__": "a", "ids": torch.arange(3), "patches": torch.ones(3, 4), "text": [7, 8], "n": 1},
        {"__key__": "b", "ids": np.arange(2), "patches": torch.zeros(2, 4), "n": 2},
    ]
    pack = join(samples, ["ids", "patches", "text"])
    assert pack["cu_seqlens"].tolist() == [0, 3, 5]
    assert (pack["cu_seqlens"].dtype, pack["position_ids"].dtype) == (torch.int32, torch.int64)
    assert pack["max_seqlen"] == 3
    assert pack["position_ids"].tolist() == [0, 1, 2, 0, 1]
    assert pack["segment_ids"].tolist() == [0, 0, 0, 1, 1]
    assert pack["patches"].shape == (5, 4)
    assert (pack["text"].tolist(), pack["text.cu_seqlens"].tolist()) == ([7, 8], [0, 2, 2])
    assert pack["n"].tolist() == [1, 2]
    assert "patches.cu_seqlens" not in pack


def test_a_pack_of_a_fixed_shape_attends_to_nothing_behind_its_samples():
    pack = join([{"ids": torch.arange(1, 4)}, {"ids": torch.arange(2)}], ["ids"], total=8)
    assert pack["ids"].tolist() == [1, 2, 3, 0, 1, 0, 0, 0]
    assert pack["segment_ids"].tolist() == [0, 0, 0, 1, 1, -1, -1, -1]
    assert pack["cu_seqlens"].tolist() == [0, 3, 5]
    with pytest.raises(sp.StageError, match="has 5 rows in a pack of a budget of 4, so cost= says less"):
        join([{"ids": torch.arange(5)}], ["ids"], total=4)


def test_the_mask_of_segments_is_block_diagonal_attention():
    """A pack through one attention with the mask of flex_attention's form equals each sample alone."""
    parts = [torch.randn(n, 8, generator=torch.manual_seed(n)) for n in (3, 1, 4)]
    pack = join([{"x": part} for part in parts], ["x"], total=10)
    segments = pack["segment_ids"]
    mask = segments[:, None] == segments[None]
    x = pack["x"][None, None]
    whole = torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)[0, 0]
    for part, a, b in zip(parts, pack["cu_seqlens"].tolist(), pack["cu_seqlens"].tolist()[1:], strict=False):
        alone = torch.nn.functional.scaled_dot_product_attention(*[part[None, None]] * 3)[0, 0]
        torch.testing.assert_close(whole[a:b], alone)


def test_fields_that_cannot_be_joined_are_refused_by_name():
    for samples, words in (
        ([{"__key__": "a", "x": "text"}], "sample 'a' has a str, and tensors, arrays or lists"),
        (
            [{"__key__": "a"}],
            r"no sample of the pack has that field; there are __key__; where .*, as in default\(x=torch.empty\(",
        ),
        (
            [{"__key__": "a", "x": torch.zeros(2, 3)}, {"__key__": "b", "x": torch.zeros(2, 4)}],
            r"shape \(3,\) in sample 'a' and torch.float32 of \(4,\) in 'b'",
        ),
    ):
        with pytest.raises(sp.StageError, match=words):
            join(samples, ["x"])


def test_a_collate_of_ones_own_is_given_the_samples_of_a_pack():
    found = list(sp.from_iterable(rows([5, 3, 6])).pack(8, "n", collate=lambda samples: [s["n"] for s in samples]))
    assert Counter(map(tuple, found)) == Counter([(5, 3), (6,)])
