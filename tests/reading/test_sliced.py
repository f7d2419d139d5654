"""Samples as slices of their shard: what a step gives one by one, it gives by column too."""

import pytest

import streampipe as sp
from streampipe.context import Position
from streampipe.errors import CorruptShard
from streampipe.reading.sliced import OfStep, Parts, Run, Sliced, as_sample
from streampipe.stages.collate import collate
from tests.data import write_shards


def sliced(number, names=("jpg", "txt")):
    return Sliced(f"{number:03d}", "a.tar", Position(0, 0, number), names, [b"%d" % number for _ in names])


def run(*numbers, names=("jpg", "txt")):
    keys, urls, positions, _, fields = zip(*(sliced(number, names) for number in numbers), strict=True)
    return Run(list(keys), list(urls), list(positions), names, [list(each) for each in zip(*fields, strict=True)])


def samples(numbers):
    return [as_sample(sliced(number)) for number in numbers]


FOUND = {
    "one by one": [[sliced(0)], [sliced(1)], [sliced(2)], [sliced(3)], [sliced(4)]],
    "together": [run(0, 1, 2, 3, 4)],
    "in two": [run(0, 1, 2), [sliced(3), sliced(4)]],
    "both": [[sliced(0)], run(1, 2), [sliced(3)], run(4)],
}
each_way = pytest.mark.parametrize("parts", FOUND.values(), ids=FOUND)


@each_way
@pytest.mark.parametrize("first", range(1, 5))
def test_steps_have_their_own_samples_one_by_one_or_by_column(parts, first):
    """However samples were found together."""
    for by_column in range(4):
        found = Parts(iter(parts))
        for step, numbers in enumerate((range(first), range(first, 5))):
            own = OfStep(found, len(numbers))
            if by_column >> step & 1:
                assert own.columns() == collate(samples(numbers))
            assert list(own) == ([] if by_column >> step & 1 else samples(numbers))


@each_way
@pytest.mark.parametrize(
    "odd",
    [[CorruptShard("damaged")], [{"__key__": "001", "jpg": b"1", "txt": b"1"}], run(1, 1, names=("jpg", "json"))],
    ids=["error", "parsed", "other fields"],
)
def test_of_odd_ones_there_are_no_columns_and_every_sample(parts, odd):
    for at in range(len(parts) + 1):
        mixed = [*parts[:at], odd, *parts[at:]]
        every = [each if isinstance(each, CorruptShard) else as_sample(each) for part in mixed for each in part]
        step = OfStep(Parts(iter(mixed)), len(every))
        assert step.columns() is None
        assert list(step) == every


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
