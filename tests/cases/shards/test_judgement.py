"""A dataset that is mostly damage is an error under skip too, however small it is and however many read it."""

import json

import pytest

import streampipe as sp
from tests.data import shard

PAGE = b"<html>404 Not Found</html>".ljust(1024)


def write(folder, good, bad):
    for i in range(good + bad):
        data = shard([(f"{i}", {"txt": "x"})]) if i < good else PAGE
        (folder / f"{i:05d}.tar").write_bytes(data)
    return str(folder)


@pytest.mark.parametrize("tier", [None, "sequential"])
@pytest.mark.parametrize(("good", "bad"), [(0, 1), (0, 99), (4, 10)])
def test_shards_that_are_mostly_damaged_are_an_error_at_the_end(tmp_path, good, bad, tier):
    url = write(tmp_path, good, bad)
    with pytest.raises(sp.TooManyErrors, match=f"reading skipped {bad} of {good + bad}"):
        list(sp.stream(url, on_error="skip", tier=tier))


@pytest.mark.parametrize(("good", "bad"), [(1, 1), (1, 3), (20, 15)])
def test_some_damaged_shards_are_skipped(tmp_path, good, bad):
    assert len(list(sp.stream(write(tmp_path, good, bad), on_error="skip", tier="sequential"))) == good


def test_a_share_that_is_allowed_is_allowed_at_the_end_too(tmp_path):
    policy = sp.ErrorPolicy("skip", max_share=0.9)
    assert len(list(sp.stream(write(tmp_path, 2, 8), on_error=policy, tier="sequential"))) == 2


@pytest.mark.parametrize("stage", ["caption", "join"])
def test_samples_that_are_mostly_skipped_are_an_error_at_the_end(tmp_path, stage):
    (tmp_path / "0.tar").write_bytes(shard([(f"{i:03d}", {"jpg": b"x"}) for i in range(99)]))
    (tmp_path / "0.json").write_text(json.dumps({"000": {"recap": "x"}}))
    pipe = sp.stream(tmp_path / "0.tar", on_error="skip", tier="sequential")
    pipe = pipe.caption() if stage == "caption" else pipe.join("{stem}.json")
    with pytest.raises(sp.TooManyErrors, match=f"{stage} skipped 9. of 99.*50% at the end"):
        list(pipe)


def test_what_several_processes_counted_is_judged_together():
    whole = sp.ErrorPolicy("skip")
    for _ in range(4):
        mine = sp.ErrorPolicy("skip")
        for _ in range(90):
            mine.failed(sp.CorruptShard("bad"), "reading")
        counts = mine.take()
        assert counts == {"reading": (0, 90, None)}
        assert mine.take() == {}
        if whole._tallies and whole._tallies["reading"].bad + 90 >= 100:
            with pytest.raises(sp.TooManyErrors, match="reading skipped 180 of 180"):
                whole.merge(counts)
            return
        whole.merge(counts)


def test_what_was_taken_in_parts_is_judged_as_a_whole():
    policy, parent = sp.ErrorPolicy("skip"), sp.ErrorPolicy("skip")
    for i in range(18):
        policy.failed(sp.DecodeError("bad"), "decode") if i < 10 else policy.passed("decode")
        parent.merge(policy.take())
    with pytest.raises(sp.TooManyErrors, match="decode skipped 10 of 18"):
        parent.end()
    parent.end("reading")
    parent.merge({"decode": (90, 0, None)})
    parent.end()


@pytest.mark.parametrize("wrong", [{"max_share": 2}, {"max_share": -1}, {"max_in_row": -1}])
def test_bounds_that_make_no_sense_are_refused(wrong):
    with pytest.raises(sp.ConfigError, match="max_share is from 0 to 1"):
        sp.ErrorPolicy("skip", **wrong)
