"""Samples as slices of their shard: what a step gives one by one, it gives by column too."""

import pytest

import streampipe as sp
from streampipe.context import Position
from streampipe.errors import CorruptShard
from streampipe.reading.sliced import OfStep, Sliced, as_sample
from streampipe.stages.collate import collate
from tests.data import write_shards


def sliced(number, names=("jpg", "txt")):
    return Sliced(f"{number:03d}", "a.tar", Position(0, 0, number), names, [b"%d" % number for _ in names])


def test_columns_are_the_batch_of_the_samples():
    rows = [sliced(i) for i in range(4)]
    assert OfStep(iter(rows), 4).columns() == collate([as_sample(each) for each in rows])


def test_a_step_takes_its_own_samples_alone():
    rows = iter([sliced(i) for i in range(5)])
    assert OfStep(rows, 2).columns()["__key__"] == ["000", "001"]
    assert [each["__key__"] for each in OfStep(rows, 2)] == ["002", "003"]


@pytest.mark.parametrize(
    "odd",
    [CorruptShard("damaged"), {"__key__": "001", "jpg": b"1", "txt": b"1"}, sliced(1, ("jpg", "json"))],
    ids=["error", "parsed", "other fields"],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_of_odd_ones_there_are_no_columns_and_every_sample(odd, at):
    rows = [sliced(0), sliced(2)]
    rows.insert(at, odd)
    step = OfStep(iter(rows), 3)
    assert step.columns() is None
    assert list(step) == [each if isinstance(each, CorruptShard) else as_sample(each) for each in rows]


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_by_column_are_those_of_a_collate_that_is_given(tmp_path, shuffle):
    """Which is never made by column; and what is counted is the same."""
    write_shards(tmp_path, [7, 9, 4])
    sp.index(tmp_path)
    reports = []
    for options in ({}, {"collate": collate}):
        loader = sp.stream(tmp_path, shuffle=shuffle).batch(3, **options).loader()
        batches = list(loader)
        reports.append((batches, [(each.name, each.samples_in, each.samples_out) for each in loader.summary().stages]))
    assert reports[0] == reports[1]
    assert reports[0][1] == [("reading", 20, 20), ("batch", 20, 7)]


def test_a_damaged_sample_of_a_batch_is_told_or_replaced(tmp_path):
    write_shards(tmp_path, [8])
    sp.index(tmp_path)
    path = tmp_path / "00000.tar"
    data = bytearray(path.read_bytes())
    data[512] ^= 1  # the first field of the first sample
    path.write_bytes(data)
    with pytest.raises(CorruptShard, match="crc32"):
        list(sp.stream(tmp_path).batch(4))
    batches = list(sp.stream(tmp_path, on_error=sp.ErrorPolicy("skip", max_share=1.0)).batch(4))
    assert [len(set(batch["__key__"])) for batch in batches] == [3, 4]
    assert all(len(batch["__key__"]) == 4 for batch in batches)
