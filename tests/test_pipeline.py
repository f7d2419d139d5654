"""A pipeline as a thing: its length, its truth, and what travels with its samples."""

import pytest
import torch
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe.compat import webdataset as compat
from tests import levels
from tests.data import write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("levels")
    levels.write_levels(found)
    return found


@pytest.mark.parametrize("level", ["indexed", "counted"])
def test_the_length_of_a_pipeline_is_what_a_pass_yields(folder, level):
    pipe = levels.samples(level, "each", folder)
    assert len(pipe) == len([*pipe]) == sum(levels.COUNTS)
    batched = pipe.batch(4)
    assert len(batched) == len([*batched]) == len(DataLoader(batched, batch_size=None))
    assert len(batched.of_rank(0, 2)) == len([*batched.of_rank(0, 2)])
    assert len(levels.samples(level, "each", folder, epochs=3)) == 3 * sum(levels.COUNTS)


CHANGES = {
    "apply": lambda pipe: pipe.map(dict),
    "repeat": lambda pipe: pipe.repeat(1),
    "mix": lambda pipe: sp.mix([pipe]),
    "concat": lambda pipe: sp.concat([pipe]),
    "mix of batches": lambda pipe: sp.mix([pipe.batch(1)]),
    "split": lambda pipe: sp.split(pipe, share=1e-9)[0],
    "webdataset": lambda pipe: compat.WebDataset(pipe).repeat(1).to_tuple("__key__"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_rank_that_was_given_goes_along_whatever_is_made_of_the_pipeline(folder, change):
    pipe = levels.samples("indexed", "each", folder)
    parts = [list(CHANGES[change](pipe.of_rank(rank, 3))) for rank in range(3)]
    assert [len(part) for part in parts] == [sum(levels.COUNTS) // 3] * 3
    keys = {str(sample[0] if isinstance(sample, tuple) else sample["__key__"]) for part in parts for sample in part}
    assert len(keys) == sum(levels.COUNTS)


def test_a_rank_is_told_to_write_and_one_that_is_given_there_comes_first(folder, tmp_path):
    pipe = levels.samples("indexed", "each", folder)
    for rank in range(2):
        pipe.of_rank(rank, 2).select("txt").write(f"{tmp_path}/ranks/{{:03d}}.tar", max_samples=9, progress=False)
        assert len(list((tmp_path / "ranks").glob("*.tar"))) == (3, 5)[rank]
    pipe.of_rank(1, 2).select("txt").write(
        f"{tmp_path}/all/{{:03d}}.tar", max_samples=9, rank=0, world_size=1, progress=False
    )
    assert len(list((tmp_path / "all").glob("*.tar"))) == 5


def test_parts_of_several_ranks_and_half_of_a_rank_are_refused(folder):
    pipe = levels.samples("indexed", "each", folder)
    with pytest.raises(sp.ConfigError, match=r"some are of_rank\(0, 2\) and of_rank\(1, 2\): say of_rank behind it"):
        sp.mix([pipe.of_rank(0, 2), pipe.of_rank(1, 2)])
    with pytest.raises(sp.ConfigError, match=r"some are of no rank and of_rank\(1, 2\)"):
        sp.concat([pipe, pipe.of_rank(1, 2)])
    with pytest.raises(sp.ConfigError, match="give rank and world_size together"):
        pipe.of_rank(0, 2).loader(world_size=4)


def test_the_length_of_bucketed_epochs_is_that_of_the_next_pass(folder):
    pipe = levels.bucketed(folder).batch(4)
    for epoch in range(4):
        pipe.set_epoch(epoch)
        assert len(pipe) == len([*pipe])


@pytest.mark.parametrize(
    "pipe",
    [
        lambda folder: levels.samples("streamed", "each", folder),
        lambda folder: levels.samples("indexed", "filter", folder),
        lambda folder: levels.samples("indexed", "each", folder, epochs=None),
        lambda folder: sp.from_iterable([1, 2, 3]),
    ],
)
def test_where_nobody_can_know_there_is_no_length(folder, pipe):
    with pytest.raises(TypeError, match="this pipeline has no length, because"):
        len(pipe(folder))
    assert pipe(folder)  # a pipeline is true, whatever its length


def test_listing_a_pipeline_compiles_it_once(folder, monkeypatch):
    from streampipe import pipeline
    from streampipe.engine import plain

    compiled = []
    for module in (plain, pipeline):
        inner = module.compile
        monkeypatch.setattr(module, "compile", lambda *a, inner=inner: compiled.append(a) or inner(*a))
    pipe = levels.samples("indexed", "each", folder)
    list(pipe)
    assert len(compiled) == 1


def test_a_position_can_be_rebuilt_as_trainers_rebuild_tuples():
    position = sp.Position(1, 2, 3)
    assert type(position)(each for each in position) == position
    assert type(position)(*position) == position == position._replace(epoch=1)
    assert (position.epoch, position.shard, position.sample) == (1, 2, 3)


def seeded(text, rng):
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 63)))
    return torch.rand(2, generator=generator)


@pytest.mark.parametrize("options", [{"threads": 3}, {"num_workers": 1, "threads": 2}])
def test_torch_seeded_by_rng_is_the_same_in_threads_and_workers(tmp_path, options):
    write_shards(tmp_path, [20, 20])
    pipe = sp.stream(str(tmp_path)).map(seeded, "txt").batch(8)
    alone = torch.cat([batch["txt"] for batch in pipe])
    assert torch.equal(torch.cat([batch["txt"] for batch in pipe.loader(**options, fixed_epoch=True)]), alone)
    assert len({*map(tuple, alone.tolist())}) == 40


def fails(text):
    raise KeyError(text)


def test_an_error_of_a_worker_is_the_one_of_the_pipeline(tmp_path):
    write_shards(tmp_path, [4])
    loader = sp.stream(str(tmp_path)).map(fails, "txt").batch(2).loader(1)
    with pytest.raises(sp.StageError) as caught:
        next(iter(loader))
    assert str(caught.value).startswith("stage 'map(fails)', sample '0000000' of ")
    assert "Traceback" not in str(caught.value)
    assert "in fails" in str(caught.value.__cause__)  # where it came from is shown in front of it
