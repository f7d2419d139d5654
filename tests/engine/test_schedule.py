"""A mixture with a schedule: the same batches on any job, from any step, and another schedule after a resume."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import streampipe as sp
from tests.data import photo, shard, write_shards

PAGE = Path(__file__).parents[2] / "docs" / "mixing.md"
RAMP = sp.Schedule({0: [3, 1], 4: [1, 1], 8: [1, 0], 16: [0, 1]}, linear=True)
OTHER = sp.Schedule([1, 9])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for name, counts in {"a": [20, 30, 10], "b": [7, 5], "c": [9]}.items():
        found[name] = tmp_path_factory.mktemp(name)
        write_shards(found[name], counts)
    return found


@pytest.fixture
def part(folders):
    return lambda name: sp.stream(str(folders[name]), shuffle=10).assign(part=name)


@pytest.fixture
def pipe(part):
    def make(weights=RAMP, size=6, epochs=3):
        return sp.mix([part("a"), part("b")], weights, epochs=epochs).batch(size)

    return make


def rows(batches):
    return [list(zip(batch["part"], batch["__key__"], strict=True)) for batch in batches]


def parts_of(batches):
    return [dict(Counter(part for part, _ in batch)) for batch in batches]


def taken(loader, steps):
    batches = iter(loader)
    return rows(next(batches) for _ in range(steps)), json.loads(json.dumps(loader.state_dict()))


def resumed(pipe, *states, **options):
    loader = pipe.loader(**options)
    loader.load_state_dict(*states)
    return loader


def test_steps_have_the_shares_of_the_schedule_and_parts_are_used_up_before_they_repeat(pipe):
    loader = pipe().loader()
    whole = rows(loader)
    assert len(loader) == len(whole) == 36
    assert [len(batch) for batch in whole] == [6] * 36
    assert parts_of(whole[7:9]) == [{"a": 5, "b": 1}, {"a": 6}]
    assert parts_of(whole[16:]) == [{"b": 6}] * 20
    ours = [row for batch in whole for row in batch if row[0] == "b"]
    rounds = [ours[i : i + 12] for i in range(0, len(ours) - 11, 12)]
    assert all(len(set(each)) == 12 for each in rounds)
    assert len({tuple(each) for each in rounds}) == len(rounds) == 13
    assert f"{len(ours) // 12} times that part 1 began anew" in loader.report()


def test_a_scheduled_mixture_resumes_at_every_step_on_any_ranks_and_workers(pipe):
    whole = rows(pipe(epochs=2).loader())
    for step in range(len(whole)):
        got, state = taken(pipe(epochs=2).loader(), step)
        if step % 12 != 9:
            assert got + rows(resumed(pipe(epochs=2), state)) == whole
            continue
        loaders = [pipe(size=3, epochs=2).loader(num_workers=2 * rank, rank=rank, world_size=2) for rank in range(2)]
        for loader in loaders:
            loader.load_state_dict(state)
        both = [sorted(a + b) for a, b in zip(*map(rows, loaders), strict=True)]
        assert both == [sorted(batch) for batch in whole[step:]]


def test_passes_of_steps_and_set_epoch_are_parts_of_one_run(pipe):
    whole = rows(pipe(epochs=4).loader())
    loader = pipe(epochs=None).loader(steps_per_epoch=5)
    assert [rows(loader) for _ in range(4)] == [whole[i : i + 5] for i in range(0, 20, 5)]
    loader = pipe(epochs=1).loader()
    loader.set_epoch(2)
    assert rows(loader) == whole[24:36]


@pytest.mark.parametrize("step", [0, 7, 10, 20])
def test_a_schedule_that_is_changed_at_a_resume_counts_from_that_step_on(pipe, step):
    whole = rows(pipe().loader())
    _, state = taken(pipe().loader(), step)
    changed = rows(resumed(pipe(OTHER), state))
    for n in range(len(changed)):
        had = sum(parts.get("b", 0) for parts in parts_of(changed[: n + 1]))
        assert abs(had - 0.9 * 6 * (n + 1)) <= 3
    seen = [row for batch in [*whole[:step], *changed] for row in batch if row[0] == "b"]
    assert all(len(set(seen[i : i + 12])) == 12 for i in range(0, len(seen) - 11, 12))
    _, state = taken(resumed(pipe(OTHER), state), 3)
    assert rows(resumed(pipe(OTHER), state)) == changed[3:]
    for back in range(max(0, step - 2), step + 3):
        again = sp.replay(pipe(OTHER), state, back)
        assert rows([again])[0] == [*whole[:step], *changed][back]


def test_another_batch_goes_on_with_the_same_draws_and_shares(pipe):
    _, state = taken(pipe().loader(), 10)
    loader = resumed(pipe(size=12), state)
    assert len(loader) == 10 + (3 * 72 - 60) // 12
    rest = rows(loader)
    assert len(rest) == 13
    whole = rows(pipe(epochs=4).loader())
    for name, samples in (("a", 60), ("b", 12)):
        seen = [row for batch in [*whole[:10], *rest] for row in batch if row[0] == name]
        assert all(len(set(seen[i : i + samples])) == samples for i in range(0, len(seen) - samples + 1, samples))
    assert parts_of(rest[6:]) == [{"b": 12}] * 7  # step 16 is the sixth of them
    with pytest.raises(sp.ConfigError, match="lies before this run began or went on with another global batch"):
        sp.replay(pipe(size=12), taken(resumed(pipe(size=12), state), 2)[1], 3)


def test_mixtures_in_mixtures_multiply_their_shares_at_every_step(part):
    inner = sp.mix([part("a"), part("c")], sp.Schedule({0: [1, 0], 10: [0, 1]}, linear=True))
    outer = sp.mix([inner.assign(inner=True), part("b").assign(inner=False)], sp.Schedule({0: [1, 1], 5: [3, 1]}))
    batches = list(outer.batch(8).loader())
    found = parts_of(rows(batches))
    assert found[0] == {"a": 4, "b": 4}
    assert found[9] == {"a": 1, "c": 5, "b": 2}
    assert batches[0]["inner"].tolist() == [name != "b" for name in batches[0]["part"]]
    constant = sp.mix([sp.mix([part("a"), part("b")], [1, 3]), part("c")], [1, 1]).batch(8)
    assert parts_of(rows(constant.loader()))[:2] == [{"a": 1, "b": 3, "c": 4}] * 2
    repeated = sp.mix([sp.mix([part("a"), part("b")], repeats=[1, 2]), part("c")], repeats=[1, 3]).batch(8)
    times = Counter(row for batch in rows(repeated.loader()) for row in batch)
    assert {name: {n for (each, _), n in times.items() if each == name} for name in "abc"} == {
        "a": {1},
        "b": {2},
        "c": {3},
    }


def test_explain_draws_the_schedule(pipe):
    drawn = pipe().explain()
    assert "  part 0     |▆▆▅▅▄▅▆▇█▇▆▅▄▃▂▁     | of 60 samples" in drawn
    assert "steps 0 to 20" in drawn
    assert "  step 8     100 0 %, changing up to the next" in drawn


def test_what_a_schedule_cannot_do_is_refused_with_what_to_do(pipe, part, tmp_path):
    with pytest.raises(sp.ConfigError, match="mix has 1 pipelines, and its schedule weights for 2"):
        sp.mix([part("a")], RAMP)
    with pytest.raises(sp.ConfigError, match="tail= has no meaning"):
        next(iter(pipe().loader(tail="drop")))
    mixed = sp.mix([part("a"), part("b")], RAMP)
    with pytest.raises(sp.ConfigError, match="put them into the parts"):
        next(iter(mixed.take(5).batch(2).loader()))
    with pytest.raises(sp.ConfigError, match="needs batches that are planned"):
        next(iter(mixed.filter(len).batch(2).loader()))
    with pytest.raises(sp.ConfigError, match="write has no steps of training"):
        mixed.write(str(tmp_path / "{:05d}.tar"))
    with pytest.raises(sp.ConfigError, match="concat as a part"):
        next(iter(sp.mix([sp.concat([part("a"), part("b")]), part("c")]).loader()))
    _, state = taken(pipe().loader(), 3)
    with pytest.raises(sp.ConfigError, match="the state is of a pipeline with a schedule, unlike this one"):
        resumed(pipe([3, 1]), state)
    three = sp.mix([part("a"), part("b"), part("c")], sp.Schedule([1, 1, 1])).batch(6)
    with pytest.raises(sp.ConfigError, match="the fingerprint of the mixture|the number of samples is"):
        resumed(three, state)


@pytest.mark.parametrize(
    "change",
    [
        {"had": [32, 17]},
        {"had": [32]},
        {"due": ["129/4", "1e9"]},
        {"due": ["1/0", "1"]},
        {"shares": [["1", "-1/8"]]},
        {"shares": [[], []]},
        {"steps": [8, 8]},
        {"steps": [8, None]},
        {"steps": [8]},
        {"batch": 0},
        {"draw": "48"},
    ],
)
def test_a_damaged_state_is_refused(pipe, change):
    _, state = taken(pipe().loader(), 10)
    *others, leg = state["course"]["legs"]
    damaged = {**state, "course": {**state["course"], "legs": [*others, {**leg, **change}]}}
    with pytest.raises(sp.ConfigError, match="this is no state of streampipe: a leg of its course is"):
        resumed(pipe(), damaged)


def test_the_code_of_the_page_on_mixing_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "art", "paintings"):
        write_shards(tmp_path / name, [20, 30])
    (tmp_path / "images").mkdir()
    images = [photo(i, 80 + 40 * i, 80) for i in range(2)]
    samples = [(f"{i:02d}", {"jpg": images[i % 2]}) for i in range(20)]
    (tmp_path / "images" / "0.tar").write_bytes(shard(samples))
    there = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), there)
    assert re.search(r"part 1 +\| ▁", capsys.readouterr().out)
    sources = [batch["source"].count("art") for batch in there["resumed"]]
    assert sum(sources) >= 3 * 14
    assert set(next(iter(there["nested"]))["source"]) == {"photos", "art", "paintings"}
    sizes = [(batch["base"][0].item(), len(batch["base"])) for batch in there["both"].loader()]
    assert {base for base, _ in sizes} == {512, 1024}
    assert sum(size for base, size in sizes if base == 1024) >= 6
    assert {len(batch["jpg"]) for batch in there["largest"]} == {8}
    assert next(iter(there["later"]))["jpg"].shape[0] == 8
