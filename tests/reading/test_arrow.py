"""Arrow files as ``datasets`` keeps them: what it wrote, and not what it made of that."""

import json

import pyarrow as pa
import pytest

import streampipe as sp
from streampipe.counters import counters


def write(path, texts):
    table = pa.table({"text": texts})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def texts(folder):
    return [sample["text"] for sample in sp.stream(folder, format="arrow")]


@pytest.mark.parametrize("saved", [True, False])
def test_caches_of_datasets_are_no_samples(tmp_path, saved):
    for number in range(2):
        write(tmp_path / f"data-{number:05d}-of-00002.arrow", [f"{number}a", f"{number}b"])
    write(tmp_path / "cache-3f1b.arrow", ["made", "by", "map"])
    if saved:
        files = [{"filename": f"data-{number:05d}-of-00002.arrow"} for number in (1, 0)]
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": files}))
    before = counters.get("listing", "caches of datasets passed over")
    assert texts(tmp_path) == (["1a", "1b", "0a", "0b"] if saved else ["0a", "0b", "1a", "1b"])
    assert counters.get("listing", "caches of datasets passed over") - before == (0 if saved else 1)


def test_a_folder_of_several_splits_is_not_one_dataset(tmp_path):
    for name in ("set-train-00000-of-00002", "set-train-00001-of-00002", "set-test", "cache-1f"):
        write(tmp_path / f"{name}.arrow", [name])
    (tmp_path / "dataset_info.json").write_text(json.dumps({"splits": {"train": {}, "test": {}, "more": {}}}))
    with pytest.raises(sp.ConfigError, match=r"holds the splits 'train', 'test': name the files of one"):
        texts(tmp_path)
    assert texts(f"{tmp_path}/*-train*.arrow") == ["set-train-00000-of-00002", "set-train-00001-of-00002"]
    (tmp_path / "set-test.arrow").unlink()
    assert len(texts(tmp_path)) == 2


def test_a_folder_of_caches_alone_is_what_was_asked_for(tmp_path):
    write(tmp_path / "cache-3f1b.arrow", ["a"])
    assert texts(tmp_path) == ["a"]


def test_two_columns_of_one_name_are_refused_because_a_row_would_lose_one(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["t", "t"])
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(sp.ConfigError, match=r"a.arrow has 2 columns 't'"):
        sp.stream(tmp_path / "a.arrow")


def test_a_folder_without_such_files_is_an_error(tmp_path):
    with pytest.raises(sp.ConfigError, match="no shard"):
        texts(tmp_path)
