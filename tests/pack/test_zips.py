"""A folder in a zip archive is packed as the same folder on the disk, and nothing of it is unpacked."""

import json
import warnings
import zipfile

import pytest

import streampipe as sp
from streampipe.cli import main
from tests.data import photo
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


def test_two_entries_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("a.jpg", photo(0, 16, 16))
        file.writestr("a.jpg", photo(1, 16, 16))
    with pytest.raises(sp.SourceError, match=r"twice.zip holds 'a.jpg' twice; unpack it"):
        quiet(tmp_path / "twice.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def link(file, name, target):
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    file.writestr(entry, target)


def test_a_link_in_an_archive_is_the_file_that_it_leads_to_or_is_not_packed(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as file:
        file.writestr("real/a.jpg", photo(0, 16, 16))
        link(file, "top.jpg", "x/y.jpg")
        link(file, "x/y.jpg", "../real/a.jpg")
    quiet(tmp_path / "links.zip", tmp_path / "out")
    assert {fields["jpg"] for fields in contents(tmp_path / "out").values()} == {photo(0, 16, 16)}
    assert len(contents(tmp_path / "out")) == 3
    for number, target in enumerate(("../../etc/passwd", "/etc/passwd", "out.jpg", "real")):
        place = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(place, "w") as file:
            file.writestr("real/a.jpg", photo(0, 16, 16))
            link(file, "out.jpg", target)
        assert main(["pack", str(place), str(tmp_path / f"{number}"), "--quiet"]) == 1
        assert "out.jpg cannot be packed (a symbolic link out of the folder" in capsys.readouterr().err
        assert main(["pack", str(place), str(tmp_path / f"{number}"), "--quiet", "--on-error", "skip"]) == 3
        assert list(contents(tmp_path / f"{number}")) == ["real/a"]


def test_a_default_caption_deep_in_an_archive_is_found(tmp_path):
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as file:
        for folder, caption in (("", "top"), ("p/q/r/s/", "deep")):
            file.writestr(f"{folder}a.jpg", photo(0, 16, 16))
            file.writestr(f"{folder}default.txt", caption)
    quiet(tmp_path / "deep.zip", tmp_path / "out")
    found = {key: fields["txt"].decode() for key, fields in contents(tmp_path / "out").items()}
    assert found == {"a": "top", "p/q/r/s/a": "deep"}


def test_references_deep_in_an_archive_are_those_of_the_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "refs.zip", "w") as file:
        for top in ("images", "refs"):
            file.writestr(f"{top}/a/b/c/d/0001.jpg", photo(0, 16, 16))
    quiet(tmp_path / "refs.zip", tmp_path / "out")
    assert {key: set(fields) for key, fields in contents(tmp_path / "out").items()} == {
        "a/b/c/d/0001": {"jpg", "ref.jpg"}
    }


def test_names_of_a_store_that_no_disk_has_do_not_stand_in_the_way(tmp_path):
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as file:
        file.writestr("a.jpg", photo(0, 16, 16))
        file.writestr("x", "a file")
        file.writestr("x/b.jpg", photo(1, 16, 16))
        file.writestr(f"{'long' * 80}/c.md", "text")
    quiet(tmp_path / "odd.zip", tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["a", "x/b"]


def test_an_archive_in_a_store_is_to_be_fetched(tmp_path):
    with pytest.raises(sp.ConfigError, match=r"memory://b/x\.zip is an archive in a store: fetch it"):
        quiet("memory://b/x.zip", tmp_path / "out")


def test_parts_elsewhere_are_refused(tmp_path, source):
    with pytest.raises(sp.ConfigError, match="beside= is of a local folder, which zip:"):
        quiet(zipped(tmp_path / "x.zip", source), tmp_path / "out", beside={"mask": str(source)})
