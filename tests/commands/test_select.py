"""``select``: a question that is asked once, before the jobs that ask it again."""

import json

import pytest

import streampipe as sp
from streampipe.cli import main
from streampipe.engine.compile import compile
from streampipe.plan import ask
from streampipe.spec import Job
from tests.data import photo, shard

CONDITION = "n >= 2 and n < 9"


def asked(capsys, *arguments):
    status = main(["select", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def few(tmp_path):
    """Two shards of five photos, with numbers."""
    for s in range(2):
        samples = [(f"{s}{i}", {"jpg": photo(i, 80, 80 + 80 * s), "json": f'{{"n": {i}}}'}) for i in range(5)]
        (tmp_path / f"{s}.tar").write_bytes(shard([*samples, (f"{s}x", {"txt": "no number"})]))
    return tmp_path


def test_it_counts_what_the_pipeline_yields_and_says_why_the_rest_is_dropped(few, capsys):
    status, out, _ = asked(capsys, few, "--where", CONDITION, "--bucket", "sd15", "--shards", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["samples"], found["kept"], found["shards"]) == (12, 6, 2)
    assert found["dropped"] == {"n >= 2 is false": 4, "n >= 2 is unknown": 2}
    assert found["buckets"] == {"512 x 512": 3, "704 x 320": 3}
    assert list(found["by_shard"].values()) == [3, 3]
    assert len(list(sp.stream(few).where(CONDITION))) == found["kept"]
    assert found["answer"] is None


def test_it_says_so_in_words_and_nothing_at_all_is_a_status(few, capsys):
    status, out, _ = asked(capsys, few, "--where", "n > 3", "--missing", "keep")
    assert status == 0
    assert "samples    12 in 2 shards" in out
    assert "dropped    8 because n > 3 is false" in out
    assert "2 of them without a value" in out
    assert asked(capsys, few, "--where", "n > 100")[0] == 1
    status, _, err = asked(capsys, few)
    assert status == 2  # wrong usage
    assert "select wants a question" in err


@pytest.mark.parametrize("bucket", [[], ["--bucket", "sd15"]])
def test_jobs_that_ask_the_same_find_the_answer(tmp_path, capsys, monkeypatch, bucket):
    folder = tmp_path / "shards"
    folder.mkdir()
    image = photo(1, 80, 80)
    for s in range(65):
        (folder / f"{s:03d}.tar").write_bytes(shard([(f"{s}", {"jpg": image, "json": f'{{"n": {s % 12}}}'})]))
    sp.index(str(folder), progress=False)
    _, out, _ = asked(capsys, folder, "--where", CONDITION, *bucket, "--json")
    found = json.loads(out)
    assert found["answer"].startswith(f"{folder}/answer-")
    monkeypatch.setattr(ask, "_made", None)  # who counts anew fails
    pipe = sp.stream(folder).where(CONDITION)
    pipe = pipe.bucket("sd15").decode().batch(4) if bucket else pipe.batch(4)
    engine = compile(pipe.spec, Job())
    assert engine.plan.dataset.samples == found["kept"]


def test_what_cannot_be_counted_is_said(tmp_path, capsys):
    (tmp_path / "0.tar.gz").write_bytes(b"\x1f\x8b")
    status, _, err = asked(capsys, tmp_path / "0.tar.gz", "--where", "n > 1")
    assert status == 1
    assert "the samples cannot be counted" in err
    assert len(err.splitlines()) == 1
