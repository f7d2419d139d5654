"""What a process holds while it reads remote shards stays within ``Network.memory``, as the system counts it."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import streampipe as sp
from streampipe.tar import TarWriter
from streampipe.testing import FaultServer

MEMORY = 24 << 20
MARGIN = 24 << 20
"""For what is no bytes of samples: threads, connections, indexes, what the heap keeps."""
CHILD = """
import sys, streampipe as sp

def resident(kind):
    return int(open("/proc/self/status").read().partition(kind)[2].split()[0]) << 10

def read(names, shuffle=False, lanes=False, threads=0):
    pipe = sp.stream(url.replace("x", names, 1), seed=0, shuffle=shuffle, network=sp.Network(memory=int(memory)))
    if lanes:
        pipe = pipe.filter(bool)
    for _ in pipe.map(len, "bin").batch(16).loader(num_workers=0, threads=threads):
        pass

url, memory = sys.argv[1:]
read("00"), read("bare00")
before = resident("VmRSS:")
for given in ("{00..07}", True, False, 0), ("bare{00..07}", False, False, 0), ("{00..07}", True, True, 2):
    open("/proc/self/clear_refs", "w").write("5")
    read(*given)
    print(resident("VmHWM:") - before)
assert "sympy" not in sys.modules
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One shard of 12 MB under many names, with indexes and without."""
    folder, file, rng = tmp_path_factory.mktemp("shards"), io.BytesIO(), np.random.default_rng(0)
    writer = TarWriter(file.write)
    for number in range(40):
        writer.add(f"{number:04d}", {"bin": rng.bytes(int(rng.integers(200_000, 400_000)))})
    writer.close()
    for number in range(8):
        (folder / f"{number:02d}.tar").write_bytes(file.getvalue())
    sp.index(folder, progress=False)
    objects = {each.name: each.read_bytes() for each in folder.iterdir()}
    bare = {f"bare{name}": data for name, data in objects.items() if name.endswith(".tar")}
    with FaultServer({**objects, **bare}) as server:
        yield server


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is counted by Linux alone"
)
def test_a_process_grows_by_no_more_than_its_memory_planned_sequential_and_in_lanes_with_threads(server):
    child = [sys.executable, "-c", CHILD, server.url("x.tar"), str(MEMORY)]
    grown = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout.split()
    assert max(map(int, grown)) < MEMORY + MARGIN, [f"{int(each) >> 20} MB" for each in grown]
    assert len(grown) == 3
