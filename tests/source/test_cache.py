"""A folder of whole shards: what is under a final name is right or found out, whatever happened before."""

import errno
import fcntl
import json
import os
import pickle
import shutil
import stat
import subprocess
import threading
import time

import pytest

import streampipe as sp
from streampipe import atomic
from streampipe.atomic import unique
from streampipe.counters import counters
from streampipe.source import Cache, Network, Source
from streampipe.source import cache as cache_module
from streampipe.source import disk as disk_module
from streampipe.source import part as part_module
from streampipe.source.disk import MARK, TAIL
from streampipe.source.local import BLOCK
from streampipe.source.store import Pin
from streampipe.testing import FaultServer, IgnoreRange
from tests.source.conftest import DATA, QUICK, bounded, until, whole

URL = "https://host/a.tar"
PIN = Pin(len(DATA), "v1")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "kept")


def keep(cache, url=URL, data=DATA, pin=PIN):
    """Store a shard without a network."""
    part = cache.part(url, len(data))
    part.write(data)
    part.publish(pin.version)
    part.close()
    return cache.path(url)


def leftovers(cache):
    return sorted(path.name for path in cache.folder.iterdir() if path.suffix != ".shard")


def test_what_was_stored_is_there_whole_and_of_its_version(cache):
    path = keep(cache)
    assert bytes(cache.file(URL, PIN)) == DATA
    assert bytes(cache.file(URL, Pin())) == DATA
    assert cache.file(URL, Pin(len(DATA), "v2")) is None
    assert cache.file(URL, Pin(len(DATA) + 1, None)) is None
    assert cache.file("https://host/b.tar", PIN) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert leftovers(cache) == []


def test_an_empty_shard_is_kept(cache):
    keep(cache, data=b"", pin=Pin(0, "v1"))
    assert bytes(cache.file(URL, Pin(0, "v1"))) == b""


def test_the_same_name_elsewhere_is_another_file(cache):
    urls = [
        "s3://a/train/0.tar",
        "s3://b/train/0.tar",
        "s3://a/val/0.tar",
        "https://a/train/0.tar",
        "s3://a/train/0.tar?v",
    ]
    for number, url in enumerate(urls):
        keep(cache, url, DATA[number:], Pin(len(DATA) - number))
    assert [bytes(cache.file(url, Pin())) for url in urls] == [DATA[number:] for number in range(5)]


@pytest.mark.parametrize("size", [0, 1, 17, 25, 26, 1000, len(DATA) - 1, len(DATA), len(DATA) + 5, -1])
def test_a_cut_off_file_is_found_out_at_once(cache, size):
    path = keep(cache)
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert cache.file(URL, PIN) is None
    assert Cache(cache.folder).file(URL, PIN) is None
    keep(cache)
    assert bytes(cache.file(URL, PIN)) == DATA


@pytest.mark.parametrize("at", [0, 5, 350_000, len(DATA) - 1, len(DATA) + 3, -1, -10, -20])
def test_a_flipped_bit_is_found_out_by_the_next_process(cache, at, caplog):
    path = keep(cache)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert Cache(cache.folder).file(URL, PIN) is None
    if 0 <= at < len(DATA):
        assert "https://host/a.tar: its copy in the cache is damaged (crc32)" in caplog.text


def foreign(path, kind):
    if kind == "text":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
        (path / "x").write_text("mine")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        (path.parent / "elsewhere").write_text("mine")
        path.symlink_to(path.parent / "elsewhere")
    elif kind == "forged":
        facts = json.dumps({"size": 4, "version": [1], "crc32": "x"}).encode()
        path.write_bytes(b"mine" + facts + TAIL.pack(len(facts), MARK))
    elif kind == "huge":
        path.write_bytes(b"mine" + TAIL.pack(2**32 - 1, MARK))


@pytest.mark.parametrize("kind", ["text", "folder", "pipe", "link", "forged", "huge"])
def test_a_foreign_thing_under_a_final_name_is_not_read_not_waited_for_and_not_evicted(cache, server, kind):
    url = server.url("a.tar")
    foreign(cache.path(url), kind)
    assert bounded(cache.file, url, Pin()) is None
    assert not disk_module.evict(cache.path(url))
    assert os.path.lexists(cache.path(url))
    source = Source(network=QUICK, cache=cache)
    assert bounded(whole, source, url) == DATA
    assert kind != "link" or (cache.folder / "elsewhere").read_text() == "mine"
    assert kind != "folder" or (cache.path(url) / "x").read_text() == "mine"


def test_names_of_others_are_never_deleted(cache):
    names = ["notes.txt", "x.part", "x.shard", "x.lock", f"{'a' * 40}.part", f"{'b' * 40}.host-1.part", "room.x"]
    for name in names:
        (cache.folder / name).write_bytes(bytes(1000))
    small = Cache(cache.folder, max_bytes=1500)
    with pytest.raises(OSError, match="no room"):
        small.make_room(1400)
    assert {path.name for path in cache.folder.iterdir()} >= set(names)


def test_parts_and_locks_whose_owner_is_gone_are_deleted_and_those_in_use_are_not(cache):
    dead = cache.path(URL).with_suffix(f".{unique()}.part")
    dead.write_bytes(b"x")
    os.utime(dead, (0, 2**31))  # its date says nothing
    (cache.folder / f"{'c' * 40}.lock").touch()
    part = cache.part(URL, 10)
    with cache.turn("s3://b/other.tar", 1) as ours:
        assert ours
        cache.make_room(1)
        assert {path.suffix for path in cache.folder.iterdir()} == {".part", ".lock"}
        assert not dead.exists()
        assert not (cache.folder / f"{'c' * 40}.lock").exists()
    part.discard()
    assert list(cache.folder.iterdir()) == []


def test_a_host_name_with_dots_makes_parts_that_are_known_again(cache, monkeypatch):
    monkeypatch.setattr(atomic.socket, "gethostname", lambda: "node-7.cluster.example")
    part = cache.part(URL, 10)
    part._atomic.file.close()  # as if killed: the lock is gone, the file is not
    assert len(list(cache.folder.iterdir())) == 1
    cache.make_room(1)
    assert list(cache.folder.iterdir()) == []


def test_the_cache_stays_within_its_size_and_the_oldest_go_first(tmp_path):
    cache = Cache(tmp_path / "kept", max_bytes=4 * 100_500)
    for number in range(10):
        path = keep(cache, f"s3://b/{number}.tar", DATA[:100_000], Pin(100_000, "1"))
        os.utime(path, (number, number))
        assert sum(each.stat().st_size for each in cache.folder.iterdir()) <= 4 * 100_500
    assert [number for number in range(10) if cache.has(f"s3://b/{number}.tar")] == [6, 7, 8, 9]
    with pytest.raises(OSError, match="larger than the cache"):
        cache.part("s3://b/x.tar", 500_000)


def test_a_shard_that_the_plan_is_done_with_goes_first_and_one_in_use_stays(tmp_path):
    cache = Cache(tmp_path / "kept", max_bytes=3 * 100_500)
    for number in range(3):
        keep(cache, f"s3://b/{number}.tar", DATA[:100_000], Pin(100_000, "1"))
    cache.finished("s3://b/1.tar")
    time.sleep(0.01)
    cache.finished("s3://b/2.tar")
    view = cache.file("s3://b/2.tar", Pin())  # in use again, and held
    cache.finished("s3://b/2.tar")
    keep(cache, "s3://b/3.tar", DATA[:100_000], Pin(100_000, "1"))
    assert [number for number in range(4) if cache.has(f"s3://b/{number}.tar")] == [0, 2, 3]
    assert bytes(view) == DATA[:100_000]


def test_a_cache_that_jobs_share_keeps_what_was_opened_last_whoever_is_done_with_it(tmp_path):
    cache = Cache(tmp_path / "kept", max_bytes=3 * 100_500, shared=True)
    for number in range(3):
        keep(cache, f"s3://b/{number}.tar", DATA[:100_000], Pin(100_000, "1"))
        os.utime(cache.path(f"s3://b/{number}.tar"), (number, number))
    assert cache.file("s3://b/0.tar", Pin()) is not None
    cache.finished("s3://b/0.tar")
    cache.finished("s3://b/2.tar")
    keep(cache, "s3://b/3.tar", DATA[:100_000], Pin(100_000, "1"))
    assert [number for number in range(4) if cache.has(f"s3://b/{number}.tar")] == [0, 2, 3]


def test_a_shard_that_is_evicted_while_it_is_read_stays_readable(cache, monkeypatch):
    monkeypatch.setattr(disk_module.fcntl, "flock", no_locks)
    keep(cache)
    view = cache.file(URL, PIN)
    Cache(cache.folder, max_bytes=len(DATA) + 5000).make_room(len(DATA))  # without locks nobody knows of us
    assert not cache.has(URL)
    assert bytes(view) == DATA
    assert cache.file(URL, PIN) is None


def no_locks(file, how):
    raise OSError(errno.ENOLCK, "No locks available")


def test_refused_locks_cost_work_only(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    cache = Cache(tmp_path / "kept")
    got = []
    sources = [Source(network=QUICK, cache=cache) for _ in range(4)]
    threads = [threading.Thread(target=lambda s=s: got.append(whole(s, server.url("a.tar")) == DATA)) for s in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [True] * 4
    assert bytes(cache.file(server.url("a.tar"), Pin())) == DATA


def test_dates_decide_nothing_but_the_order_of_eviction(cache):
    path = keep(cache)
    for seconds in (0, 2**31, 2**33):
        os.utime(path, (seconds, seconds))
        assert bytes(Cache(cache.folder).file(URL, PIN)) == DATA


def test_the_checksum_is_compared_once_a_process(cache, monkeypatch):
    keep(cache)
    compared = []
    real = cache_module.crc32
    monkeypatch.setattr(cache_module, "crc32", lambda *args: compared.append(1) or real(*args))
    for _ in range(3):
        cache.file(URL, PIN)
        os.utime(cache.path(URL), (1, 1))  # another process has touched it
    assert len(compared) == -(-len(DATA) // BLOCK)
    keep(cache, data=DATA[::-1], pin=Pin(len(DATA), "v2"))
    compared.clear()
    assert bytes(cache.file(URL, Pin())) == DATA[::-1]
    assert len(compared) == -(-len(DATA) // BLOCK)


def test_only_one_of_many_waits_for_its_turn_at_a_time(cache):
    inside, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal inside, most
        with cache.turn(URL, 30) as ours:
            assert ours
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.003)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert leftovers(cache) == []


def test_a_holder_that_brings_nothing_is_waited_for_no_longer_than_its_patience(cache):
    with cache.turn(URL, 1) as first:
        assert first
        start = time.monotonic()
        with cache.turn(URL, 0.3) as second:
            assert not second
        assert 0.3 <= time.monotonic() - start < 30


def test_a_holder_that_goes_on_writing_is_waited_for(cache):
    part = cache.part(URL, None)
    stop = threading.Event()

    def work():
        while not stop.wait(0.02):
            part.write(b"x")

    with cache.turn(URL, 1):
        writer = threading.Thread(target=work)
        writer.start()
        threading.Timer(1.2, stop.set).start()
        start = time.monotonic()
        with cache.turn(URL, 0.7) as ours:
            assert not ours
        assert time.monotonic() - start > 1.5
    writer.join()
    part.discard()


def test_a_folder_of_somebody_else_or_open_to_others_is_refused(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(sp.ConfigError, match="can be written by others"):
        Cache(tmp_path / "open")
    (tmp_path / "file").touch()
    with pytest.raises(sp.ConfigError, match="cannot be made"):
        Cache(tmp_path / "file")
    with pytest.raises(sp.ConfigError, match="size above 0"):
        Cache(tmp_path / "kept", max_bytes=0)
    Cache(tmp_path / "kept")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(sp.ConfigError, match="belongs to user"):
        Cache(tmp_path / "kept")


def test_it_can_be_sent_to_another_process(cache):
    keep(cache)
    assert bytes(pickle.loads(pickle.dumps(cache)).file(URL, PIN)) == DATA


# disks that do not do


@pytest.fixture
def tiny(tmp_path):
    """A disk of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_read_past_with_one_warning(tiny, server, caplog):
    (tiny / "ballast").write_bytes(bytes(600 << 10))
    source = Source(network=QUICK, cache=Cache(tiny, max_bytes=10 << 20))
    for _ in range(2):
        assert bounded(whole, source, server.url("a.tar")) == DATA
    assert bounded(whole, source, server.url("b.tar")) == DATA[::-1]
    assert len([record for record in caplog.records if "shards are read past it" in record.getMessage()]) == 1
    assert [path.name for path in tiny.iterdir()] == ["ballast"]


def test_a_full_disk_is_found_amid_a_shard_of_unknown_size(tiny, server):
    server.put("big.tar", DATA * 3)
    server.script("big.tar", always=IgnoreRange())
    source = Source(network=QUICK, cache=Cache(tiny, max_bytes=10 << 20))
    download = source.download(server.url("big.tar"))
    assert bounded(lambda: b"".join(download.pieces())) == DATA * 3
    until(lambda: list(tiny.iterdir()) == [])


def test_a_disk_that_fills_evicts_and_goes_on(tiny, server):
    source = Source(network=QUICK, cache=Cache(tiny, max_bytes=10 << 20))
    before = counters.get("cache", "evicted")
    for name, data in (("a.tar", DATA), ("b.tar", DATA[::-1]), ("a.tar", DATA)):
        assert bounded(whole, source, server.url(name)) == data
    assert counters.get("cache", "evicted") == before + 2
    assert bytes(source.file(server.url("a.tar"))) == DATA


def test_a_disk_that_can_only_be_read_serves_what_it_has_and_takes_nothing(tiny, server, caplog):
    source = Source(network=QUICK, cache=Cache(tiny, max_bytes=10 << 20))
    assert bounded(whole, source, server.url("a.tar")) == DATA
    subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
    source = Source(network=QUICK, cache=Cache(tiny, max_bytes=10 << 20))
    assert bytes(source.file(server.url("a.tar"))) == DATA
    assert not caplog.records
    assert bounded(whole, source, server.url("b.tar")) == DATA[::-1]
    assert "shards are read past it" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "replace", "posix_fallocate", "ftruncate", "dup"])
def test_whatever_call_fails_the_bytes_come_and_nothing_is_left(server, tmp_path, monkeypatch, number, call):
    real = getattr(os, call)

    def fails(*args, **options):
        if call != "open" or str(args[0]).endswith((".part", ".shard")):
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    monkeypatch.setattr(part_module.os, call, fails)
    cache = Cache(tmp_path / "kept")
    source = Source(network=Network(**{**vars(QUICK), "window": 200_000}), cache=cache)
    assert bounded(whole, source, server.url("a.tar")) == DATA
    monkeypatch.undo()
    kept = cache.file(server.url("a.tar"), Pin())
    assert kept is None or bytes(kept) == DATA
    until(lambda: leftovers(cache) == [])


def test_each_call_failing_once_in_turn_leaves_a_cache_that_is_right(server, tmp_path, monkeypatch):
    """SQLite's loop: fail the N-th operation, for N = 1, 2, 3 ... until nothing fails."""
    calls = ["open", "pwrite", "pread", "fsync", "replace", "unlink", "ftruncate", "posix_fallocate", "fstat"]
    real = {name: getattr(os, name) for name in calls} | {"flock": fcntl.flock}
    count = {"left": 0, "failed": False}

    def failing(name):
        def call(*args, **options):
            where = str(args[0]) if args else ""
            if isinstance(args[0], (str, os.PathLike)) and str(tmp_path) not in where:
                return real[name](*args, **options)
            count["left"] -= 1
            if count["left"] == 0:
                count["failed"] = True
                raise OSError(errno.EIO, f"{name} fails")
            return real[name](*args, **options)

        return call

    url = server.url("a.tar")
    for number in range(1, 200):
        cache = Cache(tmp_path / f"kept{number}")
        source = Source(network=QUICK, cache=cache)
        source._pin(url)
        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(os, name, failing(name))
            patch.setattr(fcntl, "flock", failing("flock"))
            count.update(left=number, failed=False)
            assert bounded(whole, source, url) == DATA, f"operation {number} failed"
            until(
                lambda source=source: not source._live.downloads or all(d.done for d in source._live.downloads.values())
            )
            failed, count["left"] = count["failed"], -1
        kept = Cache(cache.folder).file(url, Pin())
        assert kept is None or bytes(kept) == DATA
        again = Source(network=QUICK, cache=Cache(cache.folder))
        assert bounded(whole, again, url) == DATA  # and the next run is sound
        assert bytes(again.file(url)) == DATA
        shutil.rmtree(cache.folder, ignore_errors=True)  # its lock may be on its way out
        if not failed:
            break
    assert not failed
    assert number > 8


def test_descriptors_that_run_out_are_no_reason_to_fail(tmp_path):
    """In a process of its own: with so few of them, only the cache does without."""
    with FaultServer({"a.tar": DATA}) as server:
        program = f"""
import os, resource, sys
from streampipe.source import Cache, Network, Source
source = Source(network=Network(requests=1, window=200_000), cache=Cache({str(tmp_path / "kept")!r}))
url = {server.url("a.tar")!r}
source.read(url, 0, 10)
open_now = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (open_now, 64))
assert len(b"".join(source.chunks(url))) == {len(DATA)}
"""
        ran = subprocess.run(["python", "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
