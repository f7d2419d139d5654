"""Receive buffers come back when nobody holds them, and never before."""

import threading

import pytest

from streampipe.errors import SourceError
from streampipe.source.buffers import Buffers


def _at(memory):
    return memory.obj.ctypes.data


def test_memory_that_somebody_holds_is_not_given_to_others():
    buffers = Buffers(10 << 20)
    held = [buffers.take(100_000) for _ in range(20)]
    for number, each in enumerate(held):
        each[:] = bytes([number]) * 100_000
    parts = [each[10:20] for each in held]
    held.clear()
    for _ in range(50):
        buffers.take(100_000)[:] = b"\xff" * 100_000
    assert [set(each) for each in parts] == [{number} for number in range(20)]


def test_memory_is_used_again_by_what_is_nearly_as_large():
    buffers = Buffers(10 << 20)
    seen = set()
    for size in range(100_000, 106_000, 100):
        memory = buffers.take(size)
        assert len(memory) == size
        seen.add(_at(memory))
        del memory
    assert len(seen) == 1


def test_no_more_is_kept_than_allowed():
    buffers = Buffers(1 << 20)
    for size in (100_000, 200_000, 400_000, 800_000, 5_000_000, 50):
        buffers.take(size)
    assert buffers._bytes == sum(size * len(same) for size, same in buffers._known.items()) == 5 << 20
    assert len(buffers.take(50_000)) == 50_000
    assert buffers._bytes <= 1 << 20, "the large one was let go for it"
    assert len(buffers.take(5_000_000)) == 5_000_000
    assert len(buffers.take(0)) == 0


def test_free_buffers_go_before_there_are_more_than_allowed_beside_those_that_are_held():
    buffers = Buffers(8 << 20)
    held = [buffers.take(1 << 20) for _ in range(4)]
    for size in range(300_000, 900_000, 20_000):  # of all kinds, each free at once
        buffers.take(size)
        assert buffers._bytes <= 8.5 * (1 << 20)
    assert all(_at(buffers.take(1 << 20)) != _at(each) for each in held)
    held.clear()
    buffers.take(7 << 20)
    assert buffers._bytes <= 8.5 * (1 << 20), "what is held no longer is let go, too"


def test_more_than_any_memory_is_an_error_that_is_not_tried_again():
    """An index may say that a sample has a petabyte."""
    with pytest.raises(SourceError, match="there is no memory for 1125899906842624 bytes"):
        Buffers(1 << 20).take(1 << 50)


def test_threads_never_share_memory():
    buffers, wrong = Buffers(4 << 20), []

    def work(number):
        for _ in range(200):
            memory = buffers.take(20_000)
            memory[:] = bytes([number]) * 20_000
            if set(memory) != {number}:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


@pytest.mark.parametrize("used", [False, True])
def test_a_buffer_is_nobody_elses_from_the_moment_that_it_is_chosen(used):
    """Another thread may come between any two steps that are not locked: here it comes whenever the lock is let go."""
    buffers, others = Buffers(1 << 20), []

    class Interrupted:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            if not others:
                others.append(None)
                others.append(buffers.take(100_000))

    if used:
        buffers.take(100_000)
    buffers._lock = Interrupted()
    mine = buffers.take(100_000)
    mine[:] = b"a" * len(mine)
    others[1][:] = b"b" * len(mine)
    assert bytes(mine) == b"a" * len(mine)
