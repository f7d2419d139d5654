"""A folder of images is streamed as the shards that ``pack`` would make of it: planned, resumable, by its facts."""

import json
import os

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.testing import check_source
from tests.data import photo, write_shards

SIZES = [(60 + 20 * (i % 3), 40 + 10 * (i % 4)) for i in range(11)]  # width, height


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Shards of about three samples, and facts that are remembered in the test's folder."""
    monkeypatch.setattr("streampipe.folders.facts._MEAN", 3)
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    (path / "more").mkdir(parents=True)
    for i, size in enumerate(SIZES):
        stem = path / ("more" if i % 2 else "") / f"{i:02d}"
        stem.with_suffix(".jpg").write_bytes(photo(i, *size))
        stem.with_suffix(".txt").write_text(f"photo {i}")
        stem.with_suffix(".json").write_text(json.dumps({"score": i, "tags": {"n": -i}}))
    (path / "00.mask.png").write_bytes(photo(0, *SIZES[0]))
    return path


def plain(pipe):
    """Samples without what says where they are from."""
    return [{name: value for name, value in each.items() if name not in ("__url__", "__position__")} for each in pipe]


def keys(pipe):
    return [sample["__key__"] for sample in pipe]


def test_it_keeps_what_a_sample_source_promises(folder):
    source = sp.Folder(folder)
    assert len(source.shards) > 2
    check_source(source)


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_it_gives_the_samples_that_pack_writes(folder, tmp_path, tier):
    sp.pack(folder, tmp_path / "out", progress=False)
    assert plain(sp.stream(folder, tier=tier)) == plain(sp.stream(tmp_path / "out"))
    first = next(iter(sp.stream(folder, tier=tier)))
    assert first["__url__"] == str(folder / "00.jpg")


def test_layouts_tables_and_captions_are_those_of_pack(tmp_path):
    path = tmp_path / "kohya"
    (path / "3_cat").mkdir(parents=True)
    (path / "3_cat" / "a.jpg").write_bytes(photo(1))
    (sample,) = sp.stream(path)
    assert (sample["txt"], json.loads(sample["json"])["repeats"]) == (b"cat", 3)
    (sample,) = sp.stream(sp.Folder(path, layout="classes"))
    assert (sample["cls"], json.loads(sample["json"])) == (b"0", {"class": "3_cat"})


def test_conditions_and_buckets_ask_facts_that_are_found_once(folder, tmp_path, monkeypatch):
    wide = [i for i, (width, height) in enumerate(SIZES) if width >= 80 and i < 9]
    pipe = sp.stream(folder, tier="planned").where("width >= 80 and score < 9 and tags.n > -9 and bytes > 10")
    assert sorted(int(key[-2:]) for key in keys(pipe)) == wide
    assert len(sp.stream(folder).where("width >= 80").loader()) == sum(width >= 80 for width, _ in SIZES)
    monkeypatch.setattr("streampipe.folders.facts.probe", None)  # what was remembered is not looked at again
    pipe = sp.stream(folder, shuffle=True).bucket([(40, 60), (50, 100)], tail="merge").decode().select("jpg")
    batches = list(pipe.batch(2))
    assert sum(len(batch["__key__"]) for batch in batches) == len(SIZES)
    assert {tuple(batch["jpg"].shape[2:]) for batch in batches} == {(40, 60), (50, 100)}


def test_a_new_file_leaves_the_facts_of_other_shards_as_they_are(folder, monkeypatch):
    list(sp.stream(folder).where("width > 0"))
    looked_at = []

    def size(folder, name, file, read):
        looked_at.append(file)
        return 9, 9, {}

    monkeypatch.setattr("streampipe.folders.facts._size", size)
    (folder / "zz.jpg").write_bytes(photo(1))
    assert len(list(sp.stream(folder).where("width > 0"))) == len(SIZES) + 1
    assert 0 < len(looked_at) < len(SIZES)


def test_a_run_resumes_and_workers_give_the_same_batches(folder):
    pipe = sp.stream(folder, shuffle=True, seed=1).select("txt").batch(2)
    loader = pipe.loader()
    whole = []
    for batch in loader:
        whole.append(batch["__key__"])
        if len(whole) == 2:
            state = loader.state_dict()
    again = pipe.loader(num_workers=2)
    again.load_state_dict(state)
    assert [batch["__key__"] for batch in again] == whole[2:]


@pytest.mark.parametrize("tier", [None, "sequential"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.write_bytes(b"more" + path.read_bytes()), "changed since the folder was listed: .* bytes"),
        (lambda path: os.utime(path, (1, 1)), "changed since the folder was listed: it was written to"),
        (lambda path: path.unlink(), r"is gone \(No such file"),
    ],
    ids=["grown", "touched", "vanished"],
)
def test_a_file_that_changed_or_vanished_is_an_error_that_says_so(folder, tier, change, says):
    strict = sp.stream(folder, tier=tier)
    lenient = sp.stream(folder, tier=tier, on_error=sp.ErrorPolicy("skip"))
    change(folder / "04.jpg")
    with pytest.raises(sp.SampleError, match=f"04.jpg {says}.*make the stream anew"):
        list(strict)
    before = counters.get("skipped", "SampleError")
    assert len(list(lenient)) == len(SIZES) - 1
    assert counters.get("skipped", "SampleError") == before + 1


def test_what_cannot_be_read_is_an_error_or_left_out_and_counted(folder):
    (folder / "empty.jpg").touch()
    with pytest.raises(sp.ConfigError, match=r"empty.jpg cannot be read \(it is empty\)"):
        sp.stream(folder)
    assert len(list(sp.stream(folder, on_error="skip"))) == len(SIZES)
    assert counters.get("listing", "samples that cannot be read passed over")


def test_names_that_collide_are_an_error(folder):
    (folder / "00.png").write_bytes(photo(1))
    with pytest.raises(sp.NameCollision, match="00"):
        sp.stream(folder)


def test_a_folder_without_images_or_of_two_kinds_is_an_error_that_says_what_to_do(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(sp.ConfigError, match="no shard matches"):
        sp.stream(tmp_path / "empty")
    (tmp_path / "texts" / "below").mkdir(parents=True)
    (tmp_path / "texts" / "below" / "a.txt").write_text("a")
    with pytest.raises(sp.ConfigError, match="texts: it holds no image, nor a shard"):
        sp.stream(tmp_path / "texts")
    write_shards(folder, (2,))
    with pytest.raises(
        sp.ConfigError, match="images holds 7 images or videos and 1 shards: say .* format='folder' or 'tar'"
    ):
        sp.stream(folder)
    assert len(list(sp.stream(folder, format="tar"))) == 2
    assert len(list(sp.stream(folder, format="folder"))) == len(SIZES)


def test_options_that_mean_nothing_for_a_folder_and_remote_ones_are_refused(folder):
    with pytest.raises(sp.ConfigError, match="cache= means nothing for format 'folder'"):
        sp.stream(folder, cache="x")
    with pytest.raises(sp.ConfigError, match="is remote"):
        sp.stream("s3://bucket/images/", format="folder")
    with pytest.raises(sp.ConfigError, match="different kinds"):
        sp.stream([str(folder), "s3://bucket/a.tar"])
