import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.atomic import unique
from streampipe.checksum import crc32
from streampipe.cli import main
from streampipe.folders import scan
from streampipe.folders.listing import check
from streampipe.index import ShardIndex, manifest
from streampipe.pack import pack, split
from tests.data import photo
from tests.pack import steps
from tests.warm import PIPE, Program

TWINS = (
    "a.jpg",
    "A.jpg",
    "a.JPG",
    "a.png",
    "a.txt",
    "a.TXT",
    "\u00e9.jpg",
    "e\u0301.jpg",
    "i.v2.jpg",
    "i_v2.jpg",
    "d/a.jpg",
)


def folder_of(path, count=10, **extra):
    (path / "sub").mkdir(parents=True)
    for i in range(count):
        place = path / ("sub" if i % 2 else ".")
        (place / f"{i:03d}.jpg").write_bytes(photo(i, 40, 30))
        (place / f"{i:03d}.txt").write_text(f"caption {i}")
    for name, data in extra.items():
        (path / name).write_bytes(data)
    return path


def contents(out):
    return {
        s["__key__"]: {k: v for k, v in s.items() if not k.startswith("__")}
        for s in sp.stream(sorted(map(str, Path(out).glob("*.tar"))))
    }


def quiet(given, out, **options):
    given = str(given) if isinstance(given, Path) else given
    return pack(given, str(out), progress=False, **options)


def found(folder, **options):
    with scan(str(folder), **options) as listing:
        check(listing, "raise")
        return list(listing.items())


def test_bytes_are_untouched_and_sidecars_go_along(tmp_path):
    source = folder_of(tmp_path / "in")
    (source / "000.json").write_text('{"a": 1}')
    summary = quiet(source, tmp_path / "out", max_samples=4)
    assert (summary.samples, summary.shards, summary.skipped) == (10, 3, [])
    found = contents(tmp_path / "out")
    assert found["sub/003"] == {"jpg": (source / "sub/003.jpg").read_bytes(), "txt": b"caption 3"}
    assert found["000"]["json"] == b'{"a": 1}'
    assert sorted(found) == sorted([f"{i:03d}" for i in range(0, 10, 2)] + [f"sub/{i:03d}" for i in range(1, 10, 2)])


def test_order_is_stable_or_shuffled_by_the_seed(tmp_path):
    source = folder_of(tmp_path / "in")
    orders = {}
    for name, options in {
        "a": {},
        "b": {},
        "s": {"shuffle": True},
        "t": {"shuffle": True},
        "u": {"shuffle": True, "seed": 1},
    }.items():
        quiet(source, tmp_path / name, max_samples=4, **options)
        orders[name] = (
            list(contents(tmp_path / name)),
            b"".join(p.read_bytes() for p in sorted((tmp_path / name).glob("*.tar"))),
        )
    assert orders["a"][1] == orders["b"][1]
    assert orders["a"][0] == sorted(orders["a"][0])
    assert orders["s"][1] == orders["t"][1]
    assert len({tuple(orders[n][0]) for n in "asu"}) == 3


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30), st.integers(1, 9), st.integers(1, 60_000))
def test_shards_stay_within_their_limits(sizes, max_samples, max_bytes):
    packed = [512 + -(-size // 512) * 512 for size in sizes]
    counts = list(split(packed, max_samples, max_bytes))
    assert sum(counts) == len(sizes)
    rest = iter(packed)
    for shard in ([next(rest) for _ in range(count)] for count in counts):
        size = sum(shard) + 1024
        assert 1 <= len(shard) <= max_samples
        assert -(-size // 10240) * 10240 <= max_bytes or len(shard) == 1


def test_collisions_are_all_listed_before_anything_is_written(tmp_path):
    source = folder_of(
        tmp_path / "in",
        **{"a.jpg": b"x", "a.png": b"y", "b.c.jpg": b"x", "b_c.jpg": b"y", "N.jpg": b"1", "n.jpg": b"2"},
    )
    with pytest.raises(sp.NameCollision, match="3 name collisions") as error:
        quiet(source, tmp_path / "out")
    assert all(name in str(error.value) for name in ("a.jpg", "a.png", "b.c", "b_c"))
    assert not (tmp_path / "out").exists()


def test_odd_files_are_counted_not_packed(tmp_path):
    source = folder_of(
        tmp_path / "in",
        **{".DS_Store": b"x", "._000.jpg": b"x", "orphan.txt": b"x", "readme.md": b"x", "no-caption.png": b"x"},
    )
    os.mkfifo(source / "pipe.jpg")
    (source / "loop").symlink_to(source, target_is_directory=True)
    summary = quiet(source, tmp_path / "out")
    assert (summary.samples, summary.orphans, summary.hidden, summary.without_caption) == (11, 1, 2, 1)
    assert summary.other >= 2
    assert "1 images without a caption file" in str(summary)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(TWINS), min_size=1, max_size=5, unique=True))
def test_no_two_files_become_one_member_on_any_file_system(tmp_path_factory, names):
    source = tmp_path_factory.mktemp("twins")
    for name in names:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")
    images = [name for name in names if not name.lower().endswith("txt")]
    stems = {unicodedata.normalize("NFC", name.rpartition(".")[0].replace(".", "_")).casefold() for name in images}
    twins = any(
        a != b and a.lower() == b.lower() and a.rpartition(".")[0] == b.rpartition(".")[0] for a in names for b in names
    )
    if not images:
        with pytest.raises(sp.PackError, match="holds no image|would both be field"):
            found(source)
    elif len(stems) < len(images) or twins:
        with pytest.raises(sp.NameCollision, match="nothing was written"):
            found(source)
    else:
        assert len(found(source)) == len(images)


def test_all_collisions_are_listed_those_of_suffixes_too(tmp_path):
    source = folder_of(tmp_path / "in", **{"x.jpg": b"1", "x.JPG": b"2", "y.png": b"1", "Y.png": b"2"})
    with pytest.raises(sp.NameCollision, match="2 name collisions") as error:
        found(source)
    assert all(name in str(error.value) for name in ("x.JPG", "x.jpg", "Y", "y"))


def test_keys_with_dots_are_made_safe(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "img.v1.5.JPG").write_bytes(photo())
    (tmp_path / "in" / "img.v1.5.txt").write_text("x")
    quiet(tmp_path / "in", tmp_path / "out")
    assert {k: sorted(v) for k, v in contents(tmp_path / "out").items()} == {"img_v1_5": ["jpg", "txt"]}


def test_an_unreadable_file_stops_or_is_listed(tmp_path):
    source = folder_of(tmp_path / "in", **{"empty.jpg": b""})
    (source / "broken.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        sp.PackError,
        match=r"broken\.jpg cannot be packed \(No such file .*\), nor can 1 other files; nothing was",
    ):
        quiet(source, tmp_path / "out")
    summary = quiet(source, tmp_path / "out", on_error="skip")
    assert (summary.samples, len(summary.skipped)) == (10, 2)
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [line["file"].rpartition("/")[2] for line in lines] == ["broken.jpg", "empty.jpg"]
    assert lines[1]["reason"] == "it is empty"
    assert main(["pack", str(source), str(tmp_path / "again"), "--on-error", "skip", "--quiet"]) == 3


def test_links_are_followed_inside_the_folder_only_or_where_allowed(tmp_path, capsys):
    source, secret = folder_of(tmp_path / "in", 2), tmp_path / "secret"
    secret.mkdir()
    (secret / "id.jpg").write_bytes(photo())
    (source / "inside.jpg").symlink_to("sub/001.jpg")
    quiet(source, tmp_path / "a")
    assert contents(tmp_path / "a")["inside"]["jpg"] == (source / "sub/001.jpg").read_bytes()
    (source / "outside.jpg").symlink_to(secret / "id.jpg")
    (source / "up.jpg").symlink_to("../secret/id.jpg")
    (source / "loop.jpg").symlink_to("loop.jpg")
    (source / "notes.md").symlink_to(secret / "id.jpg")  # not packed anyway
    words = rf"outside\.jpg cannot be packed \(a symbolic link out of the folder, to {secret}/id\.jpg; --follow-"
    (source / "loop.jpg").unlink()
    with pytest.raises(sp.PackError, match=words):
        quiet(source, tmp_path / "b")
    (source / "loop.jpg").symlink_to("loop.jpg")
    summary = quiet(source, tmp_path / "b", on_error="skip")
    assert [each.file.rpartition("/")[2] for each in summary.skipped] == ["loop.jpg", "outside.jpg", "up.jpg"]
    assert sorted(contents(tmp_path / "b")) == ["000", "inside", "sub/001"]
    (source / "loop.jpg").unlink()
    assert main(["pack", str(source), str(tmp_path / "c"), "--quiet", "--follow-symlinks", str(secret)]) == 0
    assert sorted(contents(tmp_path / "c")) == ["000", "inside", "outside", "sub/001", "up"]
    assert main(["pack", str(source), str(tmp_path / "d"), "--follow-symlinks", str(tmp_path / "no")]) == 1
    assert "is no folder" in capsys.readouterr().err


def shrink(path):
    path.write_bytes(b"x")


def grow(path):
    path.write_bytes(path.read_bytes() * 2)


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def lead_out(path):
    """Of the same size and date, and somebody else's."""
    path.symlink_to(path.rename(path.parents[1] / f"of_others_{path.name}"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Path.unlink, "No such file"),
        (lead_out, "cannot be read .a symbolic link out of the folder"),
        (shrink, "bytes became 1;"),
        (grow, "bytes became more;"),
        (fifo, "it is no file any more"),
    ],
)
def test_a_file_that_changes_between_finding_and_reading_stops_or_is_listed(tmp_path, monkeypatch, change, words):
    source = folder_of(tmp_path / "in", 4)

    def late(*args, **options):
        listing = scan(*args, **options)
        (source / "002.jpg").unlink(missing_ok=True)
        (source / "002.jpg").write_bytes(photo(2, 40, 30))
        os.utime(source / "002.jpg", ns=(stamp, stamp))
        change(source / "002.jpg")
        return listing

    stamp = (source / "002.jpg").stat().st_mtime_ns
    monkeypatch.setattr(sys.modules["streampipe.pack.find"], "scan", late)
    with pytest.raises(sp.PackError, match=rf"002\.jpg .*{words}"):
        quiet(source, tmp_path / "out")
    (source / "002.jpg").unlink(missing_ok=True)
    (source / "002.jpg").write_bytes(photo(2, 40, 30))
    os.utime(source / "002.jpg", ns=(stamp, stamp))
    summary = quiet(source, tmp_path / "out", on_error="skip")
    assert [(each.file, each.shard) for each in summary.skipped] == [(str(source / "002.jpg"), "00000.tar")]
    assert sorted(contents(tmp_path / "out")) == ["000", "sub/001", "sub/003"]


def test_what_becomes_a_link_out_of_the_folder_is_not_read(tmp_path, monkeypatch):
    source = folder_of(tmp_path / "in", 4)

    def late(*args, **options):
        listing = scan(*args, **options)
        lead_out(source / "sub")
        return listing

    streamed = sp.Folder(source)
    monkeypatch.setattr(sys.modules["streampipe.pack.find"], "scan", late)
    with pytest.raises(sp.PackError, match=r"sub/001\.jpg cannot be read .its folder is a symbolic link out of the"):
        quiet(source, tmp_path / "out")
    lead_out(source / "000.jpg")
    with pytest.raises(sp.SampleError, match=r"000\.jpg is gone .a symbolic link out of the folder"):
        streamed.sample(0, 0)


@contextmanager
def without_rights():
    """As a user who may read only what everybody may: permissions do not hold up root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_file_without_permission_stops_or_is_listed():
    with tempfile.TemporaryDirectory() as folder:
        source, out = folder_of(Path(folder) / "in", 4), Path(folder) / "out"
        quiet(source, Path(folder) / "warm")  # everything that is imported late is imported now, with all rights
        out.mkdir()
        for path in (Path(folder), out):
            path.chmod(0o777)
        (source / "000.jpg").chmod(0)
        (source / "sub").chmod(0)
        try:
            with without_rights():
                if not os.access(out, os.W_OK, effective_ids=True):  # pragma: no cover
                    pytest.skip("the folder for temporary files is closed to other users")
                with pytest.raises(sp.PackError, match=r"in/000.jpg cannot be packed \(Permission denied\), nor can 1"):
                    quiet(source, out)
                summary = quiet(source, out, on_error="skip")
        finally:
            (source / "sub").chmod(0o700)
        assert [each.file.rpartition("/")[2] for each in summary.skipped] == ["000.jpg", "sub"]
        assert list(contents(out)) == ["002"]


def test_run_again_keeps_what_is_finished(tmp_path):
    source = folder_of(tmp_path / "in")
    quiet(source, tmp_path / "out", max_samples=3)
    whole = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.tar")}
    (tmp_path / "out" / "00001.tar").unlink()
    (tmp_path / "out" / f"00002.tar.{unique()}.part").write_bytes(b"left by a killed run")
    summary = quiet(source, tmp_path / "out", max_samples=3)
    assert (summary.kept, summary.samples) == (3, 10)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.tar")} == whole
    assert not list((tmp_path / "out").glob("*.part"))


def test_other_shards_are_never_overwritten(tmp_path):
    source = folder_of(tmp_path / "in")
    quiet(source, tmp_path / "out", max_samples=3)
    with pytest.raises(sp.OutputBusy, match="its max_samples was 3, and is 4 here"):
        quiet(source, tmp_path / "out", max_samples=4)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "x.tar").write_bytes(b"")
    with pytest.raises(sp.OutputBusy, match="unknown origin"):
        quiet(source, tmp_path / "foreign")


def pack_and_tell(source, out):
    """Packs slowly, and tells which file it is at."""
    module = sys.modules["streampipe.pack.contents"]
    read = module.read_file

    def slow(folder, file, name, *more):
        print(file.path, flush=True)
        time.sleep(0.02)
        return read(folder, file, name, *more)

    module.read_file = slow
    sp.pack(source, out, max_samples=4, progress=False)


def start(source, out):
    return Program(pack_and_tell, source, out, stdout=PIPE)


@pytest.mark.usefixtures("warm")
def test_a_killed_run_leaves_no_half_shard_and_goes_on(tmp_path):
    source = folder_of(tmp_path / "in", 20)
    quiet(source, tmp_path / "reference", max_samples=4)
    reference = {p.name: p.read_bytes() for p in (tmp_path / "reference").glob("*.tar")}
    for lines in (9, 30):
        process = start(source, tmp_path / "out")
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for path in (tmp_path / "out").glob("*.tar"):
            assert path.read_bytes() == reference[path.name]
    quiet(source, tmp_path / "out", max_samples=4)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.tar")} == reference


@pytest.mark.usefixtures("warm")
def test_two_runs_do_not_write_one_folder(tmp_path):
    source = folder_of(tmp_path / "in", 20)
    process = start(source, tmp_path / "out")
    process.stdout.readline()
    try:
        with pytest.raises(sp.OutputBusy, match="another run is writing"):
            quiet(source, tmp_path / "out", max_samples=4)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.usefixtures("warm")
def test_at_every_step_a_failure_or_a_kill_leaves_no_half_file_and_the_next_run_ends_the_same(tmp_path):
    folder_of(tmp_path / "in", 5, **{"002a.jpg": b""})
    (tmp_path / "work").mkdir()
    program = Program(steps.main, str(tmp_path / "in"), str(tmp_path / "work"), stdout=PIPE, stderr=PIPE)
    said, errors = program.communicate()
    assert program.returncode == 0, errors
    found = json.loads(said.splitlines()[-1])
    assert found["wrong"] == 0, errors
    assert found["steps"] > 40
    assert not any(name.endswith(".part") for name in found["files"])


def test_a_file_that_grows_past_a_limit_is_one_sentence_and_no_shard(tmp_path, capsys):
    source = folder_of(tmp_path / "in")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12 << 10, hard))
    try:
        assert main(["pack", str(source), str(tmp_path / "out"), "--quiet"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert re.search(r"out/00000\.tar could not be written \(File too large\): it needs \d+ bytes; make room", error)
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*.tar*"))
    assert main(["pack", str(source), str(tmp_path / "out"), "--quiet"]) == 0
    assert len(contents(tmp_path / "out")) == 10


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_one_sentence_and_what_is_finished_is_kept(tmp_path, capsys):
    source = folder_of(tmp_path / "in")
    (tmp_path / "small").mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path / "small"]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if mount("size=16k"):
        pytest.skip("this machine does not let us mount")
    try:
        kept = -1
        for size in (16, 32, 48, 64, 512):
            assert mount(f"remount,size={size}k") == 0
            status = main(["pack", str(source), str(tmp_path / "small"), "--max-samples", "4", "--quiet"])
            error = capsys.readouterr().err
            shards = list((tmp_path / "small").glob("*.tar"))
            assert len(shards) >= kept
            kept = len(shards)
            if size < 512 and status:
                assert status == 1
                assert "No space left on device" in error
                assert error.count("\n") == 1
                assert not list((tmp_path / "small").glob("*.part"))
        assert status == 0
        assert len(contents(tmp_path / "small")) == 10
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


def test_nothing_to_pack_is_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(sp.PackError, match="holds no image"):
        found(tmp_path / "in")
    with pytest.raises(sp.PackError, match="is no folder"):
        found(tmp_path / "nowhere")


def test_the_command_prints_a_summary_and_one_line_for_an_error(tmp_path, capsys):
    source = folder_of(tmp_path / "in")
    begin = time.time()
    assert (
        main(
            [
                "pack",
                str(source),
                str(tmp_path / "out"),
                "--max-samples",
                "4",
                "--max-bytes",
                "1.5M",
                "--shuffle",
                "--seed",
                "2",
            ]
        )
        == 0
    )
    assert time.time() - begin < 30
    assert "10 samples in 3 shards" in capsys.readouterr().out
    assert main(["pack", str(tmp_path / "no"), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("streampipe: ")
    assert error.count("\n") == 1
    for wrong, words in {
        "--max-bytes lots": "is no size",
        "--max-samples 0": "is not 1 or more",
        "--beside mask=a --beside mask=c": "mask is in a and in c",
        "--where n>1 --where n<3": "argument --where: it was said twice",
        "--metadata a.csv --metadata b.csv": "argument --metadata: it was said twice",
        "--limits concatenated,concatenated": "has concatenated twice",
    }.items():
        with pytest.raises(SystemExit) as end:
            main(["pack", "a", "b", *wrong.split()])
        assert end.value.code == 2
        assert words in capsys.readouterr().err
    assert main(["pack", str(source), str(tmp_path / "other"), "--seed", "2"]) == 1
    assert "seed=2 is of shuffle=True (--shuffle), which was not said" in capsys.readouterr().err


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"z\n.jpg", b"__init__.jpg", b"sub/\xff.jpg"])
def test_a_name_that_no_shard_can_hold_stops_before_the_first_byte_or_is_listed(tmp_path, capsys, name):
    source = folder_of(tmp_path / "in", 6)
    (source / os.fsdecode(name)).write_bytes(photo())
    assert main(["pack", str(source), str(tmp_path / "out"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nothing was written" in error
    assert not (tmp_path / "out").exists()
    assert main(["pack", str(source), str(tmp_path / "out"), "--on-error", "skip", "--quiet"]) == 3
    assert len(contents(tmp_path / "out")) == 6
    (line,) = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert os.fsencode(json.loads(line)["file"]) == os.fsencode(source) + b"/" + name


def test_a_sample_is_left_out_as_a_whole_if_one_of_its_files_is(tmp_path):
    source = folder_of(tmp_path / "in", 4, **{"000.json": b""})
    summary = quiet(source, tmp_path / "out", on_error="skip")
    assert [each.file for each in summary.skipped] == [str(source / "000.json")]
    assert sorted(contents(tmp_path / "out")) == ["002", "sub/001", "sub/003"]


def test_a_file_that_readers_would_refuse_is_found_before_anything_is_written(tmp_path):
    source = folder_of(tmp_path / "in", 4, **{"big.jpg": photo() + bytes(50_000)})
    with pytest.raises(sp.PackError, match=r"big\.jpg cannot be packed \(its \d+ bytes are more than readers take"):
        quiet(source, tmp_path / "out", limits=sp.Limits(max_member_bytes=40_000))
    assert not (tmp_path / "out").exists()


def test_keys_that_differ_in_case_only_are_a_collision_or_allowed(tmp_path):
    source = folder_of(tmp_path / "in", 2, **{"N.jpg": b"1", "n.jpg": b"2"})
    with pytest.raises(sp.NameCollision, match=r"N\.jpg and n\.jpg would have key 'N' and 'n' \(--case-sensitive-keys"):
        quiet(source, tmp_path / "out")
    assert main(["pack", str(source), str(tmp_path / "out"), "--case-sensitive-keys", "--quiet"]) == 0
    assert {"N", "n"} <= set(contents(tmp_path / "out"))


def test_folders_that_differ_in_case_or_form_alone_collide_too(tmp_path):
    source = folder_of(tmp_path / "in", 1)
    for name in ("A/x.jpg", "a/x.jpg", "e\u0301/x.jpg", "\u00e9/x.jpg"):
        (source / name).parent.mkdir()
        (source / name).write_bytes(photo())
    with pytest.raises(sp.NameCollision, match="2 name collisions"):
        quiet(source, tmp_path / "out")


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, capsys):
    source = folder_of(tmp_path / "in", 6, **{"000.mask.png": b"x", "lost.txt": b"x", "notes.md": b"x"})
    summary = quiet(source, tmp_path / "out", max_samples=4, dry_run=True)
    assert (summary.samples, summary.shards, summary.fields) == (6, 2, {"jpg": 6, "mask.png": 1, "txt": 6})
    assert not (tmp_path / "out").exists()
    (source / "empty.jpg").write_bytes(b"")
    (source / "X.jpg").write_bytes(b"1")
    (source / "x.jpg").write_bytes(b"1")
    assert main(["pack", str(source), str(tmp_path / "out"), "--dry-run"]) == 1
    said = capsys.readouterr().out
    for words in (
        "8 samples in 1 shards",
        "would be written to",
        "mask.png (1)",
        "(lost.txt)",
        "(notes.md)",
        "1 name coll",
    ):
        assert words in said
    assert f"cannot be packed: '{source}/empty.jpg' (it is empty)" in said
    assert not (tmp_path / "out").exists()


def test_json_is_what_was_done(tmp_path, capsys):
    source = folder_of(tmp_path / "in", 6, **{"empty.jpg": b""})
    assert main(["pack", str(source), str(tmp_path / "out"), "--json", "--on-error", "skip"]) == 3
    done = json.loads(capsys.readouterr().out)
    assert (done["samples"], done["shards"], done["fields"]) == (6, 1, {"jpg": 6, "txt": 6})
    assert done["skipped"] == [{"file": str(source / "empty.jpg"), "reason": "it is empty", "shard": None}]


def test_shards_in_the_folder_itself_are_not_packed_again(tmp_path):
    source = folder_of(tmp_path / "in", 4)
    quiet(source, source / "shards", max_samples=2)
    (source / "shards" / "stray.jpg").write_bytes(photo())
    assert quiet(source, source / "shards", max_samples=2).kept == 2


def test_a_folder_of_nothing_but_unreadable_images_is_an_error_under_skip_too(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(b"")
    with pytest.raises(sp.PackError, match=r"none of its images can be packed \(2 files\)"):
        quiet(tmp_path / "in", tmp_path / "out", on_error="skip")


def test_a_shuffled_order_is_of_each_key_alone(tmp_path):
    source = folder_of(tmp_path / "in", 12)
    before = [item.key for item in found(source, seed=3)]
    (source / "new.jpg").write_bytes(photo())
    after = [item.key for item in found(source, seed=3)]
    assert [key for key in after if key != "new"] == before != sorted(before)


LISTED = """
import resource, sys, time
from streampipe.folders import scan
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with scan(sys.argv[1], seed=1) as listing:
    count = sum(1 for _ in listing.items())
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


def test_memory_does_not_grow_with_the_number_of_files():
    growth = []
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # many small files are slow on some disks
    with tempfile.TemporaryDirectory(dir=in_memory) as base:
        for count in (2_000, 30_000):
            folder = Path(base) / f"{count}"
            folder.mkdir()
            for i in range(count // 2):
                name = f"a rather long name of an image that somebody has taken {i:07d}"
                (folder / f"{name}.jpg").write_bytes(b"x")
                (folder / f"{name}.txt").touch()
            command = [sys.executable, "-c", LISTED, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert int(done.stdout.split()[0]) == count // 2
            growth.append(int(done.stdout.split()[1]))
    assert growth[1] < growth[0] + 8_000  # kB, for 28,000 files more


def test_images_that_are_equal_are_packed_once(tmp_path, capsys):
    source = folder_of(tmp_path / "in", 6)
    for name in ("zz.jpg", "sub/000.jpg"):
        (source / name).write_bytes((source / "000.jpg").read_bytes())
    (source / "same-size.jpg").write_bytes((source / "000.jpg").read_bytes()[:-1] + b"x")
    (source / "zz.txt").write_text("another caption")
    assert quiet(source, tmp_path / "all").samples == 9
    assert main(["pack", str(source), str(tmp_path / "out"), "--deduplicate"]) == 0
    said = capsys.readouterr().out
    assert (
        "2 images that are there twice, packed once; listed in repeated.jsonl (sub/000.jpg is 000.jpg; zz.jpg is "
        "000.jpg)" in said
    )
    lines = (tmp_path / "out" / "repeated.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file": name, "same_as": "000.jpg"} for name in ("sub/000.jpg", "zz.jpg")
    ]
    assert "fields: jpg (7), txt (6)" in said
    kept = {f"{i:03d}" if i % 2 == 0 else f"sub/{i:03d}" for i in range(6)} | {"same-size"}
    assert set(contents(tmp_path / "out")) == kept
    with pytest.raises(sp.OutputBusy, match="its deduplicate was True, and is False here"):
        quiet(source, tmp_path / "out")


def test_without_sha256_the_bytes_are_the_same_and_verify_still_finds_damage(tmp_path, capsys):
    source = folder_of(tmp_path / "in", 6)
    quiet(source, tmp_path / "with", max_samples=4)
    assert main(["pack", str(source), str(tmp_path / "out"), "--max-samples", "4", "--no-sha256", "--quiet"]) == 0
    for path in (tmp_path / "with").glob("*.tar"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    index = ShardIndex.from_bytes((tmp_path / "out" / "00000.index.parquet").read_bytes(), "index")
    assert "sha256" not in {*index.names, *index.facts}
    assert {"orientation", "width", "crc32"} <= set(index.names)
    entries = manifest.entries((tmp_path / "out" / "manifest.parquet").read_bytes(), "manifest")
    assert [each.sha256 for each in entries] == [None, None]
    sums = [crc32((tmp_path / "out" / f"{number:05d}.index.parquet").read_bytes()) for number in (0, 1)]
    assert [each.index_crc32 for each in entries] == sums  # what is packed is in the manifest's own bytes, so
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out" / "{00000..00001}.tar")]) == 0
    shard = tmp_path / "out" / "00001.tar"
    shard.write_bytes(shard.read_bytes().replace(b"caption 5", b"caption 6"))
    assert main(["verify", str(tmp_path / "out" / "{00000..00001}.tar")]) == 1
    assert "crc32" in capsys.readouterr().out


def test_a_job_without_sha256_is_another_job(tmp_path):
    source = folder_of(tmp_path / "in", 2)
    quiet(source, tmp_path / "out")
    assert quiet(source, tmp_path / "out", sha256=True).kept == 1
    with pytest.raises(sp.OutputBusy, match="its sha256 was None, and is False here"):
        quiet(source, tmp_path / "out", sha256=False)


def test_a_condition_that_keeps_nothing_is_named(tmp_path):
    with pytest.raises(sp.PackError, match="in: where= and bucket= leave none of its 3 samples; ask for less"):
        quiet(folder_of(tmp_path / "in", 3), tmp_path / "out", where="width > 9999")
