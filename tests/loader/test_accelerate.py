"""Accelerate over a pipeline or its loader: each sample once over two ranks, or a refusal that says what to do."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest
import torch
from torch.utils.data import DataLoader

import streampipe as sp
from tests import levels
from tests.data import write_shards
from tests.levels import keys_of, rows
from tests.warm import Program

pytest.importorskip("accelerate")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def collate(rows):
    return {"cls": torch.stack([row["cls"] for row in rows])}


def make(folder, what):
    pipe = sp.stream(folder, shuffle=8, epochs=None if "endless" in what else 1).map(number, "cls")
    batched = pipe.batch(4, collate=collate)  # accelerate sends tensors to other ranks, and no texts
    if what == "loader":
        return batched.loader()
    if what == "loader, endless":
        return batched.loader(steps_per_epoch=8)
    if what == "DataLoader":
        return DataLoader(pipe, batch_size=4, collate_fn=collate)
    if what == "DataLoader, workers":
        return DataLoader(pipe, batch_size=4, collate_fn=collate, num_workers=2)
    return DataLoader(batched, batch_size=None)


def two_epochs(folder, what, dispatch):
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))
    prepared = accelerator.prepare(make(folder, what))
    found = []
    for epoch in range(2):
        if hasattr(prepared, "set_epoch"):
            prepared.set_epoch(epoch)
        found.append([int(x) for batch in prepared for x in batch["cls"]])
    return found


def answer_all(folder):
    """One rank: a line for each cell."""
    for what, dispatch in CELLS:
        try:
            answer = {"got": two_epochs(folder, what, dispatch)}
        except sp.ConfigError as error:
            answer = {"refused": str(error)}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps([what, dispatch, answer]), flush=True)


PREPARED = ("DataLoader", "DataLoader, workers", "DataLoader of batches", "loader", "loader, endless")
CELLS = [(what, dispatch) for what in PREPARED for dispatch in (None, False, True)]


@pytest.fixture(scope="module")
def answers(tmp_path_factory, warm):
    """What two ranks, as two processes, got in each cell: by cell, one answer a rank."""
    folder = tmp_path_factory.mktemp("accelerate")
    write_shards(folder / "data", [16] * 4)
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    running = []
    for rank in range(2):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        said = {"stdout": folder / f"{rank}.out", "stderr": folder / f"{rank}.err"}
        running.append(Program(answer_all, folder / "data", environment=environment, **said))
    try:
        for each in running:
            each.wait(600)
    except subprocess.TimeoutExpired:
        pass  # the cells that have no answer fail
    finally:
        for each in running:
            each.kill()
            each.wait()
    found = {cell: [] for cell in CELLS}
    for rank in range(2):
        for line in (folder / f"{rank}.out").read_text().splitlines():
            what, dispatch, answer = json.loads(line)
            found[what, dispatch].append(answer)
    return found


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


NO_SIZE = "unsupported operand type(s) for *: 'NoneType'"
NUMBERS = sorted(10000 * shard + i for shard in range(4) for i in range(16))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell[0]}-dispatch {cell[1]}")
def test_two_ranks_see_each_sample_once_or_are_told_what_to_do(answers, cell):
    first, second = answers[cell] if len(answers[cell]) == 2 else pytest.fail("a rank has no answer: it waits for ever")
    if "refused" in first or "refused" in second:
        # where rank 0 reads for both, rank 1 hears of it as a connection that ends
        assert {*first, *second} <= {"refused", "error"}, f"a rank goes on alone: {first}, {second}"
        advice = first.get("refused") or second["refused"]
        assert "loader(" in advice or "rank" in advice, f"no advice: {first}"
        return
    if cell[0] == "DataLoader of batches" and NO_SIZE in first.get("error", "") and NO_SIZE in second.get("error", ""):
        return  # accelerate's own words for a DataLoader without a batch size
    assert {*first, *second} == {"got"}, f"{first}, {second}"
    for epoch, (a, b) in enumerate(zip(first["got"], second["got"], strict=True)):
        assert sorted(a + b) == NUMBERS, f"epoch {epoch}: {len(a)} and {len(b)}, {len({*a, *b})} different"
        assert len(a) == len(b)


# --- one process: what rebuilds a DataLoader from loader.dataset ---


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    found = tmp_path_factory.mktemp("levels")
    levels.write_levels(found)
    return found


@pytest.fixture
def accelerator():
    accelerate = pytest.importorskip("accelerate")
    yield accelerate.Accelerator(cpu=True)
    accelerate.state.AcceleratorState._reset_state(True)


def loader_of(folder, level, **options):
    return levels.samples(level, "each", folder).batch(4).loader(**options)


def right_or_refused(expected, run):
    """The batches that an uninterrupted run yields, or an error that names the library's own way."""
    try:
        got = run()
    except sp.ConfigError as error:
        assert "loader(" in str(error) or "load_state_dict" in str(error), f"no advice: {error}"
    else:
        assert got == expected


@pytest.mark.parametrize("level", ["indexed", "streamed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_prepared_loader_of_one_process_yields_its_epochs(local, accelerator, level, workers):
    reference = loader_of(local, level)
    whole = [keys_of([rows(batch) for batch in reference]) for _ in range(2)]
    prepared = accelerator.prepare(loader_of(local, level, num_workers=workers))
    right_or_refused([sorted(each) for each in whole], lambda: [sorted(keys_of(map(rows, prepared))) for _ in range(2)])


@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_skip_first_batches_skips_them_or_is_refused_with_advice(local, level):
    from accelerate import skip_first_batches

    whole = [rows(batch) for batch in loader_of(local, level)]
    right_or_refused(whole[3:], lambda: [rows(batch) for batch in skip_first_batches(loader_of(local, level), 3)])


@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_skip_first_batches_of_a_prepared_loader_too(local, accelerator, level):
    whole = [rows(batch) for batch in loader_of(local, level)]

    def run():
        prepared = accelerator.prepare(loader_of(local, level))
        return [rows(batch) for batch in accelerator.skip_first_batches(prepared, 3)]

    right_or_refused(whole[3:], run)


@pytest.mark.parametrize("level", ["indexed", "streamed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_made_of_a_loaders_dataset_works_or_is_refused_with_advice(local, level, workers):
    whole = [rows(batch) for batch in loader_of(local, level)]

    def run():
        dataset = loader_of(local, level).dataset
        rebuilt = DataLoader(dataset, batch_size=None, num_workers=workers)
        return sorted(keys_of(rows(batch) for batch in rebuilt))

    right_or_refused(sorted(keys_of(whole)), run)


def test_a_state_saved_by_accelerate_names_the_loaders_place(local, accelerator, tmp_path):
    """save_state and load_state, where accelerate keeps the states of stateful loaders, or nothing of the data."""
    whole = [rows(batch) for batch in loader_of(local, "indexed")]

    def run():
        loader = loader_of(local, "indexed")
        accelerator.register_for_checkpointing(loader)
        running = iter(loader)
        got = [rows(next(running)) for _ in range(3)]
        accelerator.save_state(str(tmp_path / "state"))
        accelerator._custom_objects.clear()
        fresh = loader_of(local, "indexed")
        accelerator.register_for_checkpointing(fresh)
        accelerator.load_state(str(tmp_path / "state"))
        return [*got, *(rows(batch) for batch in fresh)]

    right_or_refused(whole, run)


def tensors(local, level):
    pipe = levels.samples(level, "each", local).map(number, "cls").select("cls", metadata=False)
    return pipe.batch(4)


def number(text):
    return torch.tensor(int(text))


def numbers(batches):
    return [int(each) for batch in batches for each in batch["cls"]]


@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_a_pipelines_state_in_a_loop_that_is_read_ahead_is_refused_and_right_behind_it(local, accelerator, level):
    pipe, resumed = tensors(local, level), tensors(local, level)
    for _ in accelerator.prepare(DataLoader(pipe, batch_size=None)):
        break
    with pytest.raises(sp.ConfigError, match="Accelerate reads one batch ahead"):
        pipe.state_dict()
    reference = tensors(local, level)
    whole = [numbers(reference) for _ in range(2)]
    assert numbers(accelerator.prepare(DataLoader(pipe, batch_size=None))) == whole[0]  # it counts the epochs itself
    resumed.load_state_dict(pipe.state_dict())
    assert numbers(resumed) == whole[1]


@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_lightning_reads_ahead_of_a_plain_dataloader_without_a_length(local, level):
    fetchers = pytest.importorskip("lightning.pytorch.loops.fetchers")
    from lightning.pytorch.utilities.combined_loader import CombinedLoader

    pipe, resumed = tensors(local, level), tensors(local, level)
    whole = numbers(tensors(local, level))
    fetcher = fetchers._PrefetchDataFetcher()
    fetcher.setup(CombinedLoader(DataLoader(pipe, batch_size=None)))
    first, _, _ = next(iter(fetcher))
    if level == "streamed":
        with pytest.raises(sp.ConfigError, match="Lightning reads one batch ahead"):
            pipe.state_dict()
    else:
        resumed.load_state_dict(pipe.state_dict())
        assert numbers([first]) + numbers(resumed) == whole
