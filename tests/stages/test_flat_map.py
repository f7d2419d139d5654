import pytest

import streampipe as sp
from streampipe.counters import counters

ROWS = [{"__key__": "a", "__url__": "u", "n": 2}, {"__key__": "b", "__url__": "u", "n": 0}, {"__key__": "c", "n": 3}]


def copies(sample):
    return [{"i": i} for i in range(sample["n"])]


@pytest.mark.parametrize("threads", [None, 2])
def test_each_new_sample_has_a_key_of_its_own_and_the_metadata_of_the_old_one(threads):
    counters.take()
    out = list(sp.from_iterable(ROWS).flat_map(copies, threads=threads))
    assert [(each["__key__"], each["i"]) for each in out] == [
        ("a-0", 0),
        ("a-1", 1),
        ("c-0", 0),
        ("c-1", 1),
        ("c-2", 2),
    ]
    assert out[0]["__url__"] == "u"
    assert [each["__position__"].sample for each in out] == [0, 0, 2, 2, 2]
    assert counters.get("flat_map(copies)", "dropped") == 1


def test_keys_of_the_functions_own_and_generators_and_skip_are_taken():
    def own(sample):
        if sample["n"] == 0:
            return
        yield {"__key__": f"x{sample['n']}"}
        yield sample

    keys = [each["__key__"] for each in sp.from_iterable(ROWS).flat_map(own)]
    assert keys == ["x2", "a-1", "x3", "c-1"]
    assert list(sp.from_iterable(ROWS[:1]).flat_map(lambda sample: sp.SKIP)) == []
    assert list(sp.from_iterable([[1, 2], [3]]).flat_map(lambda numbers: numbers)) == [1, 2, 3]


@pytest.mark.parametrize("gives", [lambda s: s, lambda s: "text", lambda s: 3, lambda s: None])
def test_what_is_no_list_of_samples_is_refused(gives):
    with pytest.raises(sp.StageError, match="sample 'a': the function gave a"):
        list(sp.from_iterable(ROWS).flat_map(gives))


def test_an_error_names_the_sample_and_may_be_skipped():
    def fails(sample):
        return copies(sample) if sample["n"] != 2 else 1 / 0

    with pytest.raises(sp.StageError, match="'flat_map.fails.', sample 'a' of u: ZeroDivisionError"):
        list(sp.from_iterable(ROWS).flat_map(fails))
    assert len(list(sp.from_iterable(ROWS, on_error="skip").flat_map(fails))) == 3


def test_behind_batch_every_row_has_a_key_of_its_own():
    rows = [{"__key__": key, "n": 1} for key in "ab"]
    out = list(sp.from_iterable(rows).batch(2).flat_map(lambda batch: [{"i": 0}, {"i": 1}]))
    assert [each["__key__"] for each in out] == [["a-0", "b-0"], ["a-1", "b-1"]]
