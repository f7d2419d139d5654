"""Answers about datasets: whole or not at all, made once by many who ask, and never trusted when damaged."""

import threading
from collections import Counter

import numpy as np
import pytest

from streampipe.errors import IndexMismatch
from streampipe.index import answers as module
from streampipe.index.answers import Answers, Tally, fingerprint
from streampipe.index.memory import memory
from streampipe.source import Cache, Source

MARK = fingerprint("some data", "a question")
SHAPE = (3, 2)


def tally():
    return Tally(
        np.array([[1, 0], [5, 2], [0, 7]], np.int32), np.array([0.5, 0]), Counter({"where\ndropped": 4}), (1, 6), 9, 11
    )


def same(one, other):
    return (
        (one.counts == other.counts).all()
        and vars(one).keys() == vars(other).keys()
        and all((getattr(one, name) == getattr(other, name)) for name in ("numbers", "first", "wanted", "whole"))
        and (one.sums == other.sums).all()
    )


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "own"))
    return tmp_path / "own" / "answers"


def test_an_answer_is_found_by_others_under_its_fingerprint_alone(own):
    Answers(Source(), None).keep(MARK, tally())
    assert same(Answers(Source(), None).find(MARK, SHAPE), tally())
    assert Answers(Source(), None).find(fingerprint("other data", "a question"), SHAPE) is None
    assert [each.name for each in own.iterdir()] == [f"answer-{MARK}.bin"]


def test_it_lies_beside_the_manifest_where_that_can_be_written_else_in_the_cache_or_with_the_user(own, tmp_path):
    beside, cache = tmp_path / "data", tmp_path / "cache"
    beside.mkdir()
    Answers(Source(), f"{beside}/").keep(MARK, tally())
    assert [each.name for each in beside.iterdir()] == [f"answer-{MARK}.bin"]
    cached = Source(cache=Cache(cache))
    Answers(cached, "https://host/data/").keep(MARK, tally())  # nobody can write there
    assert [each.name for each in (cache / "answers").iterdir()] == [f"answer-{MARK}.bin"]
    Answers(Source(), f"{tmp_path}/gone/").keep(MARK, tally())
    assert same(Answers(Source(), None).find(MARK, SHAPE), tally())


def test_a_damaged_answer_is_none_or_says_the_same():
    data = tally().to_bytes()
    assert same(Tally.from_bytes(data, "answer", SHAPE), tally())
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 4
        try:
            assert same(Tally.from_bytes(bytes(broken), "answer", SHAPE), tally())
        except IndexMismatch as error:
            assert "answer" in str(error)
    for shape in ((2, 3), (3, 3), (3, 1)):
        with pytest.raises(IndexMismatch, match="answer"):
            Tally.from_bytes(data, "answer", shape)


def test_a_damaged_answer_is_made_again(own, caplog):
    answers = Answers(Source(), None)
    answers.keep(MARK, tally())
    (own / f"answer-{MARK}.bin").write_bytes(b"nothing")
    assert answers.find(MARK, SHAPE) is None
    assert "made again" in caplog.text
    answers.keep(MARK, tally())
    assert same(answers.find(MARK, SHAPE), tally())


def test_of_many_who_ask_at_once_one_makes_the_answer(own):
    made, start = [], threading.Barrier(4)

    def ask():
        answers = Answers(Source(), None)
        start.wait()
        with answers.alone(MARK):
            if answers.find(MARK, SHAPE) is None:
                made.append(1)
                answers.keep(MARK, tally())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert made == [1]
    assert not list(own.glob("*.lock"))


def test_what_a_killed_process_left_of_a_lock_holds_nobody_up(own):
    answers = Answers(Source(), None)
    (own / f"answer-{MARK}.bin.lock").touch()
    with answers.alone(MARK):
        pass


def test_a_folder_that_others_can_write_to_is_not_used(own, caplog):
    own.mkdir(parents=True)
    own.chmod(0o777)
    answers = Answers(Source(), None)
    assert "can be written by others" in caplog.text
    answers.keep(MARK, tally())
    with answers.alone(MARK):
        assert answers.find(MARK, SHAPE) is None
    assert memory("answers") == str(own)
    assert not list(own.iterdir())


def test_old_answers_go_when_there_are_a_great_many(own, monkeypatch):
    monkeypatch.setattr(module, "_MOST_KEPT", 4)
    answers = Answers(Source(), None)
    marks = [fingerprint(number) for number in range(6)]
    for mark in marks:
        answers.keep(mark, tally())
    kept = [mark for mark in marks if answers.find(mark, SHAPE) is not None]
    assert 2 <= len(kept) <= 4
    assert marks[-1] in kept
