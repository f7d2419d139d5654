"""A folder in a zip archive is packed as the same folder on the disk, and nothing of it is unpacked."""

import json
import zipfile

import pytest

import streampipe as sp
from streampipe.cli import main
from tests.pack.test_pack import contents, folder_of, quiet


def zipped(place, folder, prefix="", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(place, "w", compression) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, prefix + str(path.relative_to(folder)))
    return place


@pytest.fixture
def source(tmp_path):
    source = folder_of(tmp_path / "in", 6)
    (source / "metadata.jsonl").write_text(json.dumps({"file_name": "sub/001.jpg", "score": 7}))
    return source


def test_an_archive_becomes_the_shards_of_its_folder(tmp_path, source):
    options = {"max_samples": 4, "shuffle": True, "where": "width == 40", "deduplicate": True}
    here = quiet(source, tmp_path / "a", **options)
    there = quiet(zipped(tmp_path / "x.zip", source), tmp_path / "b", num_workers=2, **options)
    assert (there.samples, there.notes) == (here.samples, here.notes)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != {}
    assert quiet(tmp_path / "x.zip", tmp_path / "b", **options).kept == there.shards


def test_a_folder_inside_of_an_archive_and_what_systems_leave(tmp_path, source):
    (source / "__MACOSX").mkdir()
    (source / "__MACOSX" / "000.jpg").write_bytes(b"x")
    place = zipped(tmp_path / "Data.ZIP", source, "data/train/")
    found = quiet(f"{place}/data/train", tmp_path / "out")
    quiet(source, tmp_path / "plain")
    assert found.hidden == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    with pytest.raises(sp.PackError, match="nothing below zip:.*/data/test; give the folder that holds the images"):
        quiet(f"{place}/data/test", tmp_path / "none")


def test_damage_is_a_sentence_or_is_listed(tmp_path, source, capsys):
    place = zipped(tmp_path / "x.zip", source, compression=zipfile.ZIP_STORED)
    data = bytearray(place.read_bytes())
    data[data.index((source / "000.jpg").read_bytes()) + 50] ^= 1
    place.write_bytes(data)
    with pytest.raises(sp.PackError, match=r"'000.jpg' in .*x\.zip cannot be read \(Bad CRC-32.*fetch the archive"):
        quiet(place, tmp_path / "out")
    assert main(["pack", str(place), str(tmp_path / "out"), "--on-error", "skip"]) == 3
    assert "000" not in contents(tmp_path / "out")
    place.write_bytes(data[:-30])
    assert main(["pack", str(place), str(tmp_path / "other")]) == 1
    assert "x.zip is no zip archive that can be read" in capsys.readouterr().err


def test_a_name_that_leads_out_of_an_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("../../metadata.csv", "file_name,text")
    with pytest.raises(sp.SourceError, match=r"holds '\.\./\.\./metadata\.csv', a name that leads out of it"):
        quiet(tmp_path / "x.zip", tmp_path / "out")


def test_an_archive_in_a_store_is_to_be_fetched(tmp_path):
    with pytest.raises(sp.ConfigError, match=r"memory://b/x\.zip is an archive in a store: fetch it"):
        quiet("memory://b/x.zip", tmp_path / "out")


def test_parts_elsewhere_are_refused(tmp_path, source):
    with pytest.raises(sp.ConfigError, match="beside= is of a local folder, which zip:"):
        quiet(zipped(tmp_path / "x.zip", source), tmp_path / "out", beside={"mask": str(source)})
