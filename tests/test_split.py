"""A hold-out split, ``repeat`` and ``concat``: pipelines made of pipelines."""

import json
from collections import Counter

import pytest

import streampipe as sp
from tests.data import shard, write_shards


def keys(pipe):
    return {each["__key__"] for each in pipe}


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_two_sides_are_disjoint_and_whole_and_the_same_in_both_tiers(tmp_path, tier):
    everything = write_shards(tmp_path, [40, 30, 50])
    rest, held_out = sp.split(sp.stream(str(tmp_path), tier=tier, shuffle=5, seed=1), share=0.2)
    assert keys(rest) | keys(held_out) == set(everything)
    assert not keys(rest) & keys(held_out)
    assert 10 < len(keys(held_out)) < 40
    other = sp.split(sp.stream(str(tmp_path), tier="sequential"), share=0.2)[1]
    assert keys(other) == keys(held_out)
    assert keys(sp.split(sp.stream(str(tmp_path)), share=0.2, seed=1)[1]) != keys(held_out)


def test_a_split_is_planned_whatever_the_stages_behind_it_and_a_larger_share_holds_out_the_same(tmp_path):
    write_shards(tmp_path, [40, 30, 50])
    pipe = sp.stream(str(tmp_path), tier="planned").where("key != '0000001'").decode().batch(4)
    rest, held_out = sp.split(pipe, share=0.1)
    assert len(rest.loader()) + len(held_out.loader()) in (30, 31)
    assert "split by 'key'" in rest.loader().explain()
    small, large = (sp.split(sp.stream(str(tmp_path)), share=share)[1] for share in (0.1, 0.3))
    assert keys(small) < keys(large)


def test_samples_of_one_fact_are_on_one_side(tmp_path):
    rows = [(f"{i:03d}", {"txt": "x", "json": json.dumps({"hash": f"h{i % 10}"})}) for i in range(100)]
    (tmp_path / "0.tar").write_bytes(shard(rows))
    for tier in ("planned", "sequential"):
        rest, held_out = sp.split(sp.stream(str(tmp_path), tier=tier), by="hash", share=0.4)
        sides = [{int(key) % 10 for key in keys(side)} for side in (rest, held_out)]
        assert not sides[0] & sides[1]
        assert all(sides)
        with pytest.raises(sp.ConfigError, match="split by 'nothing': sample '000' does not have it"):
            list(sp.split(sp.stream(str(tmp_path), tier=tier), by="nothing")[0])


def test_a_split_of_very_few_is_no_error_while_none_has_come():
    rows = [{"__key__": f"{i:05d}"} for i in range(12_000)]
    few = keys(sp.split(sp.from_iterable(rows), share=0.01)[1])
    late = sorted(rows, key=lambda row: row["__key__"] in few)
    assert keys(sp.split(sp.from_iterable(late), share=0.01)[1]) == few
    assert 0 < len(few) < 2_000


def test_what_cannot_be_split_is_refused(tmp_path):
    write_shards(tmp_path, [4])
    pipe = sp.stream(str(tmp_path))
    with pytest.raises(sp.ConfigError, match="share is between 0 and 1"):
        sp.split(pipe, share=1.0)
    with pytest.raises(sp.ConfigError, match="split stands before mix"):
        sp.split(sp.mix([pipe]))


def test_repeat_gives_each_sample_so_many_times_an_epoch(tmp_path):
    everything = write_shards(tmp_path, [5, 4])
    pipe = sp.stream(str(tmp_path), shuffle=3).map(len, "txt").repeat(3)
    assert Counter(each["__key__"] for each in pipe) == dict.fromkeys(everything, 3)
    assert len(pipe.batch(4).loader()) == 7
    with pytest.raises(sp.ConfigError, match="times is a whole number, 1 or more, not 0"):
        pipe.repeat(0)
    with pytest.raises(sp.ConfigError, match="repeat goes before batch"):
        sp.stream(str(tmp_path)).batch(2).repeat(2)
    with pytest.raises(sp.ConfigError, match="cannot be planned: the samples come from an iterable"):
        sp.from_iterable([1]).repeat(2)


@pytest.fixture
def two(tmp_path):
    for name, first in (("a", 0), ("b", 500)):
        (tmp_path / name).mkdir()
        for number in range(2):
            rows = [(f"{name}{first + 10 * number + i:04d}", {"txt": "x"}) for i in range(4)]
            (tmp_path / name / f"{number}.tar").write_bytes(shard(rows))
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize("shuffle", [False, 3])
def test_concat_gives_each_part_whole_before_the_next_in_every_epoch(two, shuffle):
    parts = [sp.stream(str(folder), shuffle=shuffle) for folder in two]
    pipe = sp.concat(parts, epochs=2)
    got = [each["__key__"] for each in pipe]
    assert [key[0] for key in got] == (["a"] * 8 + ["b"] * 8) * 2
    assert len(set(got)) == 16
    assert (got[:16] == got[16:]) == (not shuffle)
    assert got[:8] == [each["__key__"] for each in sp.concat(parts[:1])]


def test_concat_is_the_same_on_any_ranks_and_resumes_at_any_step(two):
    def loader(rank=0, ranks=1, workers=0):
        parts = [sp.stream(str(two[0]), shuffle=3), sp.stream(str(two[1])).where("key != 'b0500'")]
        return sp.concat(parts).batch(6 // ranks).loader(workers, rank=rank, world_size=ranks)

    whole = [batch["__key__"] for batch in loader()]
    assert [len(batch) for batch in whole] == [6, 6, 3]
    of_ranks = [[batch["__key__"] for batch in loader(rank, 2, 2)] for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*of_ranks, strict=True)][:2] == [sorted(batch) for batch in whole][:2]
    first = loader()
    next(iter(first))
    rest = loader()
    rest.load_state_dict(first.state_dict())
    assert [batch["__key__"] for batch in rest] == whole[1:]
    with pytest.raises(sp.ConfigError, match=r"concat takes a list of pipelines, as in concat\(\[a, b\]\)"):
        sp.concat([])
    with pytest.raises(sp.ConfigError, match="concat takes pipelines that are not batched"):
        sp.concat([sp.from_iterable([1]).batch(2)])
    with pytest.raises(sp.ConfigError, match="a part of concat cannot be planned: the samples come from an iterable"):
        sp.concat([sp.from_iterable([1])])
