import pytest

import streampipe as sp
from streampipe.counters import counters

ROWS = [{"__key__": "a", "png": 1, "txt": 2, "n": 3}, {"__key__": "b", "jpg": 1, "n": 3}]


def test_the_first_alternative_goes_and_the_rest_stays():
    out = [{k for k in each if not k.startswith("__")} for each in sp.from_iterable(ROWS).drop("jpg;png", "n")]
    assert out == [{"txt"}, set()]


@pytest.mark.parametrize(("missing", "left"), [("keep", [["png", "n"], ["jpg", "n"]]), ("drop", [["png", "n"]])])
def test_what_lacks_a_field_is_kept_or_dropped_and_counted(missing, left):
    counters.take()
    out = [[k for k in each if not k.startswith("__")] for each in sp.from_iterable(ROWS).drop("txt", missing=missing)]
    assert out == left
    assert counters.get("drop", f"fields missing (sample {'kept' if missing == 'keep' else 'dropped'})") == 1


def test_what_lacks_a_field_is_an_error_and_so_is_dropping_everything():
    with pytest.raises(sp.StageError, match=r"stage 'drop', sample 'b': there is no field 'txt' \(it has jpg, n\)"):
        list(sp.from_iterable(ROWS).drop("txt"))
    with pytest.raises(sp.StageError, match="dropped every one of 2 samples, because none has 'webp'"):
        list(sp.from_iterable(ROWS).drop("webp", missing="drop"))
