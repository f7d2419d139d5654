"""The commands that look into shards and check them."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import streampipe as sp
from streampipe import commands
from streampipe.cli import COMMANDS, main
from streampipe.index import index
from streampipe.source import Source
from streampipe.urls import expand
from tests.data import encoded, natural, photo, shard, write_photos


@pytest.fixture
def folder(tmp_path):
    """Two indexed shards of five photos with captions."""
    place = tmp_path / "shards"
    write_photos(place, [3, 2])
    indexed(place)
    return place


def indexed(place):
    source = Source()
    index(expand(str(place), lambda: source), source, progress=False)


def change(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def place_of(path, name):
    """Where the payload of a member begins."""
    import tarfile

    with tarfile.open(path) as archive:
        return archive.getmember(name).offset_data


def run(capsysbinary, *arguments):
    status = main([str(each) for each in arguments])
    printed = capsysbinary.readouterr()
    return status, printed.out.decode(), printed.err.decode()


def test_ls_names_shard_key_fields_and_size(folder, capsysbinary):
    status, out, _ = run(capsysbinary, "ls", folder)
    rows = [line.split("\t") for line in out.splitlines()]
    assert status == 0
    assert [row[1] for row in rows] == ["0000000", "0000001", "0000002", "0010000", "0010001"]
    assert rows[0] == [str(folder / "00000.tar"), "0000000", f"jpg={len(photo(0, 90, 80))} txt=13", "90x80"]


@pytest.mark.parametrize("compressed", [False, True])
def test_ls_and_cat_need_no_index(tmp_path, capsysbinary, compressed):
    data = shard([("a/b", {"txt": "one", "seg.png": b"two"}), ("c", {"txt": "three"})])
    path = tmp_path / ("x.tar.gz" if compressed else "x.tar")
    path.write_bytes(gzip.compress(data) if compressed else data)
    _, out, _ = run(capsysbinary, "ls", path)
    assert [line.split("\t")[1:] for line in out.splitlines()] == [["a/b", "seg.png=3 txt=3", "-"], ["c", "txt=5", "-"]]
    assert run(capsysbinary, "cat", path, "a/b.seg.png")[:2] == (0, "two")
    assert run(capsysbinary, "cat", path, "c")[:2] == (0, "three")


def test_cat_gives_the_very_bytes(folder, capsysbinary):
    assert main(["cat", str(folder), "0010001.jpg"]) == 0
    assert capsysbinary.readouterr().out == photo(10001, 90 + 10001 % 40, 80)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.txt", "there is no sample 'nothing' in the 2 shards of"),
        ("0000001", "has several fields; say one of: 0000001.jpg, 0000001.txt"),
        ("0000001.png", "has no field 'png'; say one of"),
    ],
)
def test_cat_says_what_there_is(folder, capsysbinary, name, said):
    status, out, err = run(capsysbinary, "cat", folder, name)
    assert (status, out) == (1, "")
    assert said in err


def test_cat_gives_no_bytes_that_changed(folder, capsysbinary):
    change(folder / "00000.tar", place_of(folder / "00000.tar", "0000001.txt"))
    status, out, err = run(capsysbinary, "cat", folder, "0000001.txt")
    assert (status, out) == (1, "")
    assert "crc32" in err


def test_info_counts(folder, capsysbinary):
    status, out, _ = run(capsysbinary, "info", folder)
    found = {}
    for line in out.splitlines():
        found.setdefault(line.split()[0], []).append(line[19:].strip())
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert status == 0
    assert found["shards"] == ["2"]
    assert found["samples"] == ["5"]
    assert found["bytes"] == [f"{size:,}"]
    assert found["fields"] == ["jpg (5), txt (5)"]
    assert found["tier"][0].startswith("planned")
    assert found["height"] == ["0 to 256             5  " + "#" * 40, "80 to 80, 80 on average"]


def test_info_of_shards_that_cannot_be_counted(folder, capsysbinary):
    (folder / "x.tar.gz").write_bytes(gzip.compress(shard([("a", {"txt": "b"})])))
    status, out, _ = run(capsysbinary, "info", folder)
    assert status == 0
    assert "5 in 2 shards; the others are not counted" in out
    assert "sequential: 1 shards have no index" in out


def test_verify_of_sound_shards(folder, capsysbinary):
    assert run(capsysbinary, "verify", folder, "--decode")[:2] == (0, "2 shards read, 0 damages found\n")
    assert run(capsysbinary, "verify", folder, "--quiet")[:2] == (0, "")


def test_verify_names_each_changed_sample(folder, capsysbinary):
    path = folder / "00000.tar"
    for name in ("0000000.txt", "0000002.jpg"):
        change(path, place_of(path, name))
    status, out, _ = run(capsysbinary, "verify", folder, "--quiet")
    assert status == 1
    assert "sha256" in out.splitlines()[0]
    assert [line.split("'")[1] for line in out.splitlines()[1:]] == ["0000000", "0000002"]
    assert "00001.tar" not in out


def test_verify_goes_on_behind_a_damaged_header(folder, capsysbinary):
    path = folder / "00000.tar"
    change(path, place_of(path, "0000002.jpg"))
    change(path, 5)
    status, out, _ = run(capsysbinary, "verify", folder, "--quiet")
    assert status == 1
    assert "byte 0: no tar header" in out.splitlines()[0]
    assert [line.split("'")[1] for line in out.splitlines()[1:]] == ["0000000", "0000002"]


def test_verify_says_what_a_short_shard_lacks(folder, capsysbinary):
    path = folder / "00000.tar"
    path.write_bytes(path.read_bytes()[: place_of(path, "0000001.txt")])
    status, out, _ = run(capsysbinary, "verify", folder, "--quiet")
    assert status == 1
    assert "before its end marker" in out
    assert "lacks 2 samples of its index, '0000001' to '0000002', at its end" in out


def test_verify_finds_a_shard_that_was_replaced(folder, capsysbinary):
    (folder / "00001.tar").write_bytes(shard([("0010000", {"txt": "other"}), ("new", {"txt": "more"})]))
    status, out, _ = run(capsysbinary, "verify", folder, "--quiet")
    assert status == 1
    assert "00001.index.parquet" in out.splitlines()[0]
    assert "sample '0010000', byte 0: the index has it or its fields elsewhere" in out
    assert "sample 'new', byte 1024: the index does not have it" in out
    assert "sample '0010001' of the index is not there" in out


def test_verify_checks_the_manifest_too(folder, capsysbinary):
    for path in folder.glob("*.index.parquet"):
        path.unlink()
    change(folder / "00000.tar", place_of(folder / "00000.tar", "0000001.txt"))
    (folder / "00001.tar").unlink()
    status, out, _ = run(capsysbinary, "verify", folder)
    assert status == 1
    assert "manifest.parquet has the sha256 of" in out
    assert "00001.tar is not there" in out
    assert "1 of them without an index" in out


@pytest.mark.parametrize("name", ["00000.index.parquet", "manifest.parquet"])
def test_verify_says_that_an_index_or_manifest_is_damaged(folder, capsysbinary, name):
    (folder / name).write_bytes(b"nonsense")
    status, out, _ = run(capsysbinary, "verify", folder, "--quiet")
    assert status == 1
    assert name in out


def test_verify_decodes_where_it_is_asked_to(tmp_path, capsysbinary):
    data = shard([("a", {"jpg": photo(1)[:900], "json": "{"}), ("b", {"txt": "fine"})])
    (tmp_path / "x.tar").write_bytes(data)
    assert run(capsysbinary, "verify", tmp_path, "--quiet")[:2] == (0, "")
    status, out, _ = run(capsysbinary, "verify", tmp_path, "--quiet", "--decode")
    assert status == 1
    assert [line.split("'")[3] for line in out.splitlines()] == ["jpg", "json"]


def test_verify_of_a_compressed_shard(tmp_path, capsysbinary):
    data = gzip.compress(shard([("a", {"txt": "b"})]))
    (tmp_path / "x.tar.gz").write_bytes(data)
    assert run(capsysbinary, "verify", tmp_path, "--quiet")[:2] == (0, "")
    (tmp_path / "x.tar.gz").write_bytes(data[:-9])
    status, out, _ = run(capsysbinary, "verify", tmp_path, "--quiet")
    assert status == 1
    assert "x.tar.gz" in out


@pytest.mark.parametrize("command", ["ls", "info", "verify", "cat"])
def test_a_shard_that_is_not_there_is_an_error(tmp_path, capsysbinary, command):
    status, out, err = run(capsysbinary, command, tmp_path / "no.tar", *(["a.txt"] if command == "cat" else []))
    assert status == 1
    assert "no.tar does not exist" in out + err


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    keys = [f"{i:05d}" for i in range(20_000)]
    (tmp_path / "x.tar").write_bytes(shard([(key, {"txt": "a"}) for key in keys]))
    command = [sys.executable, "-m", "streampipe.cli", "ls", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert b"00000" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_preview_draws_images_with_captions(folder, tmp_path, capsysbinary):
    from PIL import Image

    png = encoded(natural(50, 40), "PNG")
    (folder / "00002.tar").write_bytes(shard([("no image", {"txt": "x"}), ("z", {"png": png})]))
    indexed(folder)
    out = tmp_path / "sheet.png"
    status, said, _ = run(capsysbinary, "preview", folder, "--out", out, "--edge", 64, "--columns", 4)
    assert (status, said) == (0, f"6 samples: {out}\n")
    with Image.open(out) as drawn:
        assert drawn.size == (4 * 64, 2 * (64 + 44))
        assert len(drawn.crop((0, 0, 64, 64)).getcolors(10_000)) > 500  # a photo
        assert len(drawn.crop((0, 64, 64, 108)).getcolors(10_000)) > 1  # its caption
        assert len(drawn.crop((2 * 64, 108, 256, 216)).getcolors(10_000)) == 1  # nothing behind the last


def test_preview_says_why_there_is_no_sheet(folder, tmp_path, capsysbinary):
    (tmp_path / "texts.tar").write_bytes(shard([("a", {"txt": "x"})]))
    status, _, err = run(capsysbinary, "preview", tmp_path / "texts.tar", "--out", tmp_path / "x.png")
    assert status == 1
    assert "no sample of these shards has an image" in err
    status, _, err = run(capsysbinary, "preview", folder, "--out", tmp_path / "no" / "x.png")
    assert status == 1
    assert "cannot be written" in err


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ([], "samples of bytes"),
        (["--size", "32", "--threads", "2"], "images decoded to 32 x 32"),
        (["--workers", "1"], "samples of bytes"),
    ],
)
def test_bench_measures(folder, capsysbinary, options, what):
    status, out, _ = run(capsysbinary, "bench", folder, "--seconds", "1", "--batch", "2", *options)
    assert status == 0
    rate, samples, seconds = re.match(rf"([\d,]+) {what} a second \(([\d,]+) in ([\d.]+) s\)", out).groups()
    assert int(samples.replace(",", "")) / float(seconds) == pytest.approx(int(rate.replace(",", "")), rel=0.1, abs=1)
    assert int(rate.replace(",", "")) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bench", "x", "--workers", "-1"], "-1 is not 0 or more"),
        (["verify", "x", "--threads", "none"], "'none' is no whole number"),
        (["ls", "x", "--storage-options", "anon"], "is no JSON object"),
        (["info", "x", "--index", "no/such"], "'no/such' is no folder; streampipe index URL --out FOLDER makes one"),
        (["pack", "a", "b", "--max-bytes", "5X"], "is no size; write 500M or 1G"),
        (["pack", "a"], "arguments are required: out; streampipe pack --help says more"),
        (["info", "x", "--jsn"], "info: unrecognized arguments: --jsn; did you mean '--json'?"),
        (["bench", "x", "--batchs=3"], "--batchs=3; did you mean '--batch'?"),
        (["cat", "a", "b", "c"], "streampipe cat: unrecognized arguments: c; streampipe cat --help says more"),
        (["lss", "x"], "invalid choice: 'lss'"),
        ([], "required: COMMAND; streampipe --help says more"),
    ],
)
def test_wrong_usage_is_status_2_and_one_line_that_says_what_is_wanted(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_index_goes_on_behind_damaged_shards_where_it_is_asked_to(folder, capsysbinary):
    for path in folder.glob("*.parquet"):
        path.unlink()
    change(folder / "00000.tar", 5)
    status, _, err = run(capsysbinary, "index", folder, "--quiet")
    assert status == 1
    assert "00000.tar" in err
    status, out, _ = run(capsysbinary, "index", folder, "--on-error", "skip", "--json")
    done = json.loads(out)
    assert (status, done["shards"], done["samples"]) == (3, 2, 2)
    assert ["00000.tar" in line for line in done["failed"]] == [True]
    assert sorted(path.name for path in folder.glob("*.parquet")) == ["00001.index.parquet", "manifest.parquet"]
    change(folder / "00001.tar", 5)
    (folder / "00001.index.parquet").unlink()
    with pytest.raises(sp.CorruptShard, match="none of the 2 shards could be indexed"):
        sp.index(str(folder), on_error="skip", progress=False)


def test_verify_and_index_are_functions_with_results(folder):
    found = sp.verify(str(folder), progress=False)
    assert (bool(found), found.shards, found.damages, found.unindexed) == (True, 2, [], 0)
    assert sp.index(str(folder), progress=False).kept == 2
    change(folder / "00000.tar", place_of(folder / "00000.tar", "0000001.txt"))
    found = sp.verify([str(folder)], decode=True, progress=False)
    assert (bool(found), len(found.damages)) == (False, 2)
    assert sp.index(str(folder), progress=False).kept == 1  # the other is of what its shard was before
    tight = sp.Limits(max_member_bytes=100)
    with pytest.raises(sp.LimitExceeded):
        sp.index(str(folder), folder=str(folder / "other"), limits=tight, progress=False)
    assert len(sp.verify(str(folder), limits=tight, progress=False).damages) >= 2


def test_verify_prints_json(folder, capsysbinary):
    status, out, _ = run(capsysbinary, "verify", folder, "--json")
    assert status == 0
    assert {**json.loads(out), "seconds": 0} == {"shards": 2, "damages": [], "unindexed": 0, "seconds": 0}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sp.index("x.tar", on_error="ignore"), "on_error is 'raise' or 'skip', not 'ignore'"),
        (lambda: sp.index("x.tar", threads=0), "threads is 1 or more, not 0"),
        (lambda: sp.index("x.tar", Source(), storage_options={}), "a source or storage_options, not both"),
        (lambda: sp.verify("x.tar", threads=0), "threads is 1 or more, not 0"),
        (lambda: sp.pack("x", "y", num_workers=-1), "num_workers is 0 or more, not -1"),
        (lambda: sp.pack("x", "y", on_error="ignore"), "on_error is 'raise' or 'skip', not 'ignore'"),
        (lambda: sp.pack("x", "y", max_samples=0), "1 or more, not 0 and"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(call, words):
    with pytest.raises(sp.ConfigError, match=re.escape(words)):
        call()


def test_the_version_is_said(capsysbinary):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsysbinary.readouterr().out.decode().startswith("streampipe 0.")


def test_index_makes_the_folder_that_it_writes_to(folder, capsysbinary, tmp_path):
    status, _, _ = run(capsysbinary, "index", folder, "--out", tmp_path / "a" / "b", "--quiet")
    assert status == 0
    assert (tmp_path / "a" / "b" / "00000.index.parquet").exists()


def test_preview_writes_what_the_name_says(folder, capsysbinary, tmp_path):
    assert run(capsysbinary, "preview", folder, "--out", tmp_path / "x.jpg")[0] == 0
    assert (tmp_path / "x.jpg").read_bytes().startswith(b"\xff\xd8")
    status, _, said = run(capsysbinary, "preview", folder, "--out", tmp_path / "x.txt")
    assert status == 1
    assert "the name ends in .html for a page, or in one of .png, .jpg" in said


def test_a_pattern_on_the_web_says_how_to_name_shards(capsysbinary):
    status, _, said = run(capsysbinary, "ls", "http://127.0.0.1:9/*.tar")
    assert status == 1
    assert "name the shards, as in https://.../{00000..01999}.tar" in said


def test_every_command_is_listed_and_says_what_it_does(capsysbinary):
    folder = Path(commands.__file__).parent
    there = {path.stem for path in folder.glob("*.py") if "\ndef run(" in path.read_text()}
    assert set(COMMANDS) == there
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsysbinary.readouterr().out.decode()
    assert all(f"    {name} " in said or f"    {name}\n" in said for name in COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert f"usage: streampipe {name}" in capsysbinary.readouterr().out.decode()


def test_ls_prints_an_object_a_line(folder, capsysbinary):
    _, out, _ = run(capsysbinary, "ls", folder, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["key"] for row in rows] == ["0000000", "0000001", "0000002", "0010000", "0010001"]
    assert (rows[0]["height"], rows[0]["width"], rows[0]["fields"]["txt"]) == (80, 90, 13)


def test_bench_measures_samples_of_different_fields(folder, capsysbinary):
    (folder / "x.tar").write_bytes(shard([("a", {"txt": "x"}), ("b", {"jpg": photo(1, 8, 8)})]))
    status, out, _ = run(capsysbinary, "bench", folder, "--seconds", "1", "--batch", "7")
    assert status == 0
    assert " samples of bytes a second" in out


def test_bench_says_where_the_time_goes(folder, capsysbinary):
    status, out, _ = run(capsysbinary, "bench", folder, "--seconds", "1", "--batch", "2", "--bucket", "sd15", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["samples_a_second"] == pytest.approx(found["samples"] / found["seconds"])
    assert {"select", "decode"} <= {stage["name"] for stage in found["report"]["stages"]}
    assert found["report"]["verdict"]


def test_preview_writes_a_page_or_says_what_means_nothing(folder, tmp_path, capsysbinary):
    page = tmp_path / "page.html"
    options = ["--bucket", "sd15", "--crop", "random", "--where", "width > 90", "--json"]
    status, out, _ = run(capsysbinary, "preview", folder, "--out", page, *options)
    assert (status, json.loads(out)) == (0, {"out": str(page), "samples": 3})
    assert page.read_text().startswith("<!doctype html>")
    for arguments, words in (
        (["--out", "x.png", "--crop", "random"], "--crop means nothing for a sheet"),
        (["--columns", "3"], "--columns means nothing for a page"),
        (["--flip", "0.5"], "--crop and --flip need the size"),
        (["--bucket", "sd15", "--size", "64"], "--bucket or --size, not both"),
    ):
        status, _, err = run(capsysbinary, "preview", folder, *arguments)
        assert status == 1
        assert words in err


def test_names_that_a_terminals_encoding_lacks_are_printed_by_their_numbers(tmp_path):
    (tmp_path / "a.tar").write_bytes(shard([("k\u6771", {"txt": "x"})]))
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "streampipe", "ls", str(tmp_path / "a.tar")]
    ran = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"k\\u6771\ttxt=1" in ran.stdout


def test_closed_streams_are_nowhere(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["verify", str(folder)]) == 0
    assert main(["cat", str(folder), "nothing.txt"]) == 1
    sys.stdout.close()
    sys.stderr.close()


def test_an_error_behind_what_nobody_reads_keeps_its_status_and_its_sentence(folder):
    program = (
        "import os, sys; from streampipe.cli import main; os.close(int(sys.argv[1])); sys.exit(main(sys.argv[2:]))"
    )
    reader, writer = os.pipe()
    command = [sys.executable, "-c", program, str(reader), "ls", str(folder / "00000.tar"), str(folder / "none.tar")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        command, env=environment, stdout=writer, stderr=subprocess.PIPE, pass_fds=(reader,), text=True
    )
    os.close(reader)
    os.close(writer)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.fullmatch(r"streampipe: .*none.tar does not exist.*\n", said)
