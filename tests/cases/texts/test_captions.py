"""Captions as people store them: missing values, encodings, line ends, lists of objects, wildcards."""

import decimal
import io
import json
import math
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe.counters import counters
from tests.data import shard


def caption(fields, **options):
    """The caption of one sample, the same before and behind decode."""
    sample = {"__key__": "a", **fields}
    found = [each["caption"] for each in sp.from_iterable([sample]).caption(**options)]
    if all(isinstance(value, bytes) for value in fields.values()):
        assert [each["caption"] for each in sp.from_iterable([sample]).decode().caption(**options)] == found
    return found[0]


NOTHING = ["null", "NaN", "Infinity", "-Infinity", "[NaN, null]", "[null]"]


@pytest.mark.parametrize("value", NOTHING)
def test_a_missing_value_hides_no_other_key(value):
    assert caption({"json": f'{{"caption": {value}, "prompt": "a dog"}}'.encode()}) == "a dog"


@pytest.mark.parametrize("value", NOTHING)
def test_a_missing_value_is_no_caption(value):
    with pytest.raises(sp.StageError, match="there is no caption"):
        caption({"json": f'{{"caption": {value}}}'.encode()})
    assert caption({"json": f'{{"caption": {value}}}'.encode()}, missing="keep") == ""


def test_a_missing_value_in_a_list_is_never_chosen():
    data = b'{"caption": [NaN, "a dog", null, Infinity]}'
    assert {caption({"__key__": str(i), "json": data}) for i in range(30)} == {"a dog"}


def test_a_missing_value_fills_no_slot_of_a_template():
    with pytest.raises(sp.StageError, match="there is no caption"):
        caption({"json": b'{"caption": "a dog", "artist": NaN}'}, template="{caption} by {json.artist}")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([math.nan], pa.float64()),
        pa.array([math.inf], pa.float32()),
        pa.array([None], pa.string()),
        pa.array([[None]], pa.list_(pa.string())),
        pa.array([None], pa.dictionary(pa.int32(), pa.string())),
    ],
    ids=str,
)
def test_a_missing_value_of_a_joined_column_is_no_caption(tmp_path, column):
    (tmp_path / "0.tar").write_bytes(shard([("a", {"cls": "1", "txt": "a dog"})]))
    pq.write_table(pa.table({"key": ["a"], "recap": column}), tmp_path / "0.recap.parquet")
    pipe = sp.stream(tmp_path / "0.tar").join("{stem}.recap.parquet").caption(keys="recap;txt")
    assert [each["caption"] for each in pipe] == ["a dog"]


@pytest.mark.parametrize("name", ["json", "jsonl"])
def test_a_nan_of_a_joined_json_is_no_caption(tmp_path, name):
    (tmp_path / "0.tar").write_bytes(shard([("a", {"txt": "a dog"})]))
    rows = '{"a": {"recap": NaN}}' if name == "json" else '{"key": "a", "recap": NaN}'
    (tmp_path / f"0.recap.{name}").write_text(rows)
    pipe = sp.stream(tmp_path / "0.tar").join(f"{{stem}}.recap.{name}").caption(keys="recap;txt")
    assert [each["caption"] for each in pipe] == ["a dog"]


def test_values_that_code_made_are_judged_alike():
    for value in (math.nan, np.float32("nan"), np.float64("inf"), decimal.Decimal("NaN")):
        assert caption({"caption": value, "prompt": "a dog"}, keys="caption;prompt") == "a dog"
    assert caption({"caption": decimal.Decimal("1.5")}) == "1.5"


def test_pandas_own_missing_values_are_none():
    pandas = pytest.importorskip("pandas")
    for value in (pandas.NA, pandas.NaT):
        assert caption({"caption": value, "prompt": "a dog"}, keys="caption;prompt") == "a dog"


def test_a_text_that_says_nan_stays_and_is_counted():
    before = counters.get("texts", "that say nan or None (a missing value, written as text?)")
    assert caption({"txt": b"nan"}) == "nan"
    assert counters.get("texts", "that say nan or None (a missing value, written as text?)") > before
    assert caption({"txt": b"0"}) == "0"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(end):
    text = f"a cat{end}a dog{end}{end}".encode()
    assert caption({"txt": text}, lines="first") == "a cat"
    found = {
        each["caption"]
        for each in sp.from_iterable([{"__key__": str(i), "txt": text} for i in range(30)]).caption(lines="random")
    }
    assert found == {"a cat", "a dog"}


def test_other_separators_are_no_line_ends():
    text = "one\u2028two\x0bthree\x85four"
    assert caption({"txt": text.encode()}, lines="first") == text


def test_tags_are_joined_by_what_they_were_separated_by():
    for separator, joined in ((";", "a; b; c"), (",", "a, b, c"), (" ", "a b c"), ("\n", "a\nb\nc"), ("|", "a| b| c")):
        text = separator.join("abc").encode()
        assert caption({"txt": text}, tags=sp.Tags(separator=separator)) == joined
    assert caption({"txt": b"a;b"}, tags=sp.Tags(separator=";", join="+")) == "a+b"


def test_a_key_leads_through_a_list_of_objects():
    data = json.dumps({"captions": [{"text": "a"}, {"text": None}, {"other": 1}, {"text": "b"}]}).encode()
    found = [
        each["caption"]
        for each in sp.from_iterable([{"__key__": str(i), "json": data} for i in range(30)]).caption(
            keys="captions.text"
        )
    ]
    assert set(found) == {"a", "b"}
    assert caption({"json": data}, keys="captions.0.text") == "a"
    with pytest.raises(sp.DecodeError, match=r"name one of its entries: captions.text; or say objects='json'"):
        caption({"json": data}, keys="captions")
    with pytest.raises(sp.StageError, match="there is no caption"):
        caption({"json": data}, keys="captions.9.text")


def test_an_object_is_a_structured_caption_where_that_is_asked_for():
    data = '{"subject": "caf\u00e9", "score": NaN, "tags": ["a", {"b": 1}]}'.encode()
    wanted = {"subject": "caf\u00e9", "score": None, "tags": ["a", {"b": 1}]}
    whole = caption({"json": data}, keys="json", objects="json")
    assert json.loads(whole) == wanted
    assert "caf\u00e9" in whole
    inside = json.dumps({"caption": wanted}).encode()
    assert json.loads(caption({"json": inside}, objects="json")) == wanted
    with pytest.raises(sp.ConfigError, match="objects is one of error, json"):
        sp.from_iterable([]).caption(objects="yaml")


def test_a_template_may_hold_wildcards():
    wild = sp.Tags(wildcard=True)
    found = {
        each["caption"]
        for each in sp.from_iterable([{"__key__": str(i), "txt": b"cat"} for i in range(40)]).caption(
            template="a {red|blue} {caption}", tags=wild
        )
    }
    assert found == {"a red cat", "a blue cat"}
    assert caption({"txt": b"cat"}, template="{{x}} {caption}", tags=wild) == "{x} cat"
    assert caption({"txt": b"cat"}, template="{{x|y}} {caption}") == "{x|y} cat"
    with pytest.raises(sp.ConfigError, match=r"{red\|blue} in the template is a wildcard; say tags="):
        sp.from_iterable([]).caption(template="a {red|blue} {caption}")


@pytest.mark.parametrize("member", ["txt", "caption", "json", "txt.gz"])
@pytest.mark.parametrize("kind", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_member_reads_the_same_in_caption_decode_and_join(tmp_path, member, kind):
    import gzip

    text = "a caf\u00e9 by the sea, na\u00efve"
    data = (json.dumps({"caption": text}, ensure_ascii=False) if member == "json" else text).encode(kind)
    data = gzip.compress(data) if member == "txt.gz" else data
    keys = "caption" if member == "json" else member
    assert caption({member: data}, keys=keys) == text
    (tmp_path / "0.tar").write_bytes(shard([("a", {"cls": "1"})]))
    (tmp_path / "0.more.tar").write_bytes(shard([("a", {member: data})]))
    pipe = sp.stream(tmp_path / "0.tar").join("{stem}.more.tar").caption(keys=keys)
    assert [each["caption"] for each in pipe] == [text]


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_where_reads_json_by_the_same_rule(tmp_path, tier):
    rows = [("a", '{"n": 1, "t": "caf\u00e9"}'.encode("cp1252")), ("b", '{"n": 2, "t": "x"}'.encode("utf-16"))]
    (tmp_path / "0.tar").write_bytes(shard([(key, {"json": data}) for key, data in rows]))
    for condition, kept in (("t == 'caf\u00e9'", ["a"]), ("n == 2", ["b"])):
        assert [each["__key__"] for each in sp.stream(tmp_path / "0.tar", tier=tier).where(condition)] == kept


def test_messages_never_show_addresses():
    with pytest.raises(sp.DecodeError) as error:
        list(sp.from_iterable([{"__key__": "a", "txt": io.BytesIO(b"x")}]).caption())
    assert "0x" not in str(error.value)


def test_a_damaged_json_is_an_error_that_names_sample_field_and_bytes(tmp_path):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.json")
        info.size = 3
        tar.addfile(info, io.BytesIO(b'{"a'))
    for pipe in (sp.stream(path).caption(), sp.stream(path).decode()):
        with pytest.raises(sp.DecodeError, match=r"sample 'a' of .*0.tar.*'json'.*3 bytes are no sound json"):
            list(pipe)
