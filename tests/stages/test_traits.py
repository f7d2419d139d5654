"""Law 9: traits are true, a decorated stage equals the plain one in every chain, and a name means nothing."""

import json
import types
from itertools import islice

import pytest

import streampipe as sp
from streampipe import stages
from streampipe.counters import counters
from streampipe.engine.indexed import IndexedEngine
from streampipe.query.condition import Condition
from streampipe.stages.stage import StageDefinition, pushdown_of, traits_of
from streampipe.traits import Batch, Filter, Group, Keeps, Limit, Pack, Rows, Traits
from tests.data import photo, shard
from tests.laws import _plain, check_lazy, check_picklable, check_rows, check_same, check_state, engine_of

BUCKETS = sp.Buckets(base=64, step=8, min=32, max=128)


def jitter(sample, rng):
    return {**sample, "r": int(rng.integers(1 << 30))}


def pieces(sample, rng):
    return [{"r": int(rng.integers(1 << 30))} for _ in range(int(sample["__key__"][-1]))]


def is_odd(sample):
    return int(sample["__key__"]) % 2 == 1


STAGES = {  # by name: what stands before it, the stage, and what stands behind it
    "assign": (lambda p: p, lambda p: p.assign(weight=0.5), lambda p: p.batch(2)),
    "batch": (lambda p: p.decode(16), lambda p: p.batch(2), lambda p: p.select("jpg")),
    "default": (lambda p: p, lambda p: p.default(mask="none"), lambda p: p.batch(2)),
    "bucket": (lambda p: p, lambda p: p.bucket(BUCKETS), lambda p: p.decode(crop="random").batch(2)),
    "caption": (lambda p: p, lambda p: p.caption(dropout=0.5), lambda p: p.batch(2)),
    "clips": (lambda p: p, lambda p: p.clips(1, 4), lambda p: p.decode(16).batch(2)),
    "collect": (lambda p: p, lambda p: p.collect("jpg"), lambda p: p.decode(16).batch(2)),
    "decode": (lambda p: p, lambda p: p.decode(16, crop="random", flip=0.5), lambda p: p.batch(2)),
    "filter": (lambda p: p, lambda p: p.filter(is_odd), lambda p: p.batch(2)),
    "fit": (lambda p: p.decode(), lambda p: p.fit(16, crop="random", flip=0.5), lambda p: p.batch(2)),
    "join": (lambda p: p, lambda p: p.join("{stem}.facts.json"), lambda p: p.batch(2)),
    "map": (lambda p: p, lambda p: p.map(jitter), lambda p: p.batch(2)),
    "drop": (lambda p: p, lambda p: p.drop("txt"), lambda p: p.decode(16).batch(2)),
    "flat_map": (lambda p: p, lambda p: p.flat_map(pieces), lambda p: p.batch(2)),
    "pack": (lambda p: p, lambda p: p.pack(9, "n + 2", window=5), lambda p: p.select("jpg")),
    "rename": (lambda p: p, lambda p: p.rename(image="jpg"), lambda p: p.decode(16).batch(2)),
    "select": (lambda p: p, lambda p: p.select("jpg"), lambda p: p.decode(16).batch(2)),
    "skip": (lambda p: p, lambda p: p.skip(5), lambda p: p.batch(2)),
    "shuffle": (lambda p: p, lambda p: p.shuffle(4), lambda p: p.batch(2)),
    "take": (lambda p: p, lambda p: p.take(5), lambda p: p.batch(2)),
    "unbatch": (lambda p: p.batch(3), lambda p: p.unbatch(), lambda p: p.batch(2)),
    "where": (lambda p: p, lambda p: p.where("n > 2"), lambda p: p.batch(2)),
}
DECORATORS = {
    "timed": sp.timed,
    "logged": sp.logged,
    "on_error": sp.on_error("skip"),
    "retry": sp.retry(first_wait=0),
    "inference": sp.inference,
    "cached": sp.cached(size=100),
    "all": lambda stage: sp.timed(sp.logged(sp.retry(first_wait=0)(sp.on_error("skip")(stage)))),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number, size in enumerate([5, 3, 4]):
        keys = [f"{number}{i:02d}" for i in range(size)]
        rows = [
            (key, {"jpg": photo(int(key), 60 + 20 * i, 80), "txt": f"text {key}", "json": json.dumps({"n": i})})
            for i, key in enumerate(keys)
        ]
        (folder / f"{number:05d}.tar").write_bytes(shard(rows))
        (folder / f"{number:05d}.facts.json").write_text(json.dumps({key: {"score": int(key) / 10} for key in keys}))
    return folder


def stream(shards, tier=None, **options):
    return sp.stream(str(shards / "{00000..00002}.tar"), seed=3, shuffle=4, tier=tier, **options)


def chain(pipe, name, decorate=lambda stage: stage):
    before, add, behind = STAGES[name]
    pipe = before(pipe)
    return behind(pipe.apply(decorate(add(pipe).chain[-1])))


def alone(shards, name):
    """The stage, and what it is given in its chain."""
    pipe = STAGES[name][0](stream(shards, "sequential"))
    return STAGES[name][1](pipe).chain[-1], list(pipe)


def test_every_stage_is_looked_at():
    assert set(STAGES) == {name for name in stages.__all__ if isinstance(getattr(stages, name), StageDefinition)}


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_says_of_itself_is_true(shards, name):
    stage, samples = alone(shards, name)
    check_rows(stage, samples)
    check_state(stage, samples)


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_picklable_and_lazy(shards, name):
    stage, samples = alone(shards, name)
    check_picklable(stage, samples)
    check_lazy(
        stage,
        samples,
        {"batch": 6, "shuffle": 4, "filter": 6, "where": 12, "skip": 6, "flat_map": 6, "pack": 12}.get(name, 1),
    )


@pytest.mark.parametrize("tier", [None, "sequential"])
@pytest.mark.parametrize("decorator", DECORATORS)
@pytest.mark.parametrize("name", STAGES)
def test_a_decorated_stage_equals_the_plain_one_in_a_chain(shards, name, decorator, tier):
    if decorator == "cached" and name in ("batch", "clips", "flat_map", "pack", "shuffle", "skip", "take", "unbatch"):
        with pytest.raises(sp.ConfigError, match="cached works sample by sample"):
            chain(stream(shards, tier), name, DECORATORS[decorator])
        return
    counters.take()
    check_same(chain(stream(shards, tier), name), chain(stream(shards, tier), name, DECORATORS[decorator]))
    runs = not (
        name in ("where", "take", "skip", "bucket", "clips") and (tier is None or name == "bucket")
    )  # the planner, the pools do
    if decorator in ("timed", "all"):
        assert (counters.get(name, "calls") > 0) == runs


@pytest.mark.parametrize("decorator", ["timed", "all"])
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_decorated_stage_goes_on_where_the_plain_one_stopped(shards, name, decorator, tier):
    whole = [_plain(item) for item in chain(stream(shards, tier, epochs=2), name).loader()]
    for stop in (1, 3):
        first = chain(stream(shards, tier, epochs=2), name).loader()
        begun = [_plain(item) for item in islice(first, stop)]
        rest = chain(stream(shards, tier, epochs=2), name, DECORATORS[decorator]).loader()
        rest.load_state_dict(first.state_dict())
        assert begun + [_plain(item) for item in rest] == whole


@pytest.mark.parametrize(
    "name",
    sorted(set(STAGES) - {"batch", "unbatch", "bucket", "flat_map", "pack", "shuffle", "skip", "take", "filter"}),
)
def test_a_decorated_stage_equals_the_plain_one_in_a_mixture(shards, name):
    def mixed(decorate):
        before, add, _ = STAGES[name]
        parts = []
        for _ in range(2):
            pipe = before(stream(shards))
            parts.append(pipe.apply(decorate(add(pipe).chain[-1])))
        return sp.mix(parts, seed=1).batch(2)

    check_same(mixed(lambda stage: stage), mixed(DECORATORS["all"]))


@pytest.mark.parametrize("name", ["caption", "where", "join", "filter"])
def test_a_decorated_stage_equals_the_plain_one_in_write(shards, name, tmp_path):
    def written(folder, decorate):
        pipe = stream(shards)
        pipe = pipe.apply(decorate(STAGES[name][1](pipe).chain[-1]))
        pipe.select("txt").write(str(folder / "{:05d}.tar"), max_samples=4, progress=False)
        return [path.read_bytes() for path in sorted(folder.glob("*.tar"))]

    assert written(tmp_path / "a", lambda stage: stage) == written(tmp_path / "b", DECORATORS["all"])


def instead(sample):
    return {"__key__": sample["__key__"], "jpg": None}


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("action", ["skip", "default"])
def test_on_error_around_decode_is_asked_and_loses_no_other_sample(tmp_path, threads, policy, tier, action):
    rows = [(f"{i}", {"jpg": b"damaged" if i in (1, 2, 5) else photo(i, 40, 40)}) for i in range(8)]
    (tmp_path / "0.tar").write_bytes(shard(rows))
    counters.take()
    stage = sp.on_error(action, value=instead, name="mine")(stages.decode(size=16, threads=threads))
    pipe = sp.stream(str(tmp_path), tier=tier, on_error=policy).apply(stage)
    good = [i for i in range(8) if i not in (1, 2, 5)]
    assert [int(sample["__key__"]) for sample in pipe] == (good if action == "skip" else list(range(8)))
    assert sum(n for (place, what), n in counters.take().sums.items() if place == "mine" and "DecodeError" in what) == 3
    if action == "skip":
        (batch,) = pipe.batch(8)
        assert {int(key) for key in batch["__key__"]} == set(good)
        assert batch["jpg"].shape[1:] == (3, 16, 16)


def named(name, rows="any"):
    """A stage of the user's with any name, which notes what it is given."""

    def passes(samples):
        for sample in samples:
            seen.add(type(sample["jpg"]))
            yield sample

    seen = set()
    own = types.FunctionType(passes.__code__, globals(), name, None, passes.__closure__)
    return sp.stage(rows=rows)(own), seen


@pytest.mark.parametrize("name", [*STAGES, "collate", "anything"])
def test_a_name_means_nothing(shards, name):
    stage, seen = named(name)
    assert stage.__name__ == name
    pipe = stream(shards).select("jpg").apply(stage).decode(16).batch(2)
    assert engine_of(pipe).why == f"stage {name}() may yield more or fewer samples than it is given"
    assert sum(len(batch["__key__"]) for batch in pipe) == 12
    assert seen == {bytes}
    with pytest.raises(sp.ConfigError, match="cannot be planned: stage"):
        sp.mix([stream(shards).apply(stage)])
    stage, seen = named(name, "each")
    pipe = stream(shards).select("jpg").apply(stage).decode(16).batch(2)
    check_same(stream(shards).select("jpg").apply(named(name, "each")[0]).decode(16).batch(2), pipe)
    assert isinstance(engine_of(pipe), IndexedEngine)
    assert seen == {bytes}
    assert len(list(sp.mix([stream(shards).apply(stage)]).batch(4))) == 3


@pytest.mark.parametrize("name", ["map", "decode", "anything"])
def test_an_error_in_a_stage_names_the_sample_whatever_the_stage_is_called(shards, name):
    def fails(samples):
        for sample in samples:
            if sample["__key__"] == "101":
                raise KeyError("width")
            yield sample

    fails.__name__ = name
    for tier in (None, "sequential"):
        with pytest.raises(sp.StageError, match=rf"stage '{name}', sample '101' of .*00001.tar: KeyError: 'width'"):
            list(stream(shards, tier).apply(sp.stage(fails)).batch(2))


def test_an_error_of_a_source_is_not_blamed_on_the_sample_before_it():
    def source():
        yield {"__key__": "fine"}
        raise OSError("gone")

    with pytest.raises(sp.StageError, match=r"OSError: gone") as error:
        list(sp.from_iterable(source).select())
    assert "fine" not in str(error.value)


def test_nothing_is_known_of_a_plain_function():
    assert traits_of(iter) == Traits() == Traits(Rows.ANY, Keeps.OPAQUE)
    assert pushdown_of(iter) is None


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        (stages.where(condition=Condition("n > 1")), Filter),
        (stages.bucket(buckets=BUCKETS), Group),
        (stages.batch(size=3), Batch),
        (stages.pack(budget=9), Pack),
        (stages.take(n=3), Limit),
        (stages.skip(n=3), Limit),
    ],
)
def test_what_the_planner_may_decide_is_told_with_defaults_filled_in(stage, kind):
    for each in (stage, sp.timed(stage)):
        assert isinstance(pushdown_of(each), kind)
    assert pushdown_of(stages.batch(size=3)) == Batch(3, None, "short")
    assert pushdown_of(stages.skip(n=3)) == Limit(3, None)
    assert pushdown_of(stages.take(n=3)) == Limit(0, 3)


# what a stage of the user's declares is checked


@sp.stage(rows="each", state="nothing")
def loses(samples, key: str = "001"):
    for sample in samples:
        if sample["__key__"] != key:
            yield sample


@sp.stage(rows="each")
def tells(samples, run: sp.Run = sp.Run()):  # noqa: B008
    for sample in samples:
        if sample["__key__"] == "001":
            run.drop()
        elif sample["__key__"] == "002":
            run.policy.failed(sp.StageError("bad"), run.stage)
        else:
            run.policy.passed(run.stage)
            yield sample


def doubles(samples):
    for sample in samples:
        yield sample
        yield sample


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_stage_that_declares_each_and_loses_one_is_named(shards, tier):
    with pytest.raises(sp.StageError, match=r"'loses' is declared with rows='each', but yielded \d+ for \d+ .*'fewer'"):
        list(stream(shards, tier).apply(loses).batch(4))
    with pytest.raises(sp.StageError, match="'loses'"):
        list(sp.from_iterable([{"__key__": "001"}]).apply(loses))


@pytest.mark.parametrize("rows", ["each", "fewer"])
@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_stage_that_yields_more_than_it_declares_is_named(shards, tier, rows):
    with pytest.raises(sp.StageError, match=rf"'doubles' .*rows='{rows}', but yielded 2 for 1 .*rows='split'"):
        list(stream(shards, tier).apply(sp.stage(rows=rows)(doubles)).batch(4))
    assert len(list(stream(shards, tier).apply(sp.stage(rows="split")(doubles)))) == 24


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_stage_that_says_what_it_leaves_out_keeps_its_promise_and_slots_are_filled(shards, tier):
    counters.take()
    pipe = stream(shards, tier, on_error="skip").apply(tells).batch(4)
    keys = [key for batch in pipe for key in batch["__key__"]]
    assert {f"{i:03d}" for i in (1, 2)}.isdisjoint(keys)
    assert len(set(keys)) == 10
    assert len(keys) == 12
    assert counters.get("batch", "slots filled") == 2


def test_a_stage_of_each_is_started_anew_for_each_planned_batch(shards):
    @sp.stage(rows="each")
    def numbered(samples):
        for number, sample in enumerate(samples):
            yield {**sample, "number": number}

    pipe = stream(shards).apply(numbered).batch(4)
    assert [batch["number"].tolist() for batch in pipe] == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("add", [
    lambda p: p.select("txt"), lambda p: p.rename(text="txt"), lambda p: p.assign(dataset="a"), lambda p: p.map(len),
    lambda p: p.apply(sp.stage(rows="each")(lambda samples: (yield from samples))),
])  # fmt: skip
def test_one_to_one_stages_behind_batch_stay_planned(shards, add):
    pipe = add(stream(shards).batch(4))
    assert isinstance(engine_of(pipe), IndexedEngine)
    assert len(list(pipe.loader())) == 3


def test_declarations_that_mean_nothing_are_refused():
    with pytest.raises(sp.ConfigError, match="rows is one of 'each', 'fewer', 'batch', 'split', 'any', not 'one'"):
        sp.stage(rows="one")
    with pytest.raises(sp.ConfigError, match="state is one of 'nothing', 'offset', 'opaque', not 'none'"):
        sp.stage(state="none")


# values are checked when a stage is made

WRONG = [
    (stages.assign, {"fields": {"__key__": 1}}, "metadata"),
    (stages.assign, {"fields": 3}, "values by name"),
    (stages.batch, {}, "a size, or pixels="),
    (stages.batch, {"size": 2, "pixels": 9}, "a size, or pixels="),
    (stages.batch, {"size": 0}, "size is a whole number, 1 or more"),
    (stages.batch, {"size": 2.0}, "size is a whole number"),
    (stages.batch, {"size": True}, "size is a whole number"),
    (stages.batch, {"size": 2, "collate": 3}, "collate is a function"),
    (stages.batch, {"size": 2, "tail": "keep"}, "tail is one of 'short', 'drop', 'pad', not 'keep'"),
    (stages.bucket, {"buckets": "sdxl"}, "sp.Buckets"),
    (stages.bucket, {"buckets": BUCKETS, "tail": "keep"}, "tail is one of 'carry', 'merge', 'drop'"),
    (stages.caption, {"dropout": 2}, "dropout"),
    (stages.caption, {"lines": "second"}, "lines"),
    (stages.caption, {"missing": "none"}, "missing"),
    (stages.caption, {"missing": "empty"}, "no longer 'empty': say 'keep'"),
    (stages.caption, {"into": "__key__"}, "into"),
    (stages.decode, {"size": 0}, "size is an edge"),
    (stages.decode, {"size": (1, 2, 3)}, "size is an edge"),
    (stages.decode, {"size": "512"}, "size is an edge"),
    (stages.decode, {"crop": "left"}, "crop is one of"),
    (stages.decode, {"flip": 1.5}, "flip is the share"),
    (stages.decode, {"upscale": 0.5}, "upscale is"),
    (stages.decode, {"upscale": "never"}, "upscale is"),
    (stages.decode, {"output": "torch"}, "output is one of"),
    (stages.decode, {"interpolation": "cubic"}, "interpolation is one of"),
    (stages.decode, {"alpha": "keep"}, "alpha is one of"),
    (stages.decode, {"margin": 0.5}, "margin is"),
    (stages.decode, {"original_size": "file"}, "original_size is one of"),
    (stages.decode, {"threads": -1}, "threads is a whole number"),
    (stages.drop, {"fields": ("__key__",)}, "metadata"),
    (stages.drop, {"fields": ("a",), "missing": "empty"}, "missing is one of"),
    (stages.filter, {"fn": 3}, "fn is a function"),
    (stages.flat_map, {"fn": None}, "fn is a function"),
    (stages.fit, {"size": -3}, "size is an edge"),
    (stages.fit, {"flip": -1}, "flip is the share"),
    (stages.fit, {"fields": "image"}, "fields is a tuple"),
    (stages.join, {"sidecar": "a.json", "missing": "empty"}, "missing"),
    (stages.join, {"sidecar": "a.json", "on": 3}, "on is a column"),
    (stages.map, {"fn": "upper"}, "fn is a function"),
    (stages.map, {"fn": len, "field": 3}, "field is the name"),
    (stages.map, {"fn": len, "threads": 1.5}, "threads is a whole number"),
    (stages.rename, {"names": {"a": 3}}, "new names with the old ones"),
    (stages.select, {"fields": "jpg"}, "fields is a tuple"),
    (stages.shuffle, {"size": -1}, "size is a whole number, 0 or more"),
    (stages.skip, {"n": -1}, "n is a whole number, 0 or more"),
    (stages.take, {"n": 1.5}, "n is a whole number, 0 or more"),
    (stages.where, {"condition": "n > 1"}, "condition is a Condition"),
]


@pytest.mark.parametrize(("define", "options", "words"), WRONG)
def test_wrong_values_are_refused_when_the_stage_is_made(define, options, words):
    with pytest.raises(sp.ConfigError, match=words):
        define(**options)
    with pytest.raises(sp.ConfigError, match=words):
        sp.timed(define)(**options)


def test_a_misspelt_parameter_is_answered_with_the_right_one():
    with pytest.raises(sp.ConfigError, match=r"unexpected keyword argument 'cropp'; did you mean crop=\?"):
        stages.decode(cropp="random")


def test_a_stage_knows_all_its_options_and_shows_those_that_were_given():
    stage = stages.decode(size=16)
    assert stage.options["flip"] == 0.0
    assert stage.options["size"] == 16
    assert "samples" not in stage.options
    assert repr(stage) == "decode(size=16)"
    assert repr(sp.timed(stage)) == "decode(size=16)"


def test_a_cached_stage_gives_each_epoch_its_own_positions_and_each_option_its_own_values():
    rows = [{"__key__": "a", "n": 1}]
    pipe = sp.from_iterable(rows, epochs=2).apply(sp.cached(stages.assign(fields={"w": 1})))
    assert [sample["__position__"].epoch for sample in pipe] == [0, 1]

    @sp.cached
    @sp.stage
    def plus(samples, by: int = 1):
        for sample in samples:
            yield sample + by

    assert list(plus(by=1)([1])) == [2]
    assert list(plus(by=2)([1])) == [3]


def test_a_resume_between_what_a_stage_made_of_one_sample_loses_nothing(shards):
    def loader():
        return stream(shards, None).apply(sp.stage(rows="split", state="nothing")(doubles)).loader()

    whole = [sample["__key__"] for sample in loader()]
    for stop in (1, 2):
        first, second = loader(), loader()
        begun = [sample["__key__"] for sample in islice(first, stop)]
        second.load_state_dict(first.state_dict())
        assert begun + [sample["__key__"] for sample in second] == whole
