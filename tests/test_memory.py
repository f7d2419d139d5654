"""Memory of batches is used again, and never while anybody looks at it."""

import gc
import os
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import memory
from streampipe.gil import has_gil
from streampipe.memory import Block, Blocks, empty, fill

SIZE = 40_000

VIEWS = (
    lambda t: t,
    lambda t: t[7:9],
    lambda t: t.view(torch.int16)[3:],
    lambda t: t.numpy(),
    lambda t: t.numpy()[5:].reshape(-1, 5)[1],
    lambda t: torch.from_numpy(t.numpy()[1::2]),
    lambda t: t.untyped_storage(),
    lambda t: torch.utils.dlpack.from_dlpack(t),
    lambda t: memoryview(t.numpy())[9:],
)
"""What somebody may keep of a batch."""


def values(kept):
    """The bytes of something that was kept."""
    return set(bytes(kept)) if isinstance(kept, memoryview) else set(np.asarray(torch.as_tensor(kept)).tobytes())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(range(len(VIEWS))), st.integers(0, 5)), max_size=30))
def test_what_somebody_keeps_of_a_block_is_never_overwritten(steps):
    blocks, kept = Blocks(), []
    for number, (view, drop) in enumerate(steps, 1):
        lent = blocks.take(SIZE)
        lent.fill_(number % 256)
        kept.append((number % 256, VIEWS[view](lent)))
        del lent
        for _ in range(min(drop, len(kept))):
            kept.pop(len(kept) // 2)
        for wanted, each in kept:
            if not isinstance(each, torch.UntypedStorage):
                assert values(each) == {wanted}
            else:
                assert each[0] == wanted


def test_a_block_is_lent_again_as_soon_as_its_last_view_is_gone():
    blocks = Blocks()
    for view in VIEWS:
        lent = blocks.take(SIZE)
        address, kept = lent.data_ptr(), view(lent)
        del lent
        assert blocks.take(SIZE).data_ptr() != address
        del kept
        assert blocks.take(SIZE).data_ptr() == address
        blocks.trim()


def test_blocks_are_for_sizes_like_theirs_and_few_stay_that_nobody_uses():
    blocks = Blocks()
    address = blocks.take(SIZE).data_ptr()
    assert blocks.take(SIZE * 9 // 10).data_ptr() == address
    assert blocks.take(SIZE // 2).data_ptr() != address
    many = [blocks.take(SIZE) for _ in range(memory._MOST)]
    assert blocks.take(SIZE) is None
    del many
    blocks.take(SIZE)
    assert len(blocks._blocks) <= memory._IDLE + 1
    blocks.trim()
    assert not blocks._blocks


def test_threads_never_share_a_block():
    blocks, wrong = Blocks(), []

    def work(number):
        for _ in range(100):
            lent = blocks.take(SIZE)
            lent.fill_(number)
            if set(lent.unique().tolist()) != {number}:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_a_forked_child_has_blocks_of_its_own():
    lent = memory._own.take(SIZE)
    with memory._own._lock:  # as another thread may hold it
        child = os.fork()
        if not child:
            os._exit(0 if memory._own.take(SIZE) is not None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not memory._own.holding(lent).is_free


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.complex64, torch.bool, torch.float64])
@pytest.mark.parametrize("edge", [2, 200])
def test_batches_have_the_shape_dtype_and_layout_that_were_asked_for(dtype, edge):
    for channels_last in (False, True):
        like = torch.empty(
            (2, 3, edge, edge),
            dtype=dtype,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
        found = empty((2, 3, edge, edge), dtype, channels_last)
        assert (found.shape, found.dtype, found.stride()) == (like.shape, like.dtype, like.stride())
        value = (torch.rand(3, edge, edge) * 9).to(dtype)
        fill(found[1], value)
        assert torch.equal(found[1], value)


LETS_GO = """
import resource
from streampipe.memory import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        fields = [bytes(400_000) for _ in range(32)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
first = faults()
keep_freed()
faults()
print(first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.skipif(not has_gil(), reason="bytes are not the C library's: free-threaded Python keeps what was freed")
def test_memory_that_is_let_go_is_not_taken_from_the_system_again():
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    came = subprocess.run([sys.executable, "-c", LETS_GO], check=True, capture_output=True, text=True, env=env)
    before, after = map(int, came.stdout.split())
    assert after < before / 10


def test_memory_that_is_let_go_in_a_collection_amid_taking_some_does_not_wait_for_itself(monkeypatch):
    """A pass that the garbage collector ends lets memory go, in whatever thread the collector begins."""
    blocks = Blocks()
    lend, done = Block.lend, threading.Event()

    class Ended:
        def __del__(self):
            blocks.trim()

    def collecting(self):
        ended = Ended()
        ended.me = ended
        del ended
        gc.collect()
        return lend(self)

    def work():
        kept = [blocks.take(SIZE) for _ in range(2)]
        assert len({each.data_ptr() for each in kept}) == 2
        done.set()

    monkeypatch.setattr(Block, "lend", collecting)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert done.wait(60)
    thread.join()
    blocks.trim()
    assert not blocks._blocks
