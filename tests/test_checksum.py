"""Checksums that a thread makes are those of all bytes, in their order; and the thread ends."""

import hashlib
import random
import threading

import pytest

import streampipe as sp
from streampipe import checksum
from streampipe.checksum import Hashes
from streampipe.pack.contents import FilesOf


def ours():
    return [each for each in threading.enumerate() if each.name == "streampipe-sha256"]


@pytest.mark.parametrize("beside", [False, True])
def test_several_digests_are_each_of_their_own_bytes(monkeypatch, beside):
    monkeypatch.setattr(checksum.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(checksum, "_AT_ONCE", 5_000)
    random_of = random.Random(0)
    digests = [hashlib.sha256() for _ in range(3)]
    whole = [b"", b"", b""]
    with Hashes(beside) as hashes:
        assert len(ours()) == beside
        for _ in range(200):
            which, data = random_of.randrange(3), random_of.randbytes(random_of.choice((0, 10, 3_000, 9_000)))
            hashes.update(digests[which], data)
            whole[which] += data
    assert [each.hexdigest() for each in digests] == [hashlib.sha256(each).hexdigest() for each in whole]
    assert not ours()


def test_with_one_processor_there_is_no_thread(monkeypatch):
    monkeypatch.setattr(checksum.os, "sched_getaffinity", lambda _: {0})
    with Hashes(beside=True):
        assert not ours()


def test_the_thread_ends_where_packing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(checksum.os, "sched_getaffinity", lambda _: {0, 1})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"...")

    def gone(*_):
        assert ours()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FilesOf, "_one", gone)
    with pytest.raises(sp.PackError, match="No space left"):
        sp.pack(tmp_path / "in", tmp_path / "out", progress=False)
    assert not ours()
