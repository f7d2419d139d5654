"""A mixture keeps its shares exactly, uses up its parts before it repeats them, and resumes at any step."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.plan.mixed import Shares
from tests.data import write_shards


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.25, 1, 2, 3, 7.5]), min_size=1, max_size=5), st.integers(0, 10**9))
def test_shares_are_exact_at_every_draw_and_any_draw_can_be_had_alone(weights, start):
    draws = np.arange(300)
    part, number = Shares(weights).owner(draws)
    for i, weight in enumerate(weights):
        mine = number[part == i]
        assert mine.tolist() == list(range(len(mine)))
        share = weight / sum(weights) * (draws + 1)
        assert np.abs(np.cumsum(part == i) - share).max() <= 2
    far = start + draws
    parts, numbers = Shares(weights).owner(far)
    for j in (0, 17, 299):
        alone = Shares(weights).owner(far[j : j + 1])
        assert (alone[0][0], alone[1][0]) == (parts[j], numbers[j])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = []
    for name, counts in (("a", [20, 30, 10]), ("b", [7, 5])):
        folder = tmp_path_factory.mktemp(name)
        write_shards(folder, counts)
        found.append(folder)
    return found


def shout(text):
    return "B " + text


def mixture(folders, size=6, weights=(3, 1), **options):
    a = sp.stream(str(folders[0]), shuffle=10).decode()
    b = sp.stream(str(folders[1]), shuffle=5, seed=9).where("key != '0000000'").decode().map(shout, "txt")
    return sp.mix([a, b], weights, **options).batch(size)


def texts(batches):
    return [batch["txt"] for batch in batches]


def test_parts_have_their_shares_and_their_own_stages_and_are_used_up_before_they_repeat(folders):
    loader = mixture(folders, epochs=4).loader()
    assert len(loader) == 4 * 12
    rows = list(chain(*texts(loader)))
    ours = Counter(row for row in rows if row.startswith("B "))
    theirs = Counter(row for row in rows if not row.startswith("B "))
    assert sum(ours.values()) == len(rows) // 4
    assert len(ours) == 11
    assert len(theirs) == 60
    assert max(ours.values()) - min(ours.values()) <= 1
    assert max(theirs.values()) - min(theirs.values()) <= 1
    assert "B text 0000000" not in ours


def test_a_mixture_resumes_at_every_step_on_any_ranks_and_workers(folders):
    whole = [sorted(batch) for batch in texts(mixture(folders).loader())]
    for step in range(len(whole)):
        loader = mixture(folders).loader()
        batches = iter(loader)
        got = [sorted(next(batches)["txt"]) for _ in range(step)]
        state = loader.state_dict()
        if step % 4:
            fresh = mixture(folders).loader()
            fresh.load_state_dict(state)
            assert got + [sorted(batch) for batch in texts(fresh)] == whole
            continue
        ranks = [mixture(folders, 3).loader(num_workers=2, rank=rank, world_size=2) for rank in range(2)]
        for each in ranks:
            each.load_state_dict(state)
        rest = [sorted(a + b) for a, b in zip(*map(texts, ranks), strict=True)]
        assert got + rest == whole


def test_without_weights_every_sample_comes_once_an_epoch(folders):
    pipe = sp.mix([sp.stream(str(folder), shuffle=True) for folder in folders]).batch(8)
    rows = Counter(chain(*texts(pipe.loader())))
    assert len(rows) == 60  # the two folders share some texts
    assert sum(rows.values()) == 72


def test_other_weights_are_refused_on_resume(folders):
    loader = mixture(folders).loader()
    next(iter(loader))
    other = mixture(folders, weights=(2, 1)).loader()
    with pytest.raises(sp.ConfigError, match=r"the fingerprint of the mixture \(.* its weights\) is"):
        other.load_state_dict(loader.state_dict())


@pytest.mark.parametrize(
    ("weights", "words"), [((1,), "a weight above 0 for each of its 2"), ((1, 0), "above 0"), ((1, -1), "above 0")]
)
def test_weights_are_checked(folders, weights, words):
    with pytest.raises(sp.ConfigError, match=words):
        mixture(folders, weights=weights)


def test_parts_that_cannot_be_planned_are_refused(folders):
    parts = [sp.stream(str(folders[0])).filter(len), sp.stream(str(folders[1]))]
    with pytest.raises(sp.ConfigError, match="a part of the mixture cannot be planned: stage filter"):
        next(iter(sp.mix(parts, [1, 1]).batch(2).loader()))
    with pytest.raises(sp.ConfigError, match="cannot be planned: stage filter"):
        sp.mix(parts)
    with pytest.raises(sp.ConfigError, match="not batched"):
        sp.mix([sp.stream(str(folders[0])).batch(2), sp.stream(str(folders[1]))])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 12)), min_size=1, max_size=5),
    st.integers(1, 10**6),
    st.integers(0, 100),
)
def test_shares_of_counts_are_exact_in_every_epoch_of_any_size(parts, scale, epoch):
    """Near the end of epoch after epoch, of up to 3 * 10^9 samples: the share of a part is its number of draws."""
    counts = [samples * repeats * scale for samples, repeats in parts]
    total = sum(counts)
    _, before = Shares(counts).owner(np.arange(epoch * total, epoch * total + min(total, 2000)))
    part, number = Shares(counts).owner(np.arange((epoch + 1) * total, (epoch + 1) * total + min(total, 2000)))
    for i, count in enumerate(counts):
        first = number[part == i][:1].tolist()
        assert first in ([], [(epoch + 1) * count])
    assert before.min() >= 0


@pytest.mark.parametrize("size", [6, 7, 50])
@pytest.mark.parametrize("ranks", [1, 2])
def test_repeats_are_exact_in_every_epoch(folders, size, ranks):
    a, b = (sp.stream(str(folder), shuffle=10).assign(dataset=folder.name) for folder in folders)
    for epoch in range(3):
        rows = Counter()
        for rank in range(ranks):
            loader = sp.mix([a, b], repeats=[1, 10]).batch(size).loader(rank=rank, world_size=ranks)
            loader.set_epoch(epoch)
            for batch in loader:
                rows.update(zip(batch["dataset"], batch["__key__"], strict=True))
        assert sorted(set(rows.values())) == [1, 10]
        assert all(times == (1 if name == folders[0].name else 10) for (name, _), times in rows.items())
        assert len(rows) == 72


def test_repeats_come_in_another_order_with_other_random_choices_each_time(folders):
    def rolled(sample, rng):
        return {**sample, "roll": int(rng.integers(1 << 30))}

    b = sp.stream(str(folders[1]), shuffle=True).map(rolled)
    rows = list(sp.mix([b], repeats=[3]))
    passes = [rows[:12], rows[12:24], rows[24:]]
    assert len({tuple(row["__key__"] for row in each) for each in passes}) == 3
    assert len({row["roll"] for row in rows}) == 36


def test_repeats_resume_at_every_step(folders):
    def make():
        parts = [sp.stream(str(folder), shuffle=5) for folder in folders]
        return sp.mix(parts, repeats=[1, 3]).batch(20).loader()

    whole = texts(make())
    for step in range(len(whole)):
        loader = make()
        batches = iter(loader)
        got = [next(batches)["txt"] for _ in range(step)]
        fresh = make()
        fresh.load_state_dict(loader.state_dict())
        assert got + texts(fresh) == whole


@pytest.mark.parametrize("tail", ["short", "drop", "pad"])
def test_the_tail_of_an_epoch_is_as_it_was_asked_for(folders, tail):
    parts = [sp.stream(str(folder)) for folder in folders]
    loader = sp.mix(parts, repeats=[1, 2]).batch(10).loader(tail=tail)
    sizes = [len(batch["txt"]) for batch in loader]
    assert sizes == {"short": [10] * 8 + [4], "drop": [10] * 8, "pad": [10] * 9}[tail]
    assert len(loader) == len(sizes)


@pytest.mark.parametrize(
    ("repeats", "words"), [((1,), "for each of its 2"), ((1, 0), "1 or more"), ((1, 2.5), "1 or more")]
)
def test_repeats_are_checked(folders, repeats, words):
    parts = [sp.stream(str(folder)) for folder in folders]
    with pytest.raises(sp.ConfigError, match=words):
        sp.mix(parts, repeats=repeats)
    with pytest.raises(sp.ConfigError, match="not both"):
        sp.mix(parts, [1, 1], repeats=[1, 1])


@pytest.mark.parametrize("options", [{"repeats": [1, 1]}, {"weights": [1, 1]}])
def test_buckets_behind_a_mixture_refuse_a_part_with_a_limit(folders, options):
    """They were counted without it: the part gave all its samples."""
    parts = [sp.stream(str(folders[0])).take(3), sp.stream(str(folders[1]))]
    with pytest.raises(sp.ConfigError, match=r"its part 0 has take or skip.*use where or sp\.split"):
        len(sp.mix(parts, **options).bucket([(64, 64)]).decode().batch(2).loader())


def test_a_mixture_skips_errors_where_all_of_its_parts_do_and_asks_where_they_differ(tmp_path):
    write_shards(tmp_path / "shards", [12])

    def part(on_error):
        return sp.stream(str(tmp_path / "shards"), on_error=on_error).map(bad)

    skip = sp.ErrorPolicy("skip", max_share=0.5)
    for whole in (sp.mix, sp.concat):
        assert len(list(whole([part(skip), part(skip)]))) == 22
        assert len(list(whole([part("raise"), part(skip)], on_error=skip))) == 22
        with pytest.raises(sp.StageError, match="one of them"):
            list(whole([part("raise"), part("raise")]))
        with pytest.raises(sp.ConfigError, match="one policy for errors, and theirs are .*'raise'.* and .*'skip'"):
            whole([part("raise"), part(skip)])


def bad(sample):
    if sample["__key__"].endswith("7"):
        raise ValueError("one of them")
    return sample
