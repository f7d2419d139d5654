"""Shards that a pipeline writes are a function of pipeline and number, whoever writes them, however often killed."""

import gzip
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.counters import counters
from streampipe.source import Source
from tests.data import write_photos, write_shards


def negative(image):
    return 255 - image


def halves(image):
    return image.float().mean((1, 2)) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, [7, 13, 5])
    return folder


def pipeline(folder, **options):
    pipe = sp.stream(str(folder), **{"shuffle": 8, **options}).decode(24)
    return pipe.batch(4).map(negative, "jpg").unbatch().rename(image="jpg")


def write(pipe, out, **options):
    return pipe.write(f"{out}/{{:05d}}.tar", **{"max_samples": 6, "progress": False, **options})


def files(folder):
    """All files of an output folder and their bytes; that there is nothing else is part of the comparison."""
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def contents(out, **options):
    return {sample["__key__"]: sample for sample in sp.stream(str(out)).decode(**options)}


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    summary = write(pipeline(folder), out)
    assert (summary.samples, summary.shards, summary.kept, summary.missing) == (25, 5, 0, 0)
    return files(out)


def test_what_is_written_streams_back_as_it_was(folder, tmp_path):
    write(pipeline(folder), tmp_path / "out")
    found = contents(tmp_path / "out")
    wanted = {sample["__key__"]: sample for sample in pipeline(folder)}
    assert found.keys() == wanted.keys()
    for key, sample in wanted.items():
        assert torch.equal(found[key]["image.png"], sample["image"])
        assert found[key]["txt"] == sample["txt"]


def test_every_shard_has_its_index_and_all_a_manifest(whole):
    numbers = [f"{i:05d}" for i in range(5)]
    wanted = [f"{n}{suffix}" for n in numbers for suffix in (".tar", ".index.parquet")]
    assert sorted(whole) == sorted([*wanted, "manifest.parquet", "write.json"])


def test_without_sha256_the_shards_are_the_same_and_sound(folder, whole, tmp_path):
    write(pipeline(folder), tmp_path, sha256=False)
    assert {name: data for name, data in files(tmp_path).items() if name.endswith(".tar")} == {
        name: data for name, data in whole.items() if name.endswith(".tar")
    }
    assert sp.verify(str(tmp_path), progress=False).damages == []
    assert write(pipeline(folder), tmp_path, sha256=False).kept == 5
    with pytest.raises(sp.OutputBusy, match="its sha256 was false"):
        write(pipeline(folder), tmp_path)


def test_two_ranks_with_two_workers_write_the_same_bytes_as_one_process(folder, whole, tmp_path):
    first = write(pipeline(folder), tmp_path, rank=1, world_size=2, num_workers=2, multiprocessing_context="fork")
    assert first.missing == 3
    assert "manifest.parquet" not in os.listdir(tmp_path)
    last = write(pipeline(folder), tmp_path, rank=0, world_size=2, num_workers=2, multiprocessing_context="fork")
    assert (last.samples, last.kept, last.missing) == (25, 2, 0)
    assert files(tmp_path) == whole


def test_a_spawned_worker_writes_the_same_bytes(folder, whole, tmp_path):
    write(pipeline(folder), tmp_path, num_workers=1, multiprocessing_context="spawn")
    assert files(tmp_path) == whole


def test_finished_shards_are_kept_and_lost_files_made_again(folder, whole, tmp_path):
    write(pipeline(folder), tmp_path)
    before = (tmp_path / "00000.tar").stat().st_ino
    for name in ("00002.tar", "00003.index.parquet", "manifest.parquet"):
        (tmp_path / name).unlink()
    summary = write(pipeline(folder), tmp_path)
    assert summary.kept == 3
    assert (tmp_path / "00000.tar").stat().st_ino == before
    assert files(tmp_path) == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: pipeline(folder, seed=5), "its seed was 0 and is 5 here"),
        (lambda folder: pipeline(folder).map(len, "txt"), r"its pipeline was .* and is \[.*builtins.len"),
        (lambda folder: pipeline(folder).map(lambda x: x + 1, "image"), "its pipeline was"),
    ],
)
def test_a_folder_of_another_job_is_refused_with_both_values(folder, tmp_path, change, words):
    write(pipeline(folder), tmp_path)
    before = files(tmp_path)
    with pytest.raises(sp.OutputBusy, match=words):
        write(change(folder), tmp_path)
    with pytest.raises(sp.OutputBusy, match="its max_samples was 6 and is 7 here"):
        write(pipeline(folder), tmp_path, max_samples=7)
    with pytest.raises(sp.OutputBusy, match='its version was "" and is "2" here'):
        write(pipeline(folder), tmp_path, version="2")
    assert files(tmp_path) == before


def test_other_datasets_of_the_same_size_are_another_job(folder, tmp_path):
    for name in ("a", "b"):
        write_shards(tmp_path / name, [4, 4])
    write(sp.stream(str(tmp_path / "a")), tmp_path / "out")
    with pytest.raises(sp.OutputBusy, match="its inputs was"):
        write(sp.stream(str(tmp_path / "b")), tmp_path / "out")


def test_of_two_jobs_that_begin_at_once_one_is_refused(folder, tmp_path, monkeypatch):
    write(pipeline(folder), tmp_path)
    for path in [*tmp_path.glob("*.tar"), *tmp_path.glob("*.parquet")]:
        path.unlink()
    monkeypatch.setattr(Source, "read_if_there", lambda self, url, *rest: None)  # it looks before the other has written
    with pytest.raises(sp.OutputBusy, match="its seed was 0 and is 5 here"):
        write(pipeline(folder, seed=5), tmp_path)
    assert os.listdir(tmp_path) == ["write.json"]


def test_shards_of_unknown_origin_are_left_alone(folder):
    with pytest.raises(sp.OutputBusy, match="unknown origin"):
        write(sp.stream(str(folder)), folder)


def test_stages_that_drop_and_multiply_run_over_each_shard_alone(tmp_path):
    keys = write_shards(tmp_path / "in", [20, 20])
    pipe = sp.stream(str(tmp_path / "in")).filter(lambda s: int(s["__key__"]) % 3 == 0)
    write(pipe, tmp_path / "out", max_samples=10)
    assert sorted(contents(tmp_path / "out")) == [key for key in keys if int(key) % 3 == 0]
    write(sp.stream(str(tmp_path / "in")).take(9), tmp_path / "take", max_samples=10)
    assert len(contents(tmp_path / "take")) == 9


def test_where_is_answered_by_the_index_and_shards_are_full(tmp_path):
    write_shards(tmp_path / "in", [20, 20])
    summary = write(sp.stream(str(tmp_path / "in")).where("key >= '0010000'"), tmp_path / "out", max_samples=10)
    assert (summary.samples, summary.shards) == (20, 2)


def test_several_epochs_are_several_times_the_shards(tmp_path):
    write_shards(tmp_path / "in", [5])
    pipe = sp.stream(str(tmp_path / "in"), epochs=2, shuffle=True)
    assert write(pipe, tmp_path / "out", max_samples=3).shards == 4
    assert len(list(sp.stream(str(tmp_path / "out")))) == 10


def test_uncounted_streams_are_written_by_one_process(folder, tmp_path):
    pipe = sp.stream(str(folder), tier="sequential").decode(16)
    assert write(pipe, tmp_path / "out").shards == 5
    before = files(tmp_path / "out")
    (tmp_path / "out/00003.tar").unlink()
    assert write(pipe, tmp_path / "out").kept == 4
    assert files(tmp_path / "out") == before
    with pytest.raises(sp.ConfigError, match="only one process can write this pipeline, because tier='sequential'"):
        write(pipe, tmp_path / "other", num_workers=2)
    pipe = sp.from_iterable([{"__key__": f"{i}", "n": i} for i in range(10)])
    write(pipe, tmp_path / "numbers", max_samples=4)
    with pytest.raises(sp.OutputBusy, match="its inputs was"):
        write(
            sp.from_iterable([{"__key__": f"{i}", "n": i + 1} for i in range(10)]), tmp_path / "numbers", max_samples=4
        )
    assert [sample["n.json"] for sample in sp.stream(str(tmp_path / "numbers")).decode()] == list(range(10))


def test_shards_of_an_uncounted_stream_that_was_mended_meanwhile_are_not_gone_on_with(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_shards(folder, [6, 6])
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for path, data in whole.items():
        path.unlink()
        cut = data[:3000] if path.name == "00000.tar" else data
        path.with_suffix(".tar.gz").write_bytes(gzip.compress(cut))
    pipe = sp.stream(str(folder), on_error="skip")
    write(pipe, out, max_samples=4)
    (out / "00001.tar").unlink()
    assert write(pipe, out, max_samples=4).kept == 1
    (out / "00001.tar").unlink()
    path = folder / "00000.tar"
    path.with_suffix(".tar.gz").write_bytes(gzip.compress(whole[path]))
    with pytest.raises(sp.OutputBusy, match=r"00000.tar has sample '0010000', which does not come in its turn now"):
        write(pipe, out, max_samples=4)


def test_shards_that_an_uncounted_stream_does_not_reach_any_more_are_not_left_beside_it(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_shards(folder, [2, 2])
    for path in list(folder.iterdir()):
        path.with_suffix(".tar.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    pipe = sp.stream(str(folder), on_error="skip")
    assert write(pipe, out, max_samples=2).shards == 2
    (folder / "00001.tar.gz").write_bytes(gzip.compress(b"x" * 600))
    with pytest.raises(sp.OutputBusy, match=r"00001.tar is there, and the samples end before it now"):
        write(pipe, out, max_samples=2)


def test_errors_name_the_sample_and_are_up_to_the_policy(tmp_path):
    write_shards(tmp_path / "in", [3])
    pipe = sp.stream(str(tmp_path / "in")).map(lambda s: {**s, "x": object()} if s["__key__"] == "0000001" else s)
    with pytest.raises(sp.StageError, match="stage 'write', sample '0000001' of .*00000.tar: field 'x' is a object"):
        write(pipe, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["write.json"]
    write(pipe, tmp_path / "out", on_error="skip")
    assert sorted(contents(tmp_path / "out")) == ["0000000", "0000002"]
    twice = sp.stream(str(tmp_path / "in")).map(lambda s: {**s, "__key__": "same"})
    with pytest.raises(sp.DuplicateKey, match="sample 'same' of .*: key 'same' is in this shard already"):
        write(twice, tmp_path / "twice", num_workers=1, multiprocessing_context="fork")


def test_a_broken_dataset_does_not_look_like_a_small_one_however_small_its_shards(tmp_path):
    write_shards(tmp_path / "in", [300])
    pipe = sp.stream(str(tmp_path / "in"), on_error="skip").map(lambda s: s if s["__key__"] == "0000000" else 1 / 0)
    with pytest.raises(sp.TooManyErrors, match="skipped 100 of 101"):
        write(pipe, tmp_path / "out", max_samples=20)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.batch(2), "ends with batch.*put unbatch"),
        (lambda p: p.batch(2).map(lambda s: s), "got a batch of 2 samples: put unbatch"),
        (lambda p: p.map(lambda s: 7), "got a int without '__key__'"),
        (lambda p: p.batch(2, tail="drop").unbatch(), "would drop samples at every shard's end"),
        (lambda p: p.bucket("sd15", tail="drop").batch(2).unbatch(), "would drop samples at every shard's end"),
        (lambda p: p.filter(lambda s: s["__key__"] == "x"), "dropped every"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, make, words):
    write_shards(tmp_path / "in", [3, 9])
    with pytest.raises(sp.StreampipeError, match=words):
        write(make(sp.stream(str(tmp_path / "in"))), tmp_path / "out")


def test_a_batch_is_refused_before_the_folder_is_taken_for_it(tmp_path):
    write_shards(tmp_path / "in", [3])
    pipe = sp.stream(str(tmp_path / "in"))
    with pytest.raises(sp.ConfigError, match="put unbatch"):
        write(pipe.batch(2), tmp_path / "out")
    write(pipe, tmp_path / "out")


@pytest.mark.parametrize("pattern", ["out/a.tar", "out/{}.tar.gz", "{}/a.tar", "out/{name}.tar"])
def test_patterns_are_checked(tmp_path, pattern):
    with pytest.raises(sp.ConfigError, match="number the shards|plain .tar"):
        sp.from_iterable([]).write(str(tmp_path / pattern))


def test_a_worker_that_dies_is_an_error(tmp_path):
    write_shards(tmp_path / "in", [9])
    pipe = sp.stream(str(tmp_path / "in")).map(lambda s: os._exit(7))
    with pytest.raises(sp.PackError, match="a worker process ended with status 7"):
        write(pipe, tmp_path / "out", num_workers=2, multiprocessing_context="fork")


def test_errors_of_workers_come_with_their_words(tmp_path):
    write_shards(tmp_path / "in", [9])
    pipe = sp.stream(str(tmp_path / "in"))
    with pytest.raises(sp.StageError, match=r"stage 'map\(.*', sample '000000\d' of .*: ZeroDivisionError"):
        write(pipe.map(lambda s: 1 / 0), tmp_path / "out", num_workers=2, multiprocessing_context="fork")
    with pytest.raises(sp.ConfigError, match="cannot be handed to a worker process .*multiprocessing_context='fork'"):
        write(pipe.map(lambda s: s), tmp_path / "other", num_workers=2, multiprocessing_context="spawn")


def test_a_shard_that_was_cut_is_found_before_the_manifest_says_that_all_is_well(folder, tmp_path):
    write(pipeline(folder), tmp_path)
    (tmp_path / "manifest.parquet").unlink()
    os.truncate(tmp_path / "00001.tar", 1024)
    with pytest.raises(sp.IndexMismatch, match=r"00001.tar has 1024 bytes, and had \d+ when it was written"):
        write(pipeline(folder), tmp_path)
    assert not (tmp_path / "manifest.parquet").exists()


def test_the_report_counts_what_workers_wrote(folder, tmp_path):
    before = counters.get("write", "samples")
    write(pipeline(folder), tmp_path, num_workers=2, multiprocessing_context="fork")
    assert counters.get("write", "samples") - before == 25


def test_object_stores_get_whole_shards_and_indexes(folder):
    out = "memory://written"
    write(sp.stream(str(folder)).map(lambda s: {**s, "latent": np.arange(3)}), out)
    found = list(sp.stream(f"{out}/{{00000..00004}}.tar").decode())
    assert len(found) == 25
    assert found[0]["latent.npy"].tolist() == [0, 1, 2]
    assert write(sp.stream(str(folder)).map(lambda s: {**s, "latent": np.arange(3)}), out).kept == 5


def test_the_job_is_written_down_in_plain_words(folder, tmp_path):
    write(pipeline(folder), tmp_path)
    job = json.loads((tmp_path / "write.json").read_text())
    assert job["pipeline"][0] == "decode(size=24)"
    assert (job["samples"], job["seed"], job["max_samples"]) == (25, 0, 6)


def test_buckets_run_over_each_shard_alone_and_lose_nothing(folder, tmp_path):
    pipe = sp.stream(str(folder)).bucket([(32, 32), (48, 32), (32, 48)]).decode().batch(4)
    write(pipe.map(negative, "jpg").unbatch().rename(image="jpg"), tmp_path, max_samples=10)
    found = contents(tmp_path)
    assert len(found) == 25
    assert {tuple(sample["image.png"].shape) for sample in found.values()} == {(3, 32, 32), (3, 32, 48)}
    assert all(tuple(s["target_size.json"]) == tuple(s["image.png"].shape[1:]) for s in found.values())


def test_a_mixture_is_written_with_its_repeats_under_keys_of_their_own(tmp_path, caplog):
    for name in ("a", "b"):
        write_shards(tmp_path / name, [4])

    def numbered(sample):
        return {**sample, "__key__": f"{sample['set']}-{sample['__position__'].epoch}-{sample['__key__']}"}

    parts = [sp.stream(str(tmp_path / name)).assign(set=name) for name in ("a", "b")]
    mixed = sp.mix(parts, repeats=[1, 3])
    assert write(mixed.map(numbered), tmp_path / "out", max_samples=5).samples == 16
    assert len(contents(tmp_path / "out")) == 16
    with pytest.raises(sp.DuplicateKey, match="is in this shard already"):
        write(mixed, tmp_path / "twice", max_samples=16)
    summary = write(sp.stream([str(tmp_path / "a"), str(tmp_path / "b")]), tmp_path / "both", max_samples=4)
    assert summary.repeated == 4
    assert "4 samples of" in caplog.text


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(1, 12),
    st.sampled_from([False, 1, 5, True]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_outputs_hold_every_sample_once_in_the_order_of_the_plan(counts, size, shuffle, epochs, ranks):
    with TemporaryDirectory() as name:
        folder = Path(name)
        keys = write_shards(folder / "in", counts)
        pipe = sp.stream(str(folder / "in"), shuffle=shuffle, epochs=epochs, seed=3)
        for rank in reversed(range(ranks)):
            summary = write(pipe, folder / "out", max_samples=size, rank=rank, world_size=ranks)
        assert (summary.samples, summary.shards) == (epochs * len(keys), epochs * -(-len(keys) // size))
        shards = sorted((folder / "out").glob("*.tar"))
        found = [[sample["__key__"] for sample in sp.stream(str(shard))] for shard in shards]
        assert all(len(each) <= size for each in found)
        in_order = [key for each in found for key in each]
        for epoch in range(epochs):
            mine = in_order[epoch * len(keys) : (epoch + 1) * len(keys)]
            assert sorted(mine) == keys
            if shuffle is False:
                assert mine == keys
        if epochs == 1:
            assert in_order == [key for batch in pipe.batch(size) for key in batch["__key__"]]


def keep(sample):
    return True


@pytest.mark.parametrize("front", [lambda pipe: pipe, lambda pipe: pipe.filter(keep), lambda pipe: pipe.map(dict)])
@pytest.mark.parametrize("epochs", [1, 2])
def test_take_and_skip_choose_as_many_samples_as_they_say_whatever_the_shards(tmp_path, front, epochs):
    write_shards(tmp_path / "in", [20, 17])
    pipe = front(sp.stream(str(tmp_path / "in"), epochs=epochs)).skip(5).take(23)
    whole = [sample["__key__"] for sample in sp.stream(str(tmp_path / "in"))][5:28]
    found = write(pipe.rename(text="txt"), tmp_path / "out")
    assert found.samples == 23 * epochs
    assert sorted(s["__key__"] for s in sp.stream(f"{tmp_path}/out/*.tar")) == sorted(whole * epochs)


def test_ranks_write_what_take_chooses_where_it_stands_first_and_are_refused_elsewhere(tmp_path):
    write_shards(tmp_path / "in", [20, 17])
    pipe = sp.stream(str(tmp_path / "in")).where("key < '0010008'").take(23)
    parts = [write(pipe.map(dict), tmp_path / "out", rank=rank, world_size=2) for rank in range(2)]
    assert parts[1].samples == 23
    with pytest.raises(sp.ConfigError, match=r"take\(n=3\) counts what stages in front of it give.*put it first"):
        write(pipe.filter(keep).take(3), tmp_path / "more", num_workers=2)
    with pytest.raises(sp.ConfigError, match=r"a mixture cannot be written where take\(n=3\).*put it first"):
        write(sp.mix([pipe]).filter(keep).take(3), tmp_path / "more")
