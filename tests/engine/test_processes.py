"""Real processes with torch.distributed (gloo), killed in mid-epoch, that go on as a job of other numbers of ranks."""

from __future__ import annotations

import json
import signal
import time
from functools import partial

import pytest

from tests import levels
from tests.engine.lanes import STEPS, Job, divisors, lanes_of, slots
from tests.engine.train import main
from tests.warm import Program

SIZE = 12
PASSES = 2
CELLS = {
    "indexed": ("indexed", "each", None),
    "indexed, opaque": ("indexed", "opaque", STEPS),
    "counted": ("counted", "each", None),
    "counted, opaque": ("counted", "opaque", STEPS),
    "streamed, filter": ("streamed", "filter", STEPS),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("processes")
    levels.write_levels(found, [6, 3, 9, 7, 5, 8, 4, 6] * 2)  # 96 samples: full batches on any ranks
    return found


class Processes:
    """A job of real processes."""

    def __init__(self, name, out, ranks, **options):
        self.name, self.out, self.ranks = name, out, ranks
        options |= {"out": str(out), "job": name, "size": SIZE, "passes": PASSES}
        self.running = []
        for rank in range(ranks):
            environment = {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
            self.running.append(Program(main, options, environment=environment, stderr=out / f"{name}.{rank}.err"))

    def lines(self, rank):
        """What a rank has logged so far, whole lines only."""
        path = self.out / f"{self.name}.{rank}.log"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def errors(self):
        """The end of what each rank said before it died."""
        return "\n".join((self.out / f"{self.name}.{rank}.err").read_text()[-1500:] for rank in range(self.ranks))

    def kill_after(self, step):
        """SIGKILL to all of them as soon as each has taken so many steps."""
        while not all(any(line[0] == step for line in self.lines(rank)) for rank in range(self.ranks)):
            assert all(each.poll() is None for each in self.running), self.errors()
            time.sleep(0.01)
        self.kill()

    def kill(self):
        """SIGKILL, the last rank first."""
        for each in reversed(self.running):
            each.send_signal(signal.SIGKILL)
        for each in self.running:
            each.wait()

    def finish(self, seconds=600):
        """Wait for the end; all steps of each rank."""
        end = time.monotonic() + seconds
        codes = [each.wait(max(1, end - time.monotonic())) for each in self.running]
        assert codes == [0] * self.ranks, self.errors()
        ends = [self.lines(rank)[-1] for rank in range(self.ranks)]
        assert ends == [ends[0]] * self.ranks, "unequal steps"

    def batches(self, places):
        """Global batches by their step, slot by slot."""
        found = {}
        for rank in range(self.ranks):
            for step, part in self.lines(rank):
                if step != "end":
                    whole = found.setdefault(step, [None] * SIZE)
                    for q, row in zip(slots(SIZE, places, rank, self.ranks), part, strict=True):
                        whole[q] = tuple(row)
        return {step: tuple(batch) for step, batch in found.items()}


@pytest.fixture
def start(tmp_path, warm):
    """Starts jobs; what of them still runs at the end is killed."""
    jobs = []

    def begin(name, ranks, **options):
        jobs.append(Processes(name, tmp_path, ranks, **options))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.kill()


WAYS = [  # the states of all ranks, or one that was merged of them: both where states are of lanes, else one
    ("indexed", "list"),
    ("indexed, opaque", "merged"),
    ("counted", "merged"),
    ("counted, opaque", "list"),
    ("streamed, filter", "list"),
    ("streamed, filter", "merged"),
]


@pytest.mark.parametrize(("cell", "way"), WAYS)
def test_a_killed_job_goes_on_with_the_same_batches_on_other_ranks(tmp_path, start, folder, cell, way):
    level, chain, steps = CELLS[cell]
    make = partial(levels.samples, level, chain, folder)
    reference = Job(make, SIZE, steps=steps)
    if steps:
        expected = reference.take(PASSES * steps)
    else:
        expected = reference.take()
        reference.begin()
        expected += reference.take()
    places, columns = lanes_of(make, SIZE)
    ranks = divisors(SIZE if cell == "indexed" else places, (2, 3, 1))
    assert len(ranks) > 1
    before, after = (ranks[-2], ranks[0]) if len(ranks) == 3 else ranks  # 3 and 2, or 2 and 1
    workers = 2 if columns % 2 == 0 else 0
    options = {"level": level, "chain": chain, "folder": str(folder), "steps": steps, "way": way}

    killed = start("killed", before, workers=workers, **options)
    killed.kill_after(len(expected) // 2 + 1)
    saved = json.loads((tmp_path / "checkpoint.json").read_text())["done"]
    first = killed.batches(places)
    resumed = start("resumed", after, workers=0, **options)
    resumed.finish()
    second = resumed.batches(places)
    assert min(second) == saved + 1
    got = {**{step: first[step] for step in range(1, saved + 1)}, **second}
    assert [got[step] for step in sorted(got)] == expected
