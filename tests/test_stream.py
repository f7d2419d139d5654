import gzip
import io
import logging
from itertools import islice

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.context import Consumer
from streampipe.counters import counters
from tests.data import shard, write_shards
from tests.laws import check_cover, check_epoch_order, consumers, run


@pytest.mark.parametrize("shuffle", [False, True, 5, 1])
@pytest.mark.parametrize("counts", [[7], [3, 0, 9], [4, 5, 6, 7, 1]])
def test_every_sample_goes_to_exactly_one_consumer(tmp_path, counts, shuffle):
    keys = write_shards(tmp_path, counts)
    pipe = sp.stream(tmp_path, shuffle=shuffle)
    for world_size, workers in [(1, 1), (1, 3), (2, 2), (3, 4), (8, 3)]:
        for epoch in (0, 5):
            check_cover(pipe, keys, world_size, workers, epoch)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10))
def test_cover_holds_for_any_shape(counts, world_size, workers, window):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        keys = write_shards(Path(folder), counts)
        check_cover(sp.stream(folder, shuffle=window), keys, world_size, workers)


def test_fewer_shards_than_consumers_starve_nobody(tmp_path):
    write_shards(tmp_path, [40, 40])
    sizes = [len(list(run(sp.stream(tmp_path), c, 0))) for c in consumers(2, 4)]
    assert sizes == [10] * 8


def test_epochs_have_new_orders_that_are_the_same_on_every_run(tmp_path):
    write_shards(tmp_path, [6, 6, 6])
    check_epoch_order(sp.stream(tmp_path, shuffle=4))
    check_epoch_order(sp.stream(tmp_path, shuffle=True))
    assert [s["__key__"] for s in sp.stream(tmp_path, shuffle=4, seed=1)] != [
        s["__key__"] for s in sp.stream(tmp_path, shuffle=4, seed=2)
    ]


def test_without_shuffle_samples_come_in_the_order_of_the_shards(tmp_path):
    keys = write_shards(tmp_path, [3, 4])
    assert [s["__key__"] for s in sp.stream(tmp_path)] == keys


def test_iterating_is_a_new_epoch_and_set_epoch_goes_back(tmp_path):
    write_shards(tmp_path, [9, 9])
    pipe = sp.stream(tmp_path, shuffle=5)
    passes = [[s["__position__"] for s in pipe] for _ in range(3)]
    assert [p[0].epoch for p in passes] == [0, 1, 2]
    pipe.set_epoch(1)
    assert [s["__position__"] for s in pipe] == passes[1]
    assert next(iter(pipe))["__position__"].epoch == 2


def test_several_epochs_in_one_pass(tmp_path):
    keys = write_shards(tmp_path, [3])
    pipe = sp.stream(tmp_path, shuffle=True, epochs=2)
    assert [[s["__position__"].epoch for s in pipe] for _ in range(2)] == [[0] * 3 + [1] * 3, [2] * 3 + [3] * 3]
    endless = sp.stream(tmp_path, epochs=None).take(2)  # of every epoch
    assert [s["__key__"] for s in islice(endless, 5)] == (keys[:2] * 3)[:5]
    with pytest.raises(sp.ConfigError, match="epochs"):
        sp.stream(tmp_path, epochs=0)


def test_an_endless_stream_of_nothing_is_an_error(tmp_path):
    write_shards(tmp_path, [0])
    for tier in (None, "sequential"):
        with pytest.raises(sp.ConfigError, match="the endless pass has no more samples"):
            list(sp.stream(tmp_path, epochs=None, tier=tier))


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.zst"])
def test_compressed_shards_by_name_or_content(tmp_path, suffix):
    data = shard([("a", {"txt": "x"}), ("b", {"txt": "y"})])
    packed = zstandard.compress(data) if suffix.endswith("zst") else gzip.compress(data) if suffix != "tar" else data
    (tmp_path / f"0.{suffix}").write_bytes(packed)
    assert [s["txt"] for s in sp.stream(tmp_path)] == [b"x", b"y"]
    (tmp_path / "wrong-name.tar").write_bytes(packed)
    assert sorted(s["txt"] for s in sp.stream(tmp_path / "wrong-name.tar", shuffle=3)) == [b"x", b"y"]


def test_fsspec_urls_and_openers(tmp_path):
    import fsspec

    data = shard([("a", {"txt": "x"})])
    fsspec.filesystem("memory").pipe("/stream/0.tar", data)
    assert [s["__url__"] for s in sp.stream("memory://stream/*.tar")] == ["memory://stream/0.tar"]
    opened = []

    def opener(url):
        opened.append(url)
        return io.BytesIO(data)

    assert [s["__key__"] for s in sp.stream("store:{0..1}.tar", opener=opener)] == ["a", "a"]
    assert sorted(opened) == ["store:0.tar", "store:1.tar"]  # the next shard is opened ahead of need


def test_a_missing_shard_and_one_that_may_not_be_read_are_named(tmp_path):
    with pytest.raises(sp.ShardMissing, match="nowhere.tar does not exist"):
        list(sp.stream(tmp_path / "nowhere.tar"))
    with pytest.raises(sp.ShardMissing, match="memory://no/such.tar"):
        list(sp.stream("memory://no/such.tar"))
    with pytest.raises(sp.ConfigError, match="nosuch"):
        list(sp.stream("nosuch://a.tar"))


def test_secrets_in_urls_are_never_shown():
    def opener(url):
        raise OSError(f"cannot connect to {url}")

    with pytest.raises(sp.SourceError) as error:
        list(
            sp.stream(
                "https://user:hunter2@host/a.tar?sig=topsecret",
                opener=opener,
                network=sp.Network(tries=2, first_wait=0),
            )
        )
    assert "hunter2" not in str(error.value)
    assert "topsecret" not in str(error.value)
    assert "https://host/a.tar" in str(error.value)


def damaged(tmp_path):
    keys = write_shards(tmp_path, [10, 10, 10])
    path = tmp_path / "00001.tar"
    data = bytearray(path.read_bytes())
    data[4 * 2048 + 20] ^= 1  # in a header of the fifth sample
    path.write_bytes(data)
    return keys


def test_a_damaged_shard_raises_by_default(tmp_path):
    damaged(tmp_path)
    with pytest.raises(sp.CorruptShard, match="00001.tar, byte"):
        list(sp.stream(tmp_path))


def test_skip_loses_the_rest_of_the_shard_and_counts_it(tmp_path, caplog):
    keys = damaged(tmp_path)
    counters.take()
    with caplog.at_level(logging.WARNING, "streampipe"):
        found = [s["__key__"] for s in sp.stream(tmp_path, on_error="skip")]
    assert found == keys[:13] + keys[20:]  # the sample before the damage was not complete for certain
    assert counters.get("skipped", "CorruptShard") == 1
    assert "00001.tar" in caplog.text


def test_a_shard_boundary_never_joins_two_halves(tmp_path):
    one = shard([("k", {"jpg": b"from A", "txt": "from A"})])
    two = shard([("k", {"txt": "from B"})])
    (tmp_path / "0.tar").write_bytes(one[:1024])
    (tmp_path / "1.tar").write_bytes(two)
    found = [{k: v for k, v in s.items() if k[0] != "_"} for s in sp.stream(tmp_path, on_error="skip")]
    assert found == [{"txt": b"from B"}]


def test_too_many_bad_shards_raise_anyway(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"<html>")
    policy = sp.ErrorPolicy("skip", max_in_row=3)
    with pytest.raises(sp.TooManyErrors, match="4 in a row"):
        list(sp.stream([str(tmp_path / "0.tar")] * 5, on_error=policy))


def test_a_missing_shard_is_no_bad_sample_that_could_be_skipped(tmp_path):
    with pytest.raises(sp.ShardMissing):
        list(sp.stream(tmp_path / "no.tar", on_error="skip"))


def test_wrong_arguments_are_refused_at_once(tmp_path):
    write_shards(tmp_path, [1])
    for options in ({"on_error": "ignore"}, {"shuffle": -1}, {"epochs": -2}):
        with pytest.raises(sp.ConfigError):
            sp.stream(tmp_path, **options)
    with pytest.raises(sp.ConfigError, match="rank 2 of 2"):
        sp.Consumer(2, 2)


def test_a_consumer_reads_the_same_as_the_pipeline_alone(tmp_path):
    write_shards(tmp_path, [4])
    assert [s["__key__"] for s in sp.stream(tmp_path)] == [
        s["__key__"] for s in run(sp.stream(tmp_path), Consumer(), 0)
    ]
