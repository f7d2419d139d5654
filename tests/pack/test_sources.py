"""Shards, tables and any sample source are packed by the same path as folders: exact, filtered, shuffled, resumable."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe.cli import main
from streampipe.testing import check_source
from tests.data import photo
from tests.pack.test_pack import contents, quiet
from tests.pack.test_resume import files


@pytest.fixture(autouse=True)
def memory(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shards(tmp_path):
    """Two folders of shards, of 9 and 6 samples."""
    for name, start, count in (("one", 0, 9), ("two", 9, 6)):
        folder = tmp_path / f"{name}-images"
        folder.mkdir()
        for i in range(start, start + count):
            (folder / f"{i:02d}.jpg").write_bytes(photo(i, 40 + 8 * (i % 3), 40))
            (folder / f"{i:02d}.json").write_text(json.dumps({"score": i}))
        quiet(folder, tmp_path / name, max_samples=4)
    return tmp_path


def test_shards_are_merged_split_and_filtered_and_their_bytes_stay(shards):
    given = [shards / "one", f"{shards}/two/{{00000..00001}}.tar"]
    every = {**contents(shards / "one"), **contents(shards / "two")}
    summary = quiet(given, shards / "merged", max_samples=100, num_workers=0)
    assert (summary.samples, summary.shards, summary.fields) == (15, 1, {"jpg": 15, "json": 15})
    assert contents(shards / "merged") == every
    summary = quiet(given, shards / "some", where="score >= 3 and score != 7", max_samples=5)
    assert list(contents(shards / "some")) == [key for key in every if int(key) >= 3 and int(key) != 7]
    assert (summary.shards, summary.dropped) == (3, {"score >= 3 is false": 3, "score != 7 is false": 1})
    again = quiet(given, shards / "some", where="score >= 3 and score != 7", max_samples=5)
    assert again.kept == 3
    with pytest.raises(sp.OutputBusy, match="its where was"):
        quiet(given, shards / "some", where="score >= 4", max_samples=5)


def test_a_shuffle_is_of_all_shards_and_the_same_with_workers_and_after_a_kill(shards):
    given, options = [shards / "one", shards / "two"], {"max_samples": 4, "shuffle": True, "seed": 3}
    quiet(given, shards / "alone", **options)
    found = list(contents(shards / "alone"))
    assert sorted(found) != found
    assert sorted(found) == [f"{i:02d}" for i in range(15)]
    first = set(found[:4])
    assert {int(key) < 9 for key in first} == {True, False}  # of both folders
    quiet(given, shards / "workers", num_workers=2, **options)
    (shards / "workers" / "00002.tar").unlink()  # as if killed before it
    record = json.loads((shards / "workers" / "pack.json").read_text())
    (shards / "workers" / "pack.json").write_text(json.dumps({**record, "done": False}))
    assert quiet(given, shards / "workers", num_workers=2, **options).kept == 3
    assert files(shards / "workers") == files(shards / "alone")


def test_keys_that_collide_between_sources_are_listed_before_anything_is_written(shards, capsys):
    assert main(["pack", f"{shards}/one", f"{shards}/one/*.tar", str(shards / "out"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "9 keys collide, nothing was written" in error
    assert "'00' and '00'" in error or "'00' in " in error
    assert not (shards / "out").exists()


def test_buckets_are_parts_of_the_dataset_and_a_fact(shards):
    buckets = sp.Buckets([(40, 40), (40, 48), (40, 56)])
    summary = quiet(shards / "one", shards / "out", bucket=buckets, max_samples=2)
    assert summary.shards == 6
    assert "buckets, height x width: 40x40 (3), 40x48 (3), 40x56 (3)" in summary.notes
    for path in sorted((shards / "out").glob("*.tar")):
        sizes = {sample["jpg"].shape for sample in sp.stream(path).decode()}
        assert len(sizes) == 1
    assert len(list(sp.stream(shards / "out").where("bucket == '40x48'"))) == 3
    from_folder = quiet(shards / "one-images", shards / "folder", bucket=buckets, max_samples=2)
    assert from_folder.notes[-1] == summary.notes[-1]
    assert contents(shards / "folder") == contents(shards / "out")


def test_conditions_are_asked_of_a_folder_before_it_is_packed(shards):
    summary = quiet(shards / "one-images", shards / "out", where="width == 48 and score > 1")
    assert list(contents(shards / "out")) == ["04", "07"]
    assert (summary.samples, summary.fields) == (2, {"jpg": 2, "json": 2})
    with pytest.raises(sp.PackError, match="leave none of its 9 samples; ask for less"):
        quiet(shards / "one-images", shards / "none", where="width == 1")


def rows(number):
    for i in range(number):
        image = {"bytes": photo(i, 24, 16), "path": f"{i}.jpg"}
        yield {
            "image": image,
            "conditioning_image": {"bytes": photo(i, 8, 8), "path": None},
            "text": f"row {i}",
            "n": i,
        }


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_of_parquet_files_become_samples(tmp_path, workers):
    table = pa.Table.from_pylist(list(rows(10)))
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train-0.parquet", row_group_size=4)
    summary = quiet(tmp_path / "data", tmp_path / "out", max_samples=3, where="n != 2", num_workers=workers)
    assert (summary.samples, summary.shards) == (9, 3)
    found = contents(tmp_path / "out")
    assert next(iter(found.items())) == (
        "train-0/00000000",
        {"conditioning_image.jpg": photo(0, 8, 8), "jpg": photo(0, 24, 16), "json": b'{"n": 0}', "txt": b"row 0"},
    )
    assert [json.loads(fields["json"])["n"] for fields in found.values()] == [0, 1, 3, 4, 5, 6, 7, 8, 9]


def test_what_can_only_be_read_in_its_order_is_shuffled_and_bucketed_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(list(rows(10))), tmp_path / "data" / "train-0.parquet", row_group_size=4)
    options = {"max_samples": 3, "shuffle": True, "seed": 1, "where": "n != 2", "deduplicate": True}
    summary = quiet(tmp_path / "data", tmp_path / "out", **options)
    found = list(contents(tmp_path / "out"))
    assert (summary.samples, summary.shards, len(found)) == (9, 3, 9)
    assert sorted(found) != found
    before = files(tmp_path / "out")
    assert quiet(tmp_path / "data", tmp_path / "out", **options).kept == 3
    module = sys.modules["streampipe.pack.work"]
    really, left = module.note, [5]  # three shards in order, and then one

    def breaks(*args):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        really(*args)

    monkeypatch.setattr(module, "note", breaks)
    with pytest.raises(KeyboardInterrupt):
        quiet(tmp_path / "data", tmp_path / "again", **options)
    assert quiet(tmp_path / "data", tmp_path / "again", **options).kept == 1
    assert files(tmp_path / "again") == before
    assert quiet(tmp_path / "data", tmp_path / "b", bucket=sp.Buckets([(16, 24), (8, 8)]), dry_run=True).shards == 1
    assert quiet(tmp_path / "data", tmp_path / "b", bucket=sp.Buckets([(16, 24), (8, 8)])).notes[-1] == (
        "buckets, height x width: 16x24 (10)"
    )


@pytest.mark.parametrize("write", [pa.ipc.new_stream, pa.ipc.new_file])
def test_rows_of_arrow_files_become_samples_in_any_order(tmp_path, write):
    (tmp_path / "data").mkdir()
    table = pa.Table.from_pylist(list(rows(7)))
    with write(tmp_path / "data" / "data-00000.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    (tmp_path / "data" / "state.json").write_text("{}")  # as datasets leaves it
    check_source(sp.stream(tmp_path / "data" / "*.arrow").source.given)
    summary = quiet(tmp_path / "data", tmp_path / "out", max_samples=3, shuffle=True, where="n != 2")
    found = contents(tmp_path / "out")
    assert (summary.samples, summary.shards, sorted(found) != list(found)) == (6, 2, True)
    assert found["data-00000/00001-000002"] == {
        "conditioning_image.jpg": photo(5, 8, 8),
        "jpg": photo(5, 24, 16),
        "json": b'{"n": 5}',
        "txt": b"row 5",
    }
    (tmp_path / "data" / "data-00000.arrow").write_bytes(b"ARROW1 and nothing")
    with pytest.raises(sp.CorruptShard, match=r"data-00000\.arrow cannot be read as Arrow"):
        quiet(tmp_path / "data", tmp_path / "bad")


class Letters(sp.SampleSource):
    """A source that can only be read."""

    shards = ("a", "b")

    def read(self, shard, first=0):
        for i in range(first, 3):
            yield {"__key__": f"{self.shards[shard]}.{i}", "image": photo(i, 16, 16), "Tags": ["x", i]}


def test_any_sample_source_is_packed_and_what_it_does_not_say_is_read_once(tmp_path):
    summary = quiet(Letters(), tmp_path / "out", deduplicate=True, where="width == 16")
    assert next(iter(contents(tmp_path / "out").items())) == (
        "a_0",
        {"jpg": photo(0, 16, 16), "json": b'{"Tags": ["x", 0]}'},
    )
    assert (summary.samples, summary.repeated) == (3, 3)
    assert "2 shards without an index were read once to find out what they hold" in summary.notes


def test_a_dry_run_says_which_fields_samples_of_a_source_would_have(tmp_path, shards):
    assert quiet(Letters(), tmp_path / "out", dry_run=True).examples == [f"a_{i}: jpg, json" for i in range(3)]
    assert quiet(shards / "one", tmp_path / "out", dry_run=True).examples[0] == "00: jpg, json"
    assert quiet(Letters(), tmp_path / "real").examples == []


def test_a_compressed_shard_is_read_and_a_damaged_one_stops_or_is_listed(shards, capsys):
    import gzip

    data = (shards / "one" / "00000.tar").read_bytes()
    (shards / "c").mkdir()
    (shards / "c" / "0.tar.gz").write_bytes(gzip.compress(data))
    quiet(shards / "c", shards / "out")
    assert list(contents(shards / "out")) == ["00", "01", "02", "03"]
    (shards / "c" / "1.tar").write_bytes((shards / "two" / "00000.tar").read_bytes()[:3000])
    assert main(["pack", str(shards / "c"), str(shards / "bad"), "--quiet"]) == 1
    assert "1.tar cannot be packed" in capsys.readouterr().err
    assert main(["pack", str(shards / "c"), str(shards / "bad"), "--quiet", "--on-error", "skip"]) == 3
    assert "1.tar" in (shards / "bad" / "skipped.jsonl").read_text()


def test_equal_images_of_shards_are_packed_once(shards):
    quiet(shards / "two-images", shards / "renamed", where="score == 10")
    (shards / "more").mkdir()
    for i, sample in enumerate(sp.stream(shards / "two")):
        (shards / "more" / f"x{i}.jpg").write_bytes(sample["jpg"])
    quiet(shards / "more", shards / "three")
    summary = quiet([shards / "two", shards / "three"], shards / "out", deduplicate=True)
    assert (summary.samples, summary.repeated) == (6, 6)
    assert list(contents(shards / "out")) == [f"{i:02d}" for i in range(9, 15)]


def test_a_damaged_image_is_found_by_verifying(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(photo(1, 64, 48))
    (tmp_path / "in" / "b.jpg").write_bytes(photo(2, 64, 48)[:-40])
    assert quiet(tmp_path / "in", tmp_path / "as it is").samples == 2
    summary = quiet(tmp_path / "in", tmp_path / "out", verify=True, on_error="skip")
    assert [each.file for each in summary.skipped] == [str(tmp_path / "in" / "b.jpg")]


def test_options_of_folders_mean_nothing_for_shards(shards):
    for options in ({"caption": "x"}, {"layout": "kohya"}, {"metadata": "m.csv"}, {"beside": {"mask": "m"}}):
        with pytest.raises(sp.ConfigError, match=f"{next(iter(options))}= is of a folder of images"):
            quiet(shards / "one", shards / "out", **options)
    for given in (sp.stream(str(shards / "one")), [3], b"x", [], {"a": 1}):
        with pytest.raises(sp.ConfigError, match=r"pack takes a folder, shards, .* pipe\.write"):
            quiet(given, shards / "out")
    assert sys.modules["streampipe.pack.find"].kind_of(shards / "one", None, None, "out") == "tar"
