"""Numbers of workers and threads: by a rule, or by a trial that is remembered."""

import itertools
import multiprocessing

import pytest

import streampipe as sp
from streampipe.errors import ConfigError
from streampipe.loader.choose import Choice, Setting, choose, rate_of, rule
from streampipe.report import Facts, StageFacts
from tests.data import write_photos


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path / "shards", [6, 6])
    return sp.stream(str(tmp_path / "shards"), shuffle=True).rename(image="jpg").decode(32).batch(4)


def rates(*settings):
    """A measure that prefers some settings, and notes what it was asked for."""
    asked = []

    def measure(setting):
        asked.append(setting)
        return 100.0 if setting in settings else 50.0

    return measure, asked


@pytest.mark.parametrize(("gil", "setting"), [(True, Setting(8, 0)), (False, Setting(0, 8))])
def test_code_in_python_has_workers_where_threads_take_turns(pipe, monkeypatch, gil, setting):
    monkeypatch.setattr("streampipe.loader.choose.has_gil", lambda: gil)
    assert rule(Facts((StageFacts("map(f)", can_thread=True, python=True),), cores=8)) == setting
    if not gil:
        measure, _ = rates()
        choose(pipe.spec, measure)
        monkeypatch.setattr("streampipe.loader.choose.has_gil", lambda: True)
        assert not choose(pipe.spec, measure).remembered, "what was found without a GIL says nothing of one with it"


def test_the_fastest_is_taken_and_remembered(pipe):
    measure, asked = rates()
    rule = choose(pipe.spec, measure).setting
    assert rule.threads >= 1
    other = next(each for each in asked if each != rule) if len(asked) > 1 else rule
    pipe = pipe.select("image")  # another pipeline
    measure, asked = rates(other)
    found = choose(pipe.spec, measure)
    assert found.setting == other
    assert not found.remembered
    number = len(asked)
    again = choose(pipe.spec, measure)
    assert (again.setting, again.tried, again.remembered) == (found.setting, found.tried, True)
    assert len(asked) == number


def test_another_pipeline_is_tried_anew(pipe):
    measure, asked = rates()
    choose(pipe.spec, measure)
    number = len(asked)
    choose(pipe.select("image").spec, measure)
    assert len(asked) == 2 * number


def test_a_choice_that_is_damaged_is_made_again(pipe, tmp_path):
    measure, _ = rates()
    choose(pipe.spec, measure)
    (kept,) = (tmp_path / "cache" / "choices").iterdir()
    kept.write_text('{"setting": "x"}')
    assert not choose(pipe.spec, measure).remembered


def test_a_loader_that_chooses_gives_the_same_batches_and_says_what_it_tried(pipe, monkeypatch):
    monkeypatch.setattr("streampipe.loader.choose._SECONDS", 0.05)
    monkeypatch.setattr("streampipe.loader.choose.candidates", lambda facts: [Setting(0, 1), Setting(0, 2)])
    loader = pipe.loader(auto=True)
    assert "num_workers=0, threads=" in loader.explain().splitlines()[-1]
    assert "by a trial" in loader.explain()
    assert [batch["__key__"] for batch in loader] == [batch["__key__"] for batch in pipe.loader()]
    assert "remembered" in pipe.loader(auto=True).explain()


def test_numbers_and_auto_at_once_are_refused(pipe):
    with pytest.raises(ConfigError, match="leave them out, or leave out auto"):
        pipe.loader(2, auto=True)


def test_the_first_batch_is_no_part_of_a_rate():
    assert rate_of(itertools.repeat([1] * 10, 5), len, seconds=0) > 0


def test_a_choice_is_a_line():
    assert str(Choice(Setting(0, 8))) == "num_workers=0, threads=8, by the rule for this machine"


_ready = False


def get_ready(number):
    global _ready
    _ready = True


def ready_in_workers(text):
    assert _ready or multiprocessing.parent_process() is None
    return text


def test_workers_of_a_trial_are_made_ready_as_those_of_the_run(pipe, monkeypatch):
    monkeypatch.setattr("streampipe.loader.choose._SECONDS", 0.0)
    loader = pipe.map(ready_in_workers, "image").loader(auto=True, worker_init_fn=get_ready)
    assert len(list(loader)) == 3
