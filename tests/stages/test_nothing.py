"""A chain that drops everything is an error in every tier: it must not look like a hang, nor like a short epoch."""

import json

import pytest

import streampipe as sp
from tests.data import photo, shard

SMALL = sp.Buckets(base=64, step=8, min=32, max=128)
LARGE = sp.Buckets(base=512, step=64, min=256, max=1024)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    samples = [(f"{i:02d}", {"jpg": photo(i, 60 + i, 60), "txt": "a"}) for i in range(6)]
    (folder / "0.tar").write_bytes(shard(samples))
    (folder / "side.json").write_text(json.dumps([{"key": "none", "score": 1}]))
    return folder


DROPS = {
    "caption": lambda pipe, side: pipe.caption("none", missing="drop").decode(32).batch(2),
    "join": lambda pipe, side: pipe.join(side, missing="drop").decode(32).batch(2),
    "map": lambda pipe, side: pipe.decode(32).map(lambda sample: sp.SKIP).batch(2),
    "upscale": lambda pipe, side: pipe.decode(512, upscale="drop").batch(2),
    "caption in groups": lambda pipe, side: pipe.bucket(SMALL).caption("none", missing="drop").decode().batch(2),
    "join in groups": lambda pipe, side: pipe.bucket(SMALL).join(side, missing="drop").decode().batch(2),
    "map in groups": lambda pipe, side: pipe.bucket(SMALL).decode().map(lambda sample: sp.SKIP).batch(2),
    "upscale in groups": lambda pipe, side: pipe.bucket(LARGE).decode(upscale="drop").batch(2),
}


@pytest.mark.parametrize("epochs", [1, None])
@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("name", DROPS)
def test_dropping_everything_is_an_error(photos, monkeypatch, name, tier, epochs):
    monkeypatch.setattr("streampipe.stages.nothing.NOTHING_LEFT", 50)
    pipe = sp.stream(photos / "0.tar", tier=tier, epochs=epochs)
    words = "skipped or dropped by stages" if tier == "planned" else "dropped every one of"
    with pytest.raises((sp.StageError, sp.TooManyErrors), match=words):
        next(iter(DROPS[name](pipe, str(photos / "side.json")).loader()))


@pytest.mark.parametrize("name", ["filter", "where"])
def test_a_group_of_which_nothing_is_left_is_not_everything(photos, name):
    pipe = sp.stream(photos / "0.tar", tier="sequential").bucket(SMALL).decode()
    kept = pipe.filter(lambda s: s["__key__"] == "03") if name == "filter" else pipe.where("key == '03'")
    (batch,) = kept.batch(1)
    assert batch["__key__"] == ["03"]


def test_a_bad_condition_behind_bucket_is_an_error_in_the_end(photos):
    pipe = sp.stream(photos / "0.tar", epochs=None).bucket(SMALL).filter(lambda s: False).decode().batch(2)
    with pytest.raises(sp.StageError, match=r"'bucket' dropped every one of \d+ samples: the stages between"):
        next(iter(pipe))
