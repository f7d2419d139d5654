"""Remote shards are read ahead of need: each byte once, within a budget, and the same samples as from a disk."""

import contextlib
import multiprocessing
import os
import random
import threading
import time
import weakref
from collections import Counter

import pytest

import streampipe as sp
from streampipe.context import Consumer, Run
from streampipe.counters import counters
from streampipe.engine.batches import make_batches
from streampipe.gil import has_gil
from streampipe.index import index
from streampipe.plan.planned import Cursor
from streampipe.source import Source
from streampipe.source.cache import Cache
from streampipe.source.ranges import Ranges
from streampipe.testing import Corrupt, Cut, FaultServer, Reset, Stall, Status, Swap
from streampipe.urls import ShardList
from tests.data import photo, shard
from tests.laws import engine_of

SHARDS, SAMPLES = 6, 40
FAST = sp.Network(first_wait=0.01, longest_wait=0.05, stall=5, gap=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards of samples of 2 to 40 kB, with indexes and a manifest."""
    folder = tmp_path_factory.mktemp("shards")
    rng = random.Random(0)
    for number in range(SHARDS):
        samples = [
            (f"{number:03d}{i:04d}", {"jpg": rng.randbytes(rng.randrange(2_000, 40_000)), "cls": f"{i}"})
            for i in range(SAMPLES)
        ]
        (folder / f"{number:05d}.tar").write_bytes(shard(samples))
    index(ShardList([str(folder / f"{n:05d}.tar") for n in range(SHARDS)]), Source(), progress=False)
    return folder


@pytest.fixture
def server(folder):
    with FaultServer({path.name: path.read_bytes() for path in folder.iterdir()}) as server:
        yield server


def remote(server, **options):
    given = {"shuffle": 20, "seed": 3, "network": FAST, **options}
    return sp.stream([server.url(f"{n:05d}.tar") for n in range(SHARDS)], **given)


def local(folder, **options):
    return sp.stream([str(folder / f"{n:05d}.tar") for n in range(SHARDS)], **{"shuffle": 20, "seed": 3, **options})


def served(server):
    """Requests and bytes by shard, as asked for."""
    requests, sizes = Counter(), Counter()
    for request in server.requests:
        if request.name.endswith(".tar") and request.method == "GET":
            size = len(server._objects[request.name].data)
            start, end = request.range or (0, None)
            requests[request.name] += 1
            sizes[request.name] += min(size, end or size) - start
    return requests, sizes


def contents(batches):
    return [[(key, bytes(jpg)) for key, jpg in zip(batch["__key__"], batch["jpg"], strict=True)] for batch in batches]


def network_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("streampipe")]


def test_a_lane_with_one_reader_is_read_in_long_windows_and_each_byte_once(server, folder):
    epochs = 4
    assert contents(remote(server, epochs=epochs).batch(8)) == contents(local(folder, epochs=epochs).batch(8))
    requests, sizes = served(server)
    total = epochs * sum((folder / name).stat().st_size for name in sizes)
    assert len(sizes) == SHARDS
    assert 0.97 * total < sum(sizes.values()) < 1.05 * total
    assert sum(requests.values()) < epochs * SHARDS * SAMPLES / 4


def test_the_first_batch_waits_for_its_own_bytes_only(server, monkeypatch):
    asked = []
    ask = Ranges.ask

    def recorded(self, parts):
        asked.append(parts[-1].end - parts[0].start)
        return ask(self, parts)

    monkeypatch.setattr(Ranges, "ask", recorded)
    batches = iter(remote(server).batch(8))
    first = next(batches)
    batches.close()
    own = sum(len(jpg) + 3 * 1024 for jpg in first["jpg"])  # headers, cls, padding
    of_first = [sum(asked[:n]) for n in range(len(asked) + 1) if sum(asked[:n]) <= own]
    assert of_first[-1] > own * 0.8
    assert len(of_first) > 1


def test_a_shuffled_pass_over_a_fast_link_costs_few_requests_beyond_those_of_its_first_batch(server, folder):
    pipe = remote(server, shuffle=True, network=sp.Network(first_wait=0.01, stall=5))
    link = pipe.source.source.traffic.link
    link.rate, link._latency, link.total, link._guessed = 40e6, 0.002, 1 << 30, False
    assert contents(pipe.batch(16)) == contents(local(folder, shuffle=True).batch(16))
    requests, sizes = served(server)
    assert sum(sizes.values()) == pytest.approx(sum((folder / name).stat().st_size for name in sizes), rel=0.02)
    assert sum(requests.values()) < 16 + 3 * SHARDS  # the samples of the first batch come each for itself


def test_where_little_is_kept_little_is_fetched(server, folder):
    condition = "key == '0000007' or key == '0030001' or key == '0030002'"
    assert contents(remote(server).where(condition).batch(3)) == contents(local(folder).where(condition).batch(3))
    requests, sizes = served(server)
    assert sum(sizes.values()) < 3 * 45_000
    assert requests == {"00000.tar": 1, "00003.tar": 1}  # neighbours come together


def test_a_gap_is_read_over_where_that_is_cheaper_than_a_request(server):
    condition = "key == '0000007' or key == '0000009'"
    assert len(list(remote(server, shuffle=False, network=sp.Network(gap=50_000)).where(condition).batch(2))) == 1
    requests, _ = served(server)
    assert requests == {"00000.tar": 1}


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 3), (2, 2), (4, 1)])
def test_the_same_samples_on_any_ranks_and_workers_as_from_a_disk(server, folder, ranks, workers):
    def read(pipe):
        out = []
        for rank in range(ranks):
            engine = engine_of(pipe.batch(8 // ranks), ranks)
            for worker in range(workers):
                run = Run(seed=3, consumer=Consumer(rank, ranks, worker, workers))
                made = make_batches(engine.plan, engine.division, run, Cursor(0, 0, 1), worker, workers)
                out += contents(each.item for each in made)
        return out

    assert read(remote(server)) == read(local(folder))


def test_what_waits_is_bounded_in_bytes(server, folder):
    memory = 400_000
    source = remote(server, network=sp.Network(memory=memory, window=100_000, gap=0))
    counters.take()
    assert contents(source.batch(8)) == contents(local(folder).batch(8))
    peak = counters.get("network", "peak bytes in flight")
    assert 0 < peak < memory + 8 * 45_000  # what a batch needs at once may always be asked for
    traffic = source.source.source.traffic
    assert traffic._taken == 0


def test_a_dropped_iterator_gives_back_its_budget_and_its_threads_end(server, monkeypatch):
    monkeypatch.setattr("streampipe.source.traffic._IDLE", 0.05)
    before = set(network_threads())
    pipe = remote(server).batch(4)
    for batch in pipe:
        assert len(batch["__key__"]) == 4
        break
    del batch
    traffic = pipe.source.source.traffic
    deadline = time.monotonic() + 60
    while (set(network_threads()) - before or traffic._taken) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert traffic._taken == 0
    assert not set(network_threads()) - before


def test_faults_in_the_middle_of_an_epoch_change_nothing(server, folder):
    network = sp.Network(first_wait=0.01, longest_wait=0.05, stall=0.3, window=60_000, gap=0)
    server.script("00000.tar", None, Reset(after=5_000), Reset())
    server.script("00001.tar", None, None, Status(503), Status(429, {"Retry-After": "0"}))
    server.script("00002.tar", None, Cut(after=3_000), Cut())
    server.script("00003.tar", None, Stall(after=1_000, seconds=30))
    server.script("00004.index.parquet", Reset(after=10), Status(500))
    assert contents(remote(server, network=network).batch(8)) == contents(local(folder).batch(8))
    assert {503, 429} <= {request.status for request in server.requests}


def test_what_failed_ahead_of_need_is_asked_for_again_when_it_is_due(server, folder):
    network = sp.Network(first_wait=0, tries=2, window=60_000, gap=0)
    server.script("00002.tar", None, Status(503), Status(503))
    assert contents(remote(server, network=network).batch(8)) == contents(local(folder).batch(8))


def test_a_store_that_stays_away_is_an_error_that_names_the_shard(server):
    server.script("00004.tar", always=Status(503))
    with pytest.raises(sp.SourceUnavailable, match=r"00004.tar .*2 tries at byte \d+"):
        list(remote(server, network=sp.Network(tries=2, first_wait=0)).batch(8))
    server.script("00004.tar", always=Status(404))
    with pytest.raises(sp.ShardMissing, match=r"00004.tar does not exist"):
        list(remote(server, network=FAST).batch(8))


def test_a_shard_that_is_replaced_in_the_middle_is_an_error(server, folder):
    data = bytearray((folder / "00001.tar").read_bytes())
    data[-1] ^= 1  # behind the samples: their checksums say nothing
    server.script("00001.tar", None, Swap(bytes(data)))
    with pytest.raises(sp.ShardChanged, match=r"00001.tar was replaced while it was read"):
        list(remote(server, network=sp.Network(window=60_000, first_wait=0)).batch(8))


def test_the_pass_after_one_in_which_a_shard_was_replaced_reads_the_new_one(server, folder):
    """And no pass before it does: its requests would be answered by another version than those before."""
    whole = (folder / "00001.tar").read_bytes()
    other = bytearray(whole)
    other[-1] ^= 1
    loader = remote(server, network=sp.Network(window=60_000, first_wait=0, requests=1)).batch(8).loader()
    server.script("00001.tar", None, Swap(bytes(other)))
    with pytest.raises(sp.ShardChanged):
        list(loader)
    loader.set_epoch(0)
    assert contents(loader) == contents(local(folder).batch(8))


def test_a_shard_that_does_not_fit_its_index_is_an_error(server, folder):
    server.put("00001.tar", (folder / "00001.tar").read_bytes() + bytes(512))
    with pytest.raises(sp.IndexMismatch, match=r"00001.index.parquet was made of a shard of \d+ bytes"):
        list(remote(server).batch(8))


@pytest.mark.parametrize("status", [403, 404])
def test_an_index_that_is_forbidden_or_gone_in_mid_epoch_says_both(server, status):
    server.script("00001.index.parquet", always=Status(status))
    with pytest.raises(sp.IndexMismatch, match=r"00001.tar is gone, or may not be read.*permissions"):
        list(remote(server).batch(8))


def test_a_damaged_sample_is_named_and_skipped_alone_and_its_batch_stays_full(server, folder):
    plan = engine_of(remote(server).batch(8)).plan
    server.script("00002.tar", always=Corrupt(at=60_000))
    with pytest.raises(sp.CorruptShard, match=r"00002.tar, sample '002\d+', byte \d+: .*\(crc32\)"):
        list(remote(server).batch(8))
    batches = list(remote(server, on_error=sp.ErrorPolicy("skip", max_share=1)).batch(8))
    assert len(batches) == plan.batches
    assert {len(batch["__key__"]) for batch in batches} == {8}
    assert len({key for batch in batches for key in batch["__key__"]}) == SHARDS * SAMPLES - 1


def test_a_loader_goes_on_in_the_middle_of_an_epoch(server, folder):
    whole = contents(remote(server, epochs=2).batch(8).loader())
    loader = remote(server, epochs=2).batch(8).loader(num_workers=2)
    batches = iter(loader)
    got = [next(batches) for _ in range(13)]
    state = loader.state_dict()
    del batches
    other = remote(server, epochs=2).batch(8).loader(threads=2)
    other.load_state_dict(state)
    assert contents(got) + contents(other) == whole


@pytest.mark.parametrize("start", ["fork", "forkserver"])
@pytest.mark.usefixtures("warm")
def test_loader_workers_read_ahead_under_every_start_method(server, folder, start):
    pipe = remote(server)
    next(iter(pipe))  # the parent has connections and threads of its own
    context = multiprocessing.get_context(start)
    loader = pipe.batch(8).loader(num_workers=2, multiprocessing_context=context)
    loader.set_epoch(0)
    assert contents(loader) == contents(local(folder).batch(8))


def test_parts_of_a_mixture_may_be_remote_and_local(server, folder):
    def keys(first):
        mixed = sp.mix([first, local(folder).where("key > '0030000'")], weights=[2, 1]).batch(6)
        return [batch["__key__"] for batch in mixed]

    assert keys(remote(server)) == keys(local(folder))


def test_the_end_of_an_epoch_and_the_beginning_of_the_next_may_want_the_same_sample(server, folder):
    got = contents(remote(server, epochs=3).batch(7))
    assert got == contents(local(folder, epochs=3).batch(7))


def test_threads_read_the_same_samples_within_one_budget(server, folder):
    memory = 400_000
    pipe = remote(server, network=sp.Network(memory=memory, window=100_000, gap=0)).batch(8)
    counters.take()
    assert contents(pipe.loader(threads=3)) == contents(local(folder).batch(8))
    assert 0 < counters.get("network", "peak bytes in flight") < memory + 3 * 8 * 45_000
    assert pipe.source.source.traffic._taken == 0


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 3}, {"threads": 3}])
def test_with_a_cache_each_shard_is_downloaded_once_and_then_never_again(server, folder, tmp_path, options):
    wanted = contents(local(folder).batch(8))
    loader = remote(server, cache=tmp_path / "cache").batch(8).loader(**options)
    assert contents(loader) == wanted
    _, sizes = served(server)
    for name, size in sizes.items():
        assert size == (folder / name).stat().st_size
    del server.requests[:]
    loader.set_epoch(0)
    assert contents(loader) == wanted
    assert not served(server)[0]


@pytest.mark.skipif(not has_gil(), reason="what a thread made goes when that one next runs, or ends")
def test_of_kept_shards_no_more_are_open_than_known_steps_want(server, tmp_path, monkeypatch):
    """Each holds a descriptor and a lock, and a pass has more shards than a process may have descriptors."""
    pipe = remote(server, cache=tmp_path / "cache", shuffle=False).batch(8)
    contents(pipe)
    file, opened = Cache.file, []

    def watched(self, url, pin):
        found = file(self, url, pin)
        opened.append(weakref.ref(found))
        return found

    monkeypatch.setattr(Cache, "file", watched)
    batches = iter(pipe)
    for _ in range(SHARDS * SAMPLES // 8 - 1):  # but for the last, which is of one shard
        next(batches)
    assert len(opened) >= SHARDS
    assert sum(each() is not None for each in opened) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_does_not_end_before_the_disk_has_its_copies(server, tmp_path, monkeypatch, workers):
    slow = os.fsync
    monkeypatch.setattr("streampipe.source.part.os.fsync", lambda file: (time.sleep(0.3), slow(file)))
    loader = remote(server, cache=tmp_path / "cache").batch(8).loader(num_workers=workers)
    contents(loader)
    del server.requests[:]
    contents(loader)
    assert not served(server)[0]


def test_samples_come_past_the_cache_until_the_copy_has_come_as_far(server, folder, tmp_path):
    network = sp.Network(window=20_000, gap=0)
    batches = remote(server, cache=tmp_path / "cache", network=network).batch(8)
    assert contents(batches) == contents(local(folder).batch(8))
    _, sizes = served(server)
    whole = sum((folder / name).stat().st_size for name in sizes)
    assert whole < sum(sizes.values()) < whole + network.memory / 4 + 45_000


def test_a_cache_that_cannot_take_a_shard_is_read_past(server, folder, tmp_path):
    small = sp.Cache(tmp_path / "cache", max_bytes=100_000)
    assert contents(remote(server, cache=small).batch(8)) == contents(local(folder).batch(8))


def test_a_cache_smaller_than_the_dataset_evicts_what_is_finished(server, folder, tmp_path):
    largest = max((folder / f"{n:05d}.tar").stat().st_size for n in range(SHARDS))
    cache = sp.Cache(tmp_path / "cache", max_bytes=3 * largest)
    pipe = remote(server, cache=cache, shuffle=False, epochs=2).batch(8)
    assert contents(pipe) == contents(local(folder, shuffle=False, epochs=2).batch(8))
    used = 0
    for path in (tmp_path / "cache").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a download that nobody needs any more ends meanwhile
            used += path.stat().st_size
    assert used <= 3 * largest


def test_faults_while_a_copy_is_made_change_nothing(server, folder, tmp_path):
    network = sp.Network(first_wait=0.01, longest_wait=0.05, stall=0.3, window=60_000, gap=0)
    server.script("00000.tar", None, Reset(after=5_000), Reset())
    server.script("00001.tar", Status(503), None, Cut(after=100))
    server.script("00002.tar", None, Stall(after=1_000, seconds=30))
    pipe = remote(server, network=network, cache=tmp_path / "cache").batch(8)
    assert contents(pipe) == contents(local(folder).batch(8))


def test_buckets_are_read_each_byte_once_and_in_few_requests(tmp_path):
    def image(i):
        return photo(i, *[(96, 64), (64, 96), (80, 80)][i % 3])

    names = [tmp_path / f"{n:05d}.tar" for n in range(4)]
    for n, path in enumerate(names):
        path.write_bytes(shard([(f"{n}{i:03d}", {"jpg": image(i)}) for i in range(40)]))
    index(ShardList([str(path) for path in names]), Source(), progress=False)
    buckets = [(96, 64), (64, 96), (80, 80)]
    wanted = contents(sp.stream([str(path) for path in names], shuffle=10).bucket(buckets).select("jpg").batch(4))
    with FaultServer({path.name: path.read_bytes() for path in tmp_path.iterdir()}) as server:
        pipe = sp.stream([server.url(path.name) for path in names], shuffle=10, network=FAST)
        assert contents(pipe.bucket(buckets).select("jpg").batch(4)) == wanted
        requests, sizes = served(server)
    total = sum(path.stat().st_size for path in names)
    assert 0.9 * total < sum(sizes.values()) < 1.05 * total
    assert sum(requests.values()) < 4 * 40 / 3


def test_the_sequential_tier_asks_for_the_next_shards_before_the_border(server):
    pipe = remote(server, tier="sequential", shuffle=False, network=sp.Network(window=60_000, first_wait=0))
    samples = iter(pipe)
    for _ in range(SAMPLES // 2):
        next(samples)
    deadline = time.monotonic() + 60
    while len(served(server)[0]) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    begun = len(served(server)[0])
    samples.close()
    assert begun >= 2  # and of the first only half was given out
