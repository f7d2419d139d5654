"""The ``caption`` stage: in pipelines, in both tiers, with bad samples."""

import pickle

import pytest
import torch

import streampipe as sp
from streampipe import stages
from streampipe.context import Run
from streampipe.counters import counters
from streampipe.engine.indexed import IndexedEngine
from tests.data import shard
from tests.laws import check_lazy, check_picklable, engine_of

SAMPLES = [{"__key__": f"{i:02d}", "txt": f"a, b{i}, c".encode()} for i in range(40)]
OPTIONS = {"dropout": 0.3, "tags": sp.Tags(keep=1, shuffle=True, drop=0.2)}


def counted(name, what):
    return counters.get(name, what)


def test_the_stage_keeps_the_laws():
    check_picklable(stages.caption(**OPTIONS), SAMPLES)
    check_lazy(stages.caption(**OPTIONS), SAMPLES, ahead=1)
    assert pickle.loads(pickle.dumps(sp.Tags(keep=2))) == sp.Tags(keep=2)


def test_captions_depend_on_key_and_epoch_alone(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.tar").write_bytes(shard([(f"{number}{i}", {"txt": "a, b, c, d, e"}) for i in range(10)]))
    found = {}
    for tier in (None, "sequential"):
        for order in (("caption", "decode"), ("decode", "caption")):
            pipe = sp.stream(str(tmp_path), shuffle=5, tier=tier)
            for name in order:
                pipe = pipe.caption(**OPTIONS) if name == "caption" else pipe.decode()
            found[tier, order] = {each["__key__"]: (each["caption"], each["caption_dropped"]) for each in pipe}
    first, *others = found.values()
    assert all(other == first for other in others)
    assert len(first) == 30
    assert 0 < sum(dropped for _, dropped in first.values()) < 30
    assert len({text for text, _ in first.values()}) > 5
    pipe = sp.stream(str(tmp_path), seed=1).caption(**OPTIONS)
    assert {each["__key__"]: (each["caption"], each["caption_dropped"]) for each in pipe} != first


def plain(batch):
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def test_planned_batches_have_the_flag_and_resume(tmp_path):
    (tmp_path / "0.tar").write_bytes(shard([(f"{i:02d}", {"txt": f"text {i}"}) for i in range(12)]))
    pipe = sp.stream(str(tmp_path), shuffle=True).decode().caption(dropout=0.5).batch(4)
    assert isinstance(engine_of(pipe), IndexedEngine)
    loader = pipe.loader()
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = list(batches)
    again = pipe.loader()
    again.load_state_dict(state)
    assert [plain(batch) for batch in again] == [plain(batch) for batch in rest]
    assert all(text == "" for b in rest for text, d in zip(b["caption"], b["caption_dropped"], strict=True) if d)


def test_a_missing_caption_is_an_error_that_names_what_the_sample_has():
    sample = {"__key__": "a", "jpg": b"", "json": b'{"alt": "x", "width": 3}'}
    with pytest.raises(sp.StageError, match=r"sample 'a': there is no caption under txt, c.*jpg, json, json.alt, json"):
        list(sp.from_iterable([sample]).caption("txt;c"))
    assert next(iter(sp.from_iterable([sample]).caption("alt")))["caption"] == "x"


def test_missing_captions_can_be_empty_or_dropped_and_are_counted(tmp_path):
    rows = [(f"{i}", {"txt": "x"} if i % 2 else {"cls": "1"}) for i in range(6)]
    (tmp_path / "0.tar").write_bytes(shard(rows))
    before = [counted("caption", name) for name in ("captions missing (empty)", "captions missing (sample dropped)")]
    empty = [each["caption"] for each in sp.stream(str(tmp_path)).caption(missing="keep")]
    assert empty == ["", "x"] * 3
    assert counted("caption", "captions missing (empty)") - before[0] == 3
    filled = counted("batch", "slots filled")
    batches = list(sp.stream(str(tmp_path)).caption(missing="drop").select("caption").batch(3))
    assert [len(batch["__key__"]) for batch in batches] == [3, 3]
    assert {key for batch in batches for key in batch["__key__"]} == {"1", "3", "5"}
    assert counted("batch", "slots filled") - filled == 3
    assert counted("caption", "captions missing (sample dropped)") - before[1] == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"missing": "empty"}, "missing is one of 'error', 'keep', 'drop', no longer 'empty': say 'keep'"),
        ({"into": "__key__"}, "into is the name of a field"),
        ({"dropout": 2}, "dropout is a probability"),
        ({"keys": ()}, "at least one"),
        ({"droput": 0.1}, "droput"),
    ],
)
def test_options_are_checked_when_the_stage_is_made(options, words):
    with pytest.raises(sp.ConfigError, match=words):
        sp.from_iterable(SAMPLES).caption(**options)


def test_a_sequential_stream_resumes_where_samples_were_dropped(tmp_path):
    for number in range(3):
        rows = [(f"{number}{i}", {"txt": "a, b, c"} if i % 3 else {"cls": "1"}) for i in range(10)]
        (tmp_path / f"{number}.tar").write_bytes(shard(rows))

    def loader():
        stream = sp.stream(str(tmp_path), shuffle=5, tier="sequential")
        return stream.caption(missing="drop", **OPTIONS).select("caption").batch(4).loader()

    whole = list(loader())
    for stop in range(1, len(whole)):
        first, again = loader(), loader()
        batches = iter(first)
        assert [next(batches) for _ in range(stop)] == whole[:stop]
        again.load_state_dict(first.state_dict())
        assert list(again) == whole[stop:]


def test_empty_captions_and_dropped_ones_are_counted():
    before = counted("caption", "captions empty"), counted("caption", "captions dropped")
    made = list(sp.from_iterable([{"__key__": "a", "txt": b" \n"}, {"__key__": "b", "txt": b"x"}]).caption())
    assert [(each["caption"], each["caption_dropped"]) for each in made] == [("", False), ("x", False)]
    assert counted("caption", "captions empty") - before[0] == 1
    list(sp.from_iterable(SAMPLES).caption(dropout=1))
    assert counted("caption", "captions dropped") - before[1] == 40


@pytest.mark.parametrize("decode_first", [False, True])
def test_a_cp1252_caption_is_read_and_counted(decode_first):
    before = counted("texts", "read as cp1252 (not UTF-8)")
    pipe = sp.from_iterable([{"__key__": "a", "txt": "na\u00efve \u201cquote\u201d".encode("cp1252")}])
    pipe = pipe.decode().caption() if decode_first else pipe.caption().decode()
    (sample,) = pipe
    assert sample["caption"] == sample["txt"] == "na\u00efve \u201cquote\u201d"
    assert counted("texts", "read as cp1252 (not UTF-8)") - before == (1 if decode_first else 2)


def test_bad_samples_are_skipped_where_asked():
    rows = [{"__key__": "a", "json": b"{"}, {"__key__": "b", "json": b'{"txt": {}}'}, {"__key__": "c", "txt": b"x"}]
    with pytest.raises(sp.DecodeError, match=r"stage 'caption', sample 'a': field 'json': 1 bytes are no sound json"):
        list(sp.from_iterable(rows).caption())
    with pytest.raises(sp.DecodeError, match=r"sample 'b': 'txt' is an object"):
        list(sp.from_iterable(rows[1:]).caption())
    assert [each["__key__"] for each in sp.from_iterable(rows, on_error="skip").caption()] == ["c"]
    with pytest.raises(sp.StageError, match="stage 'caption', sample 'c': ZeroDivisionError"):
        list(sp.from_iterable(rows[2:]).caption(clean=lambda text: 1 // 0))


def test_two_captions_have_fields_of_their_own():
    pipe = sp.from_iterable(SAMPLES).caption(dropout=0.5).caption(dropout=0.5, into="second")
    rows = list(pipe)
    assert {(each["caption_dropped"], each["second_dropped"]) for each in rows} == {
        (a, b) for a in (True, False) for b in (True, False)
    }


def test_a_caption_wants_no_random_numbers_where_nothing_is_random(monkeypatch):
    def refuse(*_):
        raise AssertionError("a generator was made")

    monkeypatch.setattr(Run, "seed_of", refuse)
    assert len(list(sp.from_iterable(SAMPLES).caption(tags=sp.Tags(keep=1), prefix="p"))) == 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefix": 3}, "prefix is a text, not 3"),
        ({"suffix": None}, "suffix is a text, not None"),
        ({"template": 5}, "template is a text, not 5"),
        ({"clean": "lower"}, "clean is a function"),
        ({"weights": 1.0}, "weights are one number for each of the 2 keys"),
        ({"weights": ["a", "b"]}, "weights are one number for each of the 2 keys"),
    ],
)
def test_a_wrong_value_is_one_clear_sentence(options, words):
    with pytest.raises(sp.ConfigError, match=words):
        sp.from_iterable(SAMPLES).caption("long;txt", **options)
