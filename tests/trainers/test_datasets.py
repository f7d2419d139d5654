"""Hugging Face datasets: a pipeline as an IterableDataset, and one as a source; each sample once, states go on."""

import itertools
import re
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe.testing import check_source
from tests.data import photo

datasets = pytest.importorskip("datasets")
from_streampipe = pytest.importorskip("streampipe.compat.datasets").from_streampipe
DatasetSource = pytest.importorskip("streampipe.compat.datasets").DatasetSource


def keys(samples):
    return [sample["__key__"] for sample in samples]


def pipe(folder, **options):
    return sp.stream(folder, shuffle=8, seed=3, **options).decode()


@pytest.mark.parametrize("shares", [1, 2])
def test_a_state_goes_on_with_the_next_sample_at_any_place(folder, shares):
    whole = keys(from_streampipe(pipe(folder), shares=shares))
    assert sorted(whole) == sorted(keys(pipe(folder)))
    assert shares > 1 or whole == keys(pipe(folder))
    for taken in (1, 19, 20, 21, 39, 40):
        table = from_streampipe(pipe(folder), shares=shares)
        before = keys(itertools.islice(table, taken))
        other = from_streampipe(pipe(folder), shares=shares)
        other.load_state_dict(table.state_dict())
        assert before + keys(other) == whole


def test_a_place_is_found_without_reading_what_came_before(folder):
    read = []
    counted = pipe(folder).map(lambda sample: read.append(1) or sample)
    table, other = from_streampipe(counted), from_streampipe(counted)
    next(itertools.islice(table, 29, None))
    read.clear()
    other.load_state_dict(table.state_dict())
    assert len(keys(other)) == len(read) == 10


def test_workers_and_nodes_have_each_sample_once(folder):
    table = from_streampipe(pipe(folder), shares=4)
    found = []
    for rank in range(2):
        mine = (
            pytest.importorskip("datasets.distributed")
            .split_dataset_by_node(table, rank, 2)
            .select_columns(["__key__"])
        )
        found += [key for batch in DataLoader(mine, 4, num_workers=2) for key in batch["__key__"]]
    assert sorted(found) == sorted(keys(pipe(folder)))


def test_an_epoch_has_an_order_of_its_own_and_stages_of_datasets_follow(folder):
    table = from_streampipe(pipe(folder)).map(lambda sample: {"twice": 2 * sample["cls"]})
    first = [sample["twice"] for sample in table]
    table.set_epoch(1)
    second = [sample["twice"] for sample in table]
    assert sorted(first) == sorted(second)
    assert first != second == [sample["twice"] for sample in table]


def test_the_lines_of_the_document_run(folder):
    document = Path(__file__).parents[2] / "docs" / "drop-ins.md"
    (code,) = re.findall(r"```python\n(from streampipe.compat.datasets.*?)```", document.read_text(), re.DOTALL)
    there = {"sp": sp}
    exec(code.replace('"shards/"', repr(folder)), there)
    batches = list(there["pipe"].loader())
    assert sum(len(batch["length"]) for batch in batches) == 40


def test_what_cannot_be_a_dataset_is_refused(folder):
    with pytest.raises(sp.ConfigError, match="takes a pipeline"):
        from_streampipe([1])
    with pytest.raises(sp.ConfigError, match="epochs=1"):
        from_streampipe(pipe(folder, epochs=None))
    with pytest.raises(sp.ConfigError, match="to_iterable_dataset"):
        DatasetSource(datasets.Dataset.from_dict({"n": [1]}))


def test_a_dataset_is_a_source_that_is_shuffled_divided_and_resumed():
    rows = {"image": [{"bytes": photo(n, 16, 12), "path": None} for n in range(20)], "n": list(range(20))}
    features = datasets.Features({"image": datasets.Image(), "n": datasets.Value("int64")})
    table = datasets.Dataset.from_dict(rows, features=features).to_iterable_dataset(num_shards=4)
    check_source(DatasetSource(table))
    made = sp.stream(DatasetSource(table), shuffle=True, seed=1).decode(8).batch(2)
    whole = [batch["n"].tolist() for batch in made.loader(num_workers=2)]
    assert sorted(itertools.chain(*whole)) == list(range(20))
    first, rest = made.loader(), made.loader(num_workers=1)
    before = [batch["n"].tolist() for batch in itertools.islice(first, 3)]
    rest.load_state_dict(first.state_dict())
    assert before + [batch["n"].tolist() for batch in rest] == whole
