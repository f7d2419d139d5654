"""Processes that share a cache and are killed: what is kept is whole, nobody waits for the dead, nothing is left over.

Children are forked from here (a fresh interpreter takes seconds); each ends with ``os._exit`` or by a signal.
"""

import fcntl
import os
import random
import signal
import time

import pytest

from streampipe.source import Cache, Network, Source
from streampipe.source.part import Part
from streampipe.source.store import Pin
from streampipe.testing import FaultServer, Stall
from tests.source.conftest import DATA, bounded, until, whole

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SHARD = DATA[:300_000]
NETWORK = Network(stall=60, tries=3, first_wait=0, window=50_000, requests=4)
"""With such patience, a test that waits for the dead does not end in time."""


@pytest.fixture
def server():
    with FaultServer({f"{i}.tar": SHARD[i:] for i in range(6)}) as server:
        yield server


def fork(function, *arguments):
    """A child that runs this; 0 is its exit code if all went well."""
    child = os.fork()
    if child:
        return child
    try:
        function(*arguments)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


def ended(child, seconds=30.0):
    """A child's exit code, or minus the signal that ended it; not later than that."""
    result = []

    def over():
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            result.append(os.waitstatus_to_exitcode(status))
        return bool(pid)

    try:
        until(over, seconds)
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return result[0]


def read_all(server, folder, order=range(6)):
    source = Source(network=NETWORK, cache=Cache(folder))
    for number in order:
        url = server.url(f"{number}.tar")
        view = source.file(url)
        got = bytes(view) if view is not None else whole(source, url)
        assert got == SHARD[number:]


def check(server, folder, numbers=range(6)):
    """What is kept is right; a reader gets everything, soon; then there are shards in the folder and nothing else."""
    for number in numbers:
        kept = Cache(folder).file(server.url(f"{number}.tar"), Pin())
        assert kept is None or bytes(kept) == SHARD[number:]
    bounded(read_all, server, folder, numbers)
    Cache(folder).make_room(1)
    until(lambda: all(path.suffix == ".shard" for path in folder.iterdir()))


def die_at(operation):
    """Make this process kill itself at its N-th operation on files."""
    left = [operation]

    def counted(real):
        def call(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call

    for name in ("open", "pwrite", "fsync", "replace", "unlink", "ftruncate", "posix_fallocate", "close"):
        setattr(os, name, counted(getattr(os, name)))
    fcntl.flock = counted(fcntl.flock)


def test_a_process_killed_at_any_operation_leaves_a_cache_that_is_right(server, tmp_path):
    folder = tmp_path / "kept"

    def work(operation):
        die_at(operation)
        read_all(server, folder, [0])

    for operation in range(1, 200):
        code = ended(fork(work, operation))
        check(server, folder, [0])
        (folder / Cache(folder).path(server.url("0.tar")).name).unlink()
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert operation > 10
    assert code == 0


def test_a_process_killed_at_any_byte_leaves_a_cache_that_is_right(server, tmp_path):
    folder = tmp_path / "kept"
    rng = random.Random(0)

    def work(byte):
        write = Part.write

        def dies(part, data):
            room = byte - part.written
            if room < len(data):
                write(part, data[: max(0, room)])
                os.kill(os.getpid(), signal.SIGKILL)
            write(part, data)

        Part.write = dies
        read_all(server, folder, [0])

    for _ in range(40):
        assert ended(fork(work, rng.randrange(len(SHARD)))) == -signal.SIGKILL
        assert not Cache(folder).has(server.url("0.tar"))
    check(server, folder, [0])


def test_processes_killed_at_any_time_leave_a_cache_that_is_right(server, tmp_path):
    """As a scheduler ends a job: the whole group at once, no matter what each is doing."""
    folder = tmp_path / "kept"
    rng = random.Random(1)
    for _ in range(12):
        children = [fork(read_all, server, folder, rng.sample(range(6), 6)) for _ in range(4)]
        time.sleep(rng.uniform(0.0, 0.15))
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            assert ended(child) in (0, -signal.SIGKILL)
    check(server, folder)


def test_a_shard_is_downloaded_once_for_all_processes(server, tmp_path):
    folder = tmp_path / "kept"
    server.latency = 0.01
    rng = random.Random(2)
    children = [fork(read_all, server, folder, rng.sample(range(6), 6)) for _ in range(5)]
    assert [ended(child) for child in children] == [0] * 5
    for number in range(6):
        gets = [each.range for each in server.requests if each.name == f"{number}.tar" and each.method == "GET"]
        assert sorted(gets) == sorted(set(gets)), "a part was downloaded twice"
    check(server, folder)


def test_another_takes_over_from_a_downloader_that_was_killed(server, tmp_path):
    folder = tmp_path / "kept"
    server.script("0.tar", None, Stall(10))
    first = fork(read_all, server, folder, [0])
    until(lambda: folder.exists() and any(path.suffix == ".lock" for path in folder.iterdir()))
    until(lambda: len([each for each in server.requests if each.method == "GET"]) > 1)
    others = [fork(read_all, server, folder, [0]) for _ in range(3)]
    time.sleep(0.1)
    assert all(os.waitpid(child, os.WNOHANG)[0] == 0 for child in others)  # they wait
    os.kill(first, signal.SIGKILL)
    start = time.monotonic()
    assert ended(first) == -signal.SIGKILL
    assert [ended(child) for child in others] == [0] * 3
    assert time.monotonic() - start < 20  # and not for the minute that a silent holder may take
    check(server, folder, [0])


def test_two_jobs_with_different_orders_and_a_small_cache_both_get_everything(server, tmp_path):
    folder = tmp_path / "kept"

    def work(order):
        source = Source(network=NETWORK, cache=Cache(folder, max_bytes=2 * 305_000))
        for number in order:
            url = server.url(f"{number}.tar")
            view = source.file(url)
            assert (bytes(view) if view is not None else whole(source, url)) == SHARD[number:]
            del view

    rng = random.Random(3)
    orders = [[number for _ in range(3) for number in rng.sample(range(6), 6)] for _ in range(3)]
    children = [fork(work, order) for order in orders]
    most = 0
    alive = set(children)
    deadline = time.monotonic() + 60
    while alive and time.monotonic() < deadline:
        for child in list(alive):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                assert os.waitstatus_to_exitcode(status) == 0
                alive.discard(child)
        try:
            sizes = [path.stat().st_size for path in folder.iterdir()]
        except FileNotFoundError:
            continue
        most = max(most, sum(sizes))
        time.sleep(0.002)
    assert not alive, "it hangs"
    assert most <= 2 * 305_000


def test_a_child_forked_amid_reading_reads_for_itself(server, tmp_path):
    source = Source(network=NETWORK, cache=Cache(tmp_path / "kept"))
    plain = Source(network=NETWORK)
    begun = plain.chunks(server.url("1.tar"), [server.url("2.tar")])
    next(begun)
    source.download(server.url("0.tar"))

    def work():
        assert whole(plain, server.url("2.tar")) == SHARD[2:]
        assert whole(source, server.url("0.tar")) == SHARD

    assert ended(fork(work)) == 0
    assert len(b"".join(begun)) > 0
