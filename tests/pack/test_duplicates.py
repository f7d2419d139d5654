"""Images that look the same are packed once, the first in order, whatever their size, format and quality."""

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

import streampipe as sp
from streampipe.cli import main
from tests.data import photo
from tests.pack.test_pack import contents, quiet


def picture(seed):
    """Soft blobs: what a perceptual hash is made for."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((384, 256), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(4))


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def source(tmp_path):
    pytest.importorskip("imagehash")
    folder = tmp_path / "in"
    folder.mkdir()
    one, two = picture(1), picture(2)
    (folder / "a.jpg").write_bytes(encoded(one, "JPEG", quality=90))
    (folder / "b.jpg").write_bytes(encoded(two, "JPEG", quality=90))
    (folder / "b.txt").write_text("the first of two")
    (folder / "c.webp").write_bytes(encoded(one.resize((192, 128)), "WEBP", quality=70))
    (folder / "d.png").write_bytes(encoded(two, "PNG"))
    (folder / "e.jpg").write_bytes(encoded(picture(3), "JPEG", quality=90))
    (folder / "f.jpg").write_bytes((folder / "a.jpg").read_bytes()[:2000])  # damaged: the same as no other
    return folder


LISTED = [{"file": "c.webp", "same_as": "a.jpg"}, {"file": "d.png", "same_as": "b.jpg"}]


def listed(out):
    return [json.loads(line) for line in (out / "repeated.jsonl").read_text().splitlines()]


def test_the_first_of_those_that_look_the_same_stays_and_the_others_are_listed(tmp_path, source, capsys):
    out = tmp_path / "out"
    assert main(["pack", str(source), str(out), "--deduplicate-alike"]) == 0
    assert "2 images that are there twice, packed once" in capsys.readouterr().out
    assert listed(out) == LISTED
    assert sorted(contents(out)) == ["a", "b", "e", "f"]
    assert quiet(source, tmp_path / "equal", deduplicate=True).repeated == 0
    assert not (tmp_path / "equal" / "repeated.jsonl").exists()


def test_samples_of_shards_that_look_the_same_are_packed_once(tmp_path, source):
    quiet(source, tmp_path / "shards")
    out = tmp_path / "out"
    assert quiet(f"{tmp_path}/shards/*.tar", out, deduplicate="alike", shuffle=True).repeated == 2
    assert listed(out) == [{"file": one["file"][0], "same_as": one["same_as"][0]} for one in LISTED]
    assert sorted(contents(out)) == ["a", "b", "e", "f"]


def test_what_is_missing_and_what_is_no_way_to_deduplicate_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(sp.ConfigError, match=r"deduplicate is True, False or 'alike', not 'near'"):
        quiet(tmp_path, tmp_path / "out", deduplicate="near")
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(sp.ConfigError, match=r"needs one more package: pip install 'streampipe\[perceptual\]'"):
        quiet(tmp_path, tmp_path / "out", deduplicate="alike")


@pytest.mark.parametrize("kind", ["folder", "shards", "parquet"])
def test_what_is_packed_once_is_counted_once_in_its_bucket(tmp_path, kind):
    given = tmp_path / "in"
    given.mkdir()
    for name in "abc":
        (given / f"{name}.jpg").write_bytes(photo(0 if name < "c" else 1, 64, 64))
    if kind == "shards":
        quiet(given, tmp_path / "shards")
        given = tmp_path / "shards"
    if kind == "parquet":
        rows = [{"key": name, "image": {"bytes": (given / f"{name}.jpg").read_bytes(), "path": None}} for name in "abc"]
        given = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_pylist(rows), given)
    summary = quiet(given, tmp_path / "out", deduplicate=True, bucket="sdxl")
    assert summary.samples == 2
    assert "buckets, height x width: 1024x1024 (2)" in summary.notes
    assert any("there twice" in note for note in summary.notes)
