"""Whether samples or batches stand between two stages: what cannot work there is refused when the pipeline is made."""

import pytest
from torch.utils.data import DataLoader

import streampipe as sp
from tests.data import write_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("shards")
    write_photos(found, [5, 4])
    return str(found)


@sp.stage
def anything(items):
    yield from items


def same(item):
    return item


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (lambda p: p.batch(4).decode(64), "decode works on samples, and stands behind batch"),
        (lambda p: p.batch(4).map(same).rename(image="jpg").decode(64), "decode works on samples"),
        (lambda p: p.batch(4).caption(), "caption works on samples"),
        (lambda p: p.batch(4).fit(64), "fit works on samples"),
        (lambda p: p.batch(4).where("width > 1"), "where works on samples"),
        (lambda p: p.batch(4).join("x.json"), "join works on samples"),
        (lambda p: p.batch(4).bucket("sdxl"), "bucket works on samples"),
        (lambda p: p.batch(4).batch(2), "would make batches of batches"),
        (lambda p: p.batch(4).apply(sp.timed(sp.stage(rows="each", takes="samples")(same))()), "works on samples"),
        (lambda p: p.unbatch(), "unbatch takes batches apart, and there are none here"),
        (lambda p: p.batch(4).unbatch().unbatch(), "unbatch takes batches apart"),
    ],
)
def test_a_stage_in_the_wrong_place_is_refused_with_advice(folder, chain, words):
    with pytest.raises(sp.ConfigError, match=words):
        chain(sp.stream(folder))


@pytest.mark.parametrize(
    "chain",
    [
        lambda p: p.batch(4).unbatch().decode(16).batch(3),
        lambda p: p.batch(4).apply(anything()).batch(2),  # nobody knows what it yields
        lambda p: p.decode(16).batch(4).map(same).select("jpg").take(1),
        lambda p: p.flat_map(lambda s: [s]).decode(16).batch(2),
    ],
)
def test_what_may_make_sense_is_not_refused(folder, chain):
    assert list(chain(sp.stream(folder)))


def test_batches_of_the_users_own_may_be_taken_apart():
    assert len(list(sp.from_iterable([{"n": [1, 2]}, {"n": [3]}]).unbatch())) == 3


@pytest.mark.parametrize("options", [{}, {"batch_size": 16}, {"batch_size": 2, "num_workers": 1}])
def test_a_dataloader_that_would_batch_batches_is_refused(folder, options):
    with pytest.raises(sp.ConfigError, match="give it batch_size=None"):
        next(iter(DataLoader(sp.stream(folder).batch(4), **options)))


def test_a_dataloader_may_batch_samples_or_pass_batches_on(folder):
    pipe = sp.stream(folder).decode(16)
    assert next(iter(DataLoader(pipe, batch_size=3)))["jpg"].shape == (3, 3, 16, 16)
    assert next(iter(DataLoader(pipe.batch(4), batch_size=None)))["jpg"].shape == (4, 3, 16, 16)


def test_images_that_are_bucketed_but_never_decoded_are_refused(folder):
    with pytest.raises(sp.ConfigError, match=r"put decode\(\) between bucket and batch"):
        sp.stream(folder).bucket("sd15").batch(2).loader().__iter__().__next__()
    assert "buckets" in sp.stream(folder).bucket("sd15").batch(2).explain()
    assert list(sp.stream(folder).bucket("sd15").select("txt").batch(2))
    assert list(sp.stream(folder).bucket("sd15").batch(2).map(same))  # it may decode, on a GPU
