"""A pipeline is a datasource of Ray Data with the same samples, and its stages run in ``map_batches``."""

import re
from pathlib import Path

import numpy as np
import pytest

import streampipe as sp
from tests.pack.test_pack import folder_of, quiet

ray = pytest.importorskip("ray")
compat = pytest.importorskip("streampipe.compat.ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture(scope="module")
def cluster():
    import ray.data

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    place = tmp_path_factory.mktemp("ray data")
    return quiet(folder_of(place / "in", 9), place / "out", max_samples=2).out


def rows_of(pipe, **options):
    return ray.data.read_datasource(compat.PipelineSource(pipe, **options)).take_all()


def test_shares_are_those_of_workers_and_have_every_sample_of_the_epoch_once(shards, cluster):
    pipe = sp.stream(shards, shuffle=True, seed=3).where("width == 40")
    rows = rows_of(pipe, shares=3, epoch=2)
    samples = {sample["__key__"]: sample for sample in pipe}
    assert sorted(row["__key__"] for row in rows) == sorted(samples)
    for row in rows:
        wanted = {name: value for name, value in samples[row["__key__"]].items() if name != "__position__"}
        assert {name: value for name, value in row.items() if value is not None} == wanted


def test_decoded_images_are_tensors_and_batches_are_their_rows(shards, cluster):
    pipe = sp.stream(shards, shuffle=True, seed=1).rename(image="jpg").select("image").decode(32, crop="random")
    images = {sample["__key__"]: sample["image"].numpy() for sample in pipe}
    for each in (pipe, pipe.batch(2)):
        rows = rows_of(each, shares=2)
        assert sorted(row["__key__"] for row in rows) == sorted(images)
        assert all(np.array_equal(row["image"], images[row["__key__"]]) for row in rows)


def test_stages_in_map_batches_choose_as_they_do_in_a_pipeline_whatever_ray_cuts(shards, cluster):
    def stages(pipe):
        return pipe.filter(lambda sample: sample["__key__"] != "000").decode(32, crop="random")

    plain = sp.stream(shards, seed=5).rename(image="jpg").select("image")
    wanted = {sample["__key__"]: sample["image"].numpy() for sample in stages(plain)}
    found = ray.data.read_datasource(compat.PipelineSource(plain, shares=2))
    for size in (2, 5):
        rows = found.map_batches(compat.Stages(stages, seed=5), batch_size=size).take_all()
        assert sorted(row["__key__"] for row in rows) == sorted(wanted)
        assert all(np.array_equal(row["image"], wanted[row["__key__"]]) for row in rows)


def test_rows_of_others_need_a_key_and_what_has_no_end_is_refused(shards):
    rows = {"path": np.array(["a", "b"], object), "n": np.array([1, 2])}
    found = compat.Stages(lambda pipe: pipe.map(lambda n: n + 1, "n"), key="path")(rows)
    assert found["n"].tolist() == [2, 3]
    assert found["__key__"].tolist() == ["a", "b"]
    with pytest.raises(sp.ConfigError, match=r"no column '__key__' \(there are: path, n\)"):
        compat.Stages(lambda pipe: pipe)(rows)
    with pytest.raises(sp.ConfigError, match="a pipeline that ends"):
        compat.PipelineSource(sp.stream(shards, epochs=None))


def test_the_document_is_right(shards, cluster):
    document = (Path(__file__).parents[2] / "docs" / "drop-ins.md").read_text()
    (code,) = re.findall(r"```python\n(import ray.data.*?)```", document, re.DOTALL)
    names = {"sp": sp}
    exec(code.replace("shards/", str(shards)), names)
    rows = names["small"].take_all()
    assert len({row["__key__"] for row in rows}) == len(rows) == 9
    assert all(row["image"].shape == (3, 32, 32) for row in rows)
