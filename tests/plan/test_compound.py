"""Compound buckets: one signature a batch, the same in both tiers and on any ranks; what is missing is said."""

import io
import pickle
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

import streampipe as sp
from streampipe.counters import counters
from streampipe.index import ShardIndex
from streampipe.index.columns import Columns
from streampipe.index.table import IMAGES, make
from streampipe.plan.compound import LACKS, NONE, Compound, Signature, Signatures
from streampipe.plan.sorter import Occurring
from tests.data import shard
from tests.laws import consumers, run

TARGET, REF = [(16, 16), (16, 32)], sp.Buckets([(8, 8), (16, 8)])
COMPOUND = sp.Compound(TARGET, ref=REF, missing="keep")


def image(height, width):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def fields(number):
    """A sample with 0 to 2 references; targets and references are of two shapes each."""
    found = {"jpg": image(20, (20, 40)[number % 2]), "txt": f"{number}"}
    return found | {f"ref.{i}.jpg": image((10, 20)[number // 3 % 2], 10) for i in range(number % 3)}


def write(folder, counts, make=fields, first=0):
    keys = []
    for i, count in enumerate(counts):
        rows = [(f"{first + len(keys) + j:04d}", make(first + len(keys) + j)) for j in range(count)]
        (folder / f"{i:05d}.tar").write_bytes(shard(rows))
        keys += [key for key, _ in rows]
    return keys


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return folder, write(folder, [17, 5, 20, 18])


def edits(folder, size=4, compound=COMPOUND, leftover="carry", **options):
    pipe = sp.stream(str(folder), **{"seed": 3, "shuffle": 8, **options}).bucket(compound, tail=leftover)
    return pipe.collect("ref", least=0).decode(flip=0.5).batch(size)


def signatures(batches):
    return {key: size for b in batches for key, size in zip(b["__key__"], b["__size__"], strict=True)}


RULES = [REF, sp.Buckets([(8, 8), (16, 8)], max_ar=2), sp.Area(64, 4), (8, 16), None]
edge = some.integers(0, 40)
sized = some.tuples(edge, edge)


@settings(max_examples=60, deadline=None)
@given(
    some.lists(
        some.tuples(some.tuples(some.integers(1, 40), some.integers(1, 40)), some.lists(sized, max_size=3)), max_size=6
    ),
    some.sampled_from(RULES),
    some.sampled_from(["error", "keep", "drop"]),
    some.sampled_from([None, 2.0]),
)
def test_an_index_and_a_sample_say_the_same(samples, rule, missing, max_ar):
    compound = Compound(sp.Buckets(TARGET, max_ar=max_ar), missing=missing, ref=rule)
    others = [{f"ref.{i}": size for i, size in enumerate(each)} for _, each in samples]
    one_by_one = [compound.of_sizes(*target, mine) for (target, _), mine in zip(samples, others, strict=True)]
    columns = [
        {
            f"{name}.image.{what}": n
            for name, size in mine.items()
            for what, n in zip(("height", "width"), size, strict=True)
        }
        for mine in others
    ]
    own = {"size": 512, "crc32": 0, "fields": []}
    rows = [{"key": f"{i}", "offset": 512 * i, "height": h, "width": w, **own} for i, ((h, w), _) in enumerate(samples)]
    index = make(rows, Columns(columns), {"bytes": 512 * len(rows) + 1024})
    found = Occurring(compound, None).find(index, np.array([len(index)])).numbers
    wanted = [each for each in one_by_one if isinstance(each, Signature)]
    assert Counter(map(Signatures.to_text, wanted)) == found
    known = Signatures(compound, map(Signatures.of_text, found))
    h, w = np.array([target for target, _ in samples], np.int64).reshape(-1, 2).T
    numbers = known.numbers(index, np.arange(len(index)), h, w).tolist()
    assert [known.sizes[n] if n >= 0 else n for n in numbers] == one_by_one


def test_every_batch_has_one_signature_and_both_tiers_agree_on_it(pairs):
    folder, keys = pairs
    found = {}
    for tier in ("planned", "sequential"):
        epochs = 4 if tier == "planned" else 1
        batches = (
            list(islice(edits(folder, tier=tier, epochs=None), 60)) if epochs == 4 else list(edits(folder, tier=tier))
        )
        for batch in batches:
            (size,) = set(batch["__size__"])
            assert batch["jpg"].shape[2:] == tuple(size)
            assert [each.shape for each in batch["ref"]] == [(len(batch["jpg"]), 3, *s) for _, s in size.others]
        found[tier] = signatures(batches)
        assert set(found[tier]) == set(keys)
    assert found["planned"] == found["sequential"]
    assert len(set(found["planned"].values())) == 6


def test_ranks_and_workers_do_not_matter_and_a_run_goes_on_at_any_step(pairs):
    folder, _ = pairs
    alone = [each["__key__"] for each in edits(folder, 6).loader()]
    for ranks, workers in ((2, 1), (3, 2)):
        pipe = edits(folder, 6 // ranks)
        got = {(c.rank, c.worker): [b["__key__"] for b in run(pipe, c, 0)] for c in consumers(ranks, workers)}
        for step, whole in enumerate(alone):
            of_ranks = [got[rank, step % workers][step // workers] for rank in range(ranks)]
            assert [key for slot in zip(*of_ranks, strict=True) for key in slot] == whole
    loader = edits(folder).loader()
    whole = [each["__key__"] for each in chain(loader, loader)]
    for stop in (1, 5, len(loader), len(loader) + 2):
        first, again = edits(folder).loader(), edits(folder).loader()
        for _ in islice(chain(first, first), stop):
            state = first.state_dict()
        again.load_state_dict(pickle.loads(pickle.dumps(state)))
        rest = [each["__key__"] for each in again]
        rest += [each["__key__"] for each in again] if stop < len(loader) else []
        assert rest == whole[stop:], stop
    assert sum(1 for each in whole for _ in each) > 100


def test_pools_go_on_where_they_stopped(pairs):
    whole = [each["__key__"] for each in edits(pairs[0], tier="sequential").loader()]
    for stop in (1, 7):
        first, again = (edits(pairs[0], tier="sequential").loader() for _ in range(2))
        for _ in islice(first, stop):
            state = first.state_dict()
        again.load_state_dict(state)
        assert [each["__key__"] for each in again] == whole[stop:]


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_a_missing_or_damaged_reference_is_declared_or_an_error_that_names_the_sample(tmp_path, tier):
    def some_broken(number):
        found = fields(2)
        if number == 3:
            del found["ref.0.jpg"], found["ref.1.jpg"]
        return found | ({"ref.1.jpg": b"no image"} if number == 5 else {})

    write(tmp_path, [8], some_broken)

    def keys(missing, **options):
        compound = sp.Compound(TARGET, ref=REF, missing=missing)
        pipe = sp.stream(str(tmp_path), tier=tier, **options).bucket(compound, tail="carry")
        return sorted(key for batch in pipe.collect("ref", least=0).decode().batch(1) for key in batch["__key__"])

    with pytest.raises(sp.StageError, match=r"lack ref|it lacks ref") as error:
        keys("error")
    assert "'0003'" in str(error.value)
    names = [f"{i:04d}" for i in range(8)]
    assert keys("error", on_error="skip") == [n for n in names if n not in ("0003", "0005")]
    assert keys("keep", on_error="skip") == [n for n in names if n != "0005"]
    before = counters.snapshot()
    assert keys("drop", on_error="skip") == [n for n in names if n not in ("0003", "0005")]
    told = {
        what: n - before.get((stage, what), 0) for (stage, what), n in counters.snapshot().items() if stage == "bucket"
    }
    assert sum(n for what, n in told.items() if "without ref" in what) == 1


def test_a_mixture_has_one_set_of_signatures(tmp_path, pairs):
    other = tmp_path / "other"
    other.mkdir()
    write(other, [30], lambda n: {"jpg": image(20, 20), "ref.0.jpg": image(20, 10), "txt": f"{n}"}, first=1000)
    parts = [sp.stream(str(pairs[0]), seed=1, shuffle=8), sp.stream(str(other), seed=2, shuffle=8)]
    pipe = sp.mix(parts, weights=[1, 1]).bucket(COMPOUND).collect("ref", least=0).decode().batch(4)
    batches = list(pipe)
    assert all(len(set(each["__size__"])) == 1 for each in batches)
    both = [b for b in batches if {key >= "1000" for key in b["__key__"]} == {True, False}]
    assert both
    assert {str(b["__size__"][0]) for b in both} == {"16x16 + ref.0 16x8"}


def test_an_index_of_an_older_version_is_not_guessed_from(tmp_path):
    write(tmp_path, [6, 6])
    sp.index(str(tmp_path), progress=False)
    places = sorted(tmp_path.glob("*.index.parquet"))
    for place in places:
        found = ShardIndex.from_bytes(place.read_bytes(), place.name)
        names = [name for name in found.names if ".image." not in name]
        facts = {name: value for name, value in found.facts.items() if name != IMAGES}
        place.write_bytes(ShardIndex(found.table.select(names), facts).to_bytes())
    assert len(list(sp.stream(str(tmp_path)).where("width > 0"))) == 12
    pipe = edits(tmp_path, 1)
    assert "does not know the sizes of references" in pipe.explain().replace("\n", " ")
    assert len(signatures(pipe)) == 12
    assert sp.index(str(tmp_path), progress=False).kept == 0  # they are made anew
    assert "batches are planned" in edits(tmp_path, 1).explain()


def test_a_batch_is_sized_by_the_target_or_by_the_pixels_of_all_images(pairs):
    sizes = {(16, 16): 2, (16, 32): 3}
    for batch in islice(edits(pairs[0], sizes), 12):
        assert len(batch["__key__"]) == sizes[tuple(batch["__size__"][0])]
    for tier in ("planned", "sequential"):
        pipe = sp.stream(str(pairs[0]), tier=tier).bucket(COMPOUND).collect("ref", least=0).decode().batch(pixels=1024)
        most = Counter()
        for batch in pipe:
            most[batch["__size__"][0]] = max(most[batch["__size__"][0]], len(batch["__key__"]))
        assert all(n == 1024 // size.pixels for size, n in most.items() if n > 2)


def test_references_keep_their_size_or_have_an_area_and_may_be_renamed(pairs):
    folder, _ = pairs
    compound = sp.Compound(TARGET, ref=None, missing="keep")
    pipe = sp.stream(str(folder)).bucket(compound).collect("ref", least=0).decode().batch(2, pad={"ref": 0})
    shapes = {tuple(b["ref"].shape) for b in pipe if b["__size__"][0].others}
    assert shapes == {(2, n, 3, h, 10) for n in (1, 2) for h in (10, 20)}
    pipe = sp.stream(str(folder)).where("ref[0].image.width == 10 and ref[1].image.height > 0")
    pipe = pipe.bucket(sp.Compound(TARGET, ref=sp.Area(64, 4))).rename(a="ref.0.jpg", b="ref.1.jpg").decode()
    assert {(tuple(s["a"].shape[1:]), tuple(s["b"].shape[1:])) for s in pipe} == {((8, 8), (8, 8)), ((12, 4), (12, 4))}
    with pytest.raises(sp.ConfigError, match="a size from bucket, and one from size="):
        list(sp.stream(str(folder)).bucket(compound).decode({"ref": 8}))


def test_it_is_a_value_and_refuses_what_cannot_be():
    again = pickle.loads(pickle.dumps(COMPOUND))
    assert again == COMPOUND != sp.Compound(TARGET, ref=REF)
    assert hash(again) == hash(COMPOUND)
    signature = Signature((8, 8), {"ref.0": (4, 4), "control": None})
    assert pickle.loads(pickle.dumps(signature)) == signature == Signatures.of_text(Signatures.to_text(signature))
    assert signature != Signature((8, 8))
    assert signature.pixels == 80
    assert COMPOUND.of_sizes(20, 20, {}) == Signature((16, 16))
    assert (
        COMPOUND.of_sizes(20, 20, {"ref": (0, 0)}),
        sp.Compound(TARGET, ref=REF, missing="drop").of_sizes(9, 9, {}),
    ) == (LACKS, NONE)
    for wrong, words in (
        ({}, "a rule for each"),
        ({"ref": "huge"}, "no buckets"),
        ({"ref": 0}, "Compound: ref is"),
        ({"ref": 8, "missing": "x"}, "missing"),
    ):
        with pytest.raises(sp.ConfigError, match=words):
            sp.Compound(TARGET, **wrong)
    with pytest.raises(sp.ConfigError, match="tail='merge'"):
        sp.stream("{0..1}.tar").bucket(COMPOUND, tail="merge")
    many = (Signature((8, 8), {"ref.0": (h, w)}) for h in range(1, 66) for w in range(1, 66))
    with pytest.raises(sp.ConfigError, match="4225 signatures"):
        Signatures(COMPOUND, many)
