"""Each dataset of a plan is read in its own way: forward, at random, or ahead of need."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.engine.compile import compile
from streampipe.plan.planned import Place
from streampipe.reading.forward import Track
from streampipe.reading.reader import OpenShards, Reader
from streampipe.reading.sliced import Sliced, as_sample
from streampipe.spec import Job
from streampipe.testing import FaultServer
from tests.data import shard


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Shards that are counted, and others that are indexed, of ten samples each."""
    folder = tmp_path_factory.mktemp("shards")
    rows = {
        name: [(f"{name}{i}", {"json": json.dumps({"n": i}), "txt": name}) for i in range(10)] for name in ("a", "b")
    }
    (folder / "b.tar").write_bytes(shard(rows["b"]))
    sp.index(folder, progress=False)
    objects = {f"indexed/{path.name}": path.read_bytes() for path in folder.iterdir()}
    objects |= {"counted/a.tar": shard(rows["a"]), "counted/sizes.json": b'{"a.tar": 10}'}
    with FaultServer(objects) as running:
        yield running


def keys(pipe):
    return [sample["__key__"] for sample in pipe]


def test_a_condition_holds_for_an_indexed_part_beside_one_that_is_only_counted(server):
    counted = sp.stream(server.url("counted/a.tar")).select("txt")
    indexed = sp.stream(server.url("indexed/b.tar")).where("n % 2 == 0").select("txt")
    assert sorted(keys(sp.mix([counted, indexed]))) == [
        *(f"a{i}" for i in range(10)),
        *(f"b{i}" for i in range(0, 10, 2)),
    ]


def test_take_and_skip_of_what_is_only_counted(server):
    pipe = sp.stream(server.url("counted/a.tar"), tier="planned")
    assert keys(pipe.take(3)) == ["a0", "a1", "a2"]
    assert keys(pipe.skip(2).take(3)) == ["a2", "a3", "a4"]
    assert len(pipe.take(3).batch(2).loader()) == 2


SIZES = (0, 1, 511, 512, 9_000, 70_000, 140_000, 530_000)
"""Of fields: several fit into what is read at once, one, or none."""


def dataset_of(folder, sizes, checksums, damage, condition):
    """A dataset of two shards of samples of these sizes, in which a byte may be another one than was indexed."""
    for name in ("a", "b"):
        rows = [(f"{name}{i}", {"bin": b"x" * n, "json": json.dumps({"n": i})}) for i, n in enumerate(sizes)]
        (folder / f"{name}.tar").write_bytes(shard(rows))
    if checksums:
        sp.index(folder, progress=False)
    pipe = sp.stream(folder)
    if condition:
        pipe = pipe.where("n % 3 != 1")
    found = compile(pipe.spec, Job(1)).plan.dataset
    path = folder / "a.tar"
    data = bytearray(path.read_bytes())
    for at in damage:
        data[at % len(data)] ^= 1
    path.write_bytes(data)
    return found


def seen(found):
    return found if isinstance(found, dict) else (type(found), str(found))


def told(sample):
    """A sample with its views as what they show."""
    sample = as_sample(sample) if type(sample) is Sliced else sample
    return (
        {k: bytes(v) if isinstance(v, memoryview) else v for k, v in sample.items()} if type(sample) is dict else sample
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(SIZES), min_size=1, max_size=12),
    st.booleans(),
    st.lists(st.integers(0, 1 << 30), max_size=2),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_samples_that_are_read_together_are_those_that_are_read_alone(sizes, checksums, damage, condition, views, data):
    with TemporaryDirectory() as folder, patch("streampipe.reading.reader._AT_ONCE", 512 << 10):
        dataset = dataset_of(Path(folder), sizes, checksums, damage, condition)
        every = [Place(k, i, 0) for k in range(2) for i in range(int(dataset.counts[k]))]
        cuts = data.draw(st.lists(st.integers(0, len(every)), max_size=4).map(sorted))
        shuffled = data.draw(st.permutations(every)) if data.draw(st.booleans()) else every
        steps = [(n, shuffled[a:b]) for n, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(every)], strict=True))]
        together = [
            (at, [seen(told(each)) for each in found]) for at, _, found in Reader([dataset], 4).read(iter(steps), views)
        ]
        alone = OpenShards(4)
        # as views: large ones are then cut out of what was read, and not read field by field
        one_by_one = [(at, [seen(told(alone.samples(dataset, [p], True)[0])) for p in places]) for at, places in steps]
        assert together == one_by_one


def test_what_nobody_asks_for_of_a_step_is_not_given_to_the_next(tmp_path):
    dataset = dataset_of(tmp_path, [100] * 6, True, [], False)
    steps = [(n, [Place(0, 2 * n, 0), Place(0, 2 * n + 1, 0)]) for n in range(3)]
    assert [next(found)["__key__"] for _, _, found in Reader([dataset], 4).read(iter(steps), False)] == [
        "a0",
        "a2",
        "a4",
    ]


class Odd:
    """Samples in one shard, of which the third cannot be read."""

    shards = ("x/a.odd",)

    def __init__(self, error):
        self.error = error

    def counts(self):
        return [5]

    def read(self, shard, first=0):
        for number in range(first, 5):
            if number == 2:
                try:
                    raise ValueError("the reason")
                except ValueError as reason:
                    raise self.error from reason
            yield {"__key__": f"{number}"}


@pytest.mark.parametrize("error", [sp.CorruptShard("x/a.odd is damaged"), sp.SourceUnavailable("x/a.odd is away")])
def test_an_error_that_is_met_again_is_the_same_one_with_its_cause(error):
    dataset = sp.stream(Odd(error)).source.dataset()
    track = Track(dataset, 0, 0, 0, None)
    assert [track.take(number, 9)["__key__"] for number in range(2)] == ["0", "1"]
    for number in (2, 3):
        with pytest.raises(type(error), match=str(error)) as met:
            track.take(number, 9)
        assert met.value.__cause__ is error
        assert isinstance(error.__cause__, ValueError)
