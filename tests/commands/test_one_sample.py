"""``cat --json`` and ``extract``: one sample, as values and as files."""

import json

import pytest

from streampipe.cli import main
from tests.data import photo, shard


@pytest.fixture
def path(tmp_path):
    """A shard of two samples; the key of one is a path."""
    samples = [
        ("deep/in/a", {"jpg": photo(), "txt": "été", "json": '{"n": NaN, "m": 1}', "bin": b"\0"}),
        ("b", {"cls": "7"}),
    ]
    (tmp_path / "0.tar").write_bytes(shard(samples))
    return tmp_path / "0.tar"


def run(capsys, *arguments):
    status = main([str(each) for each in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_sample_is_json_of_what_its_fields_mean(path, capsys):
    status, out, _ = run(capsys, "cat", path, "deep/in/a", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["key"] == "deep/in/a"
    assert found["fields"]["jpg"] == {"bytes": len(photo()), "format": "JPEG", "height": 120, "width": 160}
    assert found["fields"]["txt"] == {"bytes": 5, "value": "été"}
    assert found["fields"]["bin"] == {"bytes": 1}
    assert json.loads(run(capsys, "cat", path, "b.cls", "--json")[1])["fields"] == {"cls": {"bytes": 1, "value": 7}}


def test_fields_become_files_in_the_folder_whatever_the_key_says(path, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    status, said, _ = run(capsys, "extract", path, "deep/in/a", "--out", out, "--json")
    assert status == 0
    assert sorted(each.name for each in out.iterdir()) == ["a.bin", "a.jpg", "a.json", "a.txt"]
    assert (out / "a.jpg").read_bytes() == photo()
    assert json.loads(said)["files"][str(out / "a.txt")] == 5
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0.tar", "new"]


def test_one_field_alone_and_no_file_is_replaced(path, tmp_path, capsys):
    assert run(capsys, "extract", path, "b.cls", "--out", tmp_path)[:2] == (0, f"{tmp_path}/b.cls\t1\n")
    (tmp_path / "b.cls").write_text("mine")
    status, _, err = run(capsys, "extract", path, "b", "--out", tmp_path)
    assert status == 1
    assert "is there; move it away" in err
    assert (tmp_path / "b.cls").read_text() == "mine"
    status, _, err = run(capsys, "extract", path, "b.__url__", "--out", tmp_path)
    assert "has no field '__url__'" in err
