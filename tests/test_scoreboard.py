"""The faults that silence or hang other loaders (docs/faults.md): here each is an error at once, or does no harm."""

import gc
import os
import threading
import time

import pytest

import streampipe as sp
from streampipe.index.scan import scan
from streampipe.source import Source
from streampipe.tar import Limits
from streampipe.testing import Corrupt, Cut, FaultServer, Reset, Status
from tests.data import shard, write_shards

QUICK = sp.Network(tries=3, first_wait=0.01, longest_wait=0.05, stall=2)
SHARDS, SAMPLES = 6, 10
KEYS = [f"{number}{i:03d}" for number in range(SHARDS) for i in range(SAMPLES)]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Shards and their indexes, by name."""
    folder, found = tmp_path_factory.mktemp("shards"), {}
    for number in range(SHARDS):
        keys = KEYS[number * SAMPLES : (number + 1) * SAMPLES]
        data = shard([(key, {"txt": key, "bin": key.encode() * 500}) for key in keys])
        (folder / "a.tar").write_bytes(data)
        found[f"{number}.tar"] = data
        found[f"{number}.index.parquet"] = scan(str(folder / "a.tar"), Source(), Limits()).to_bytes()
    return found


@pytest.fixture
def server(objects):
    with FaultServer(objects) as running:
        yield running


def pipeline(server, **options):
    urls = [server.url(f"{number}.tar") for number in range(SHARDS)]
    return sp.stream(urls, **{"network": QUICK, "shuffle": 20, **options})


def keys_of(batches):
    return [key for batch in batches for key in batch["__key__"]]


TIERS = pytest.mark.parametrize("tier", ["planned", "sequential"])
WORKERS = pytest.mark.parametrize("workers", [0, 2])


@WORKERS
@TIERS
def test_a_shard_that_is_missing_is_an_error_at_once(server, tier, workers):
    server._objects.pop("3.tar")
    start = time.monotonic()
    with pytest.raises(sp.ShardMissing, match=r"/3\.tar does not exist"):
        list(pipeline(server, tier=tier).batch(2).loader(num_workers=workers))
    assert time.monotonic() - start < 15


@WORKERS
def test_a_flipped_bit_of_a_payload_is_an_error_that_names_the_sample(server, objects, workers):
    at = objects["2.tar"].index(b"2004" * 400) + 800
    server.script("2.tar", always=Corrupt(at))
    with pytest.raises(sp.CorruptShard, match=r"2\.tar, sample '2004', byte \d+: .*crc32"):
        list(pipeline(server).batch(2).loader(num_workers=workers))


def test_a_flipped_bit_is_skipped_and_counted_where_that_is_asked_for(server, objects):
    server.script("2.tar", always=Corrupt(objects["2.tar"].index(b"2004" * 400) + 800))
    pipe = pipeline(server, on_error=sp.ErrorPolicy("skip", max_share=0.1))
    assert sorted(sample["__key__"] for sample in pipe) == [key for key in KEYS if key != "2004"]
    assert "CorruptShard" in pipe.report()


@TIERS
def test_a_shard_that_was_cut_off_is_an_error(server, objects, tier):
    server.put("4.tar", objects["4.tar"][:-12_000])
    with pytest.raises((sp.TruncatedShard, sp.IndexMismatch, sp.SourceUnavailable), match=r"/4\."):
        list(pipeline(server, tier=tier).batch(2).loader())


@TIERS
def test_a_damaged_copy_in_the_cache_is_fetched_again(server, tmp_path, tier):
    assert sorted(keys_of(pipeline(server, tier=tier, cache=tmp_path / "c").batch(2).loader())) == KEYS
    copies = sorted((tmp_path / "c").glob("*.shard"))
    assert len(copies) >= 4  # the plan may read the last samples past the cache
    with open(copies[0], "r+b") as file:
        file.truncate(2000)
    with open(copies[1], "r+b") as file:
        file.seek(3000)
        file.write(b"\xff\xff\xff")
    (copies[2]).write_bytes(b"")
    (copies[3].with_suffix(".x.part")).write_bytes(b"left behind")
    again = {s["__key__"]: s["bin"] for s in pipeline(server, tier=tier, cache=sp.Cache(tmp_path / "c"))}
    assert again == {key: key.encode() * 500 for key in KEYS}


@TIERS
def test_a_window_that_is_larger_than_the_cache_ends(server, objects, tmp_path, tier):
    cache = sp.Cache(tmp_path / "c", max_bytes=int(2.5 * len(objects["0.tar"])))
    found = keys_of(pipeline(server, tier=tier, shuffle=1000, cache=cache).batch(2).loader(num_workers=2))
    assert sorted(found) == KEYS
    assert sum(path.stat().st_size for path in cache.folder.glob("*.shard")) <= cache.max_bytes


@TIERS
def test_two_jobs_share_a_cache(server, tmp_path, tier):
    loaders = [
        iter(pipeline(server, tier=tier, seed=seed, cache=tmp_path / "c").batch(2).loader(num_workers=1))
        for seed in range(2)
    ]
    found = [[], []]
    for _ in range(SHARDS * SAMPLES // 2 + 1):
        for mine, loader in zip(found, loaders, strict=True):
            mine += next(loader, {"__key__": []})["__key__"]
    assert [sorted(mine) for mine in found] == [KEYS, KEYS]


@TIERS
def test_a_transfer_that_breaks_is_gone_on_with_and_leaves_no_half_file(server, tmp_path, tier):
    for number, fault in enumerate((Cut(2000), Reset(5000), Status(503, {"Retry-After": "0"}), Cut(9000))):
        server.script(f"{number}.tar", fault, fault)
    pipe = pipeline(server, tier=tier, cache=tmp_path / "c")
    assert {s["__key__"]: s["bin"] for s in pipe} == {key: key.encode() * 500 for key in KEYS}
    end = time.monotonic() + 10  # a copy that was begun ahead of need is finished in the background
    while list((tmp_path / "c").glob("*.part")) and time.monotonic() < end:
        time.sleep(0.02)
    assert not list((tmp_path / "c").glob("*.part"))


@pytest.mark.parametrize("body", [b"<html><body>404 Not Found</body></html>" * 30, bytes(10_240), b""])
def test_a_page_zeros_or_nothing_in_place_of_a_shard(server, body, caplog):
    server.put("1.tar", body)
    pipe = pipeline(server, tier="sequential", shuffle=False)
    if body and not any(body):
        assert [sample["__key__"] for sample in pipe] == KEYS[:10] + KEYS[20:]
        assert sum("1.tar holds no sample" in record.getMessage() for record in caplog.records) == 1
        return
    words = r"1\.tar, byte 0: no tar header.*begins b'<html><body>404" if body else r"1\.tar ends at byte 0"
    with pytest.raises(sp.ShardError, match=words):
        list(pipe)


def test_a_compressed_shard_goes_on_below_its_compression(objects):
    import gzip

    packed = gzip.compress(objects["0.tar"][:30_000]) + gzip.compress(objects["0.tar"][30_000:])
    for at in range(0, len(packed), len(packed) // 5):
        with FaultServer({"0.tar.gz": packed}) as server:
            server.script("0.tar.gz", Reset(at), Cut(at))
            assert [s["__key__"] for s in sp.stream(server.url("0.tar.gz"), network=QUICK)] == KEYS[:SAMPLES]


def test_two_hundred_pipelines_that_are_made_and_dropped_leave_nothing(server, tmp_path):
    write_shards(tmp_path / "local", [5, 5])

    def cycle(number):
        options = {"tier": ("planned", "sequential")[number % 2]}
        if number % 3:
            options["cache"] = tmp_path / "c"
        pipe = pipeline(server, **options) if number % 4 < 2 else sp.stream(tmp_path / "local", shuffle=5)
        next(iter(pipe.batch(2).loader()))

    def held():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for number in range(8):
        cycle(number)
    before = held()
    shared = set(os.listdir("/dev/shm"))
    for number in range(200):
        cycle(number)
    end = time.monotonic() + 10
    while (after := held()) > before and time.monotonic() < end:
        time.sleep(0.05)
    assert after[0] <= before[0] + 10
    assert after[1] <= before[1] + 10
    assert len(set(os.listdir("/dev/shm")) - shared) < 20  # those of other processes come and go
