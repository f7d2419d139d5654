"""Texts of every encoding that captions come in."""

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.decoding import decode_field
from streampipe.decoding.text import decode_json, decode_text


@pytest.mark.parametrize("text", ["a cat", "", "na\u00efve caf\u00e9", "\u732b", "a\r\nb", "\U0001f600"])
def test_utf8_is_read_with_and_without_a_mark_and_not_counted(text):
    before = counters.get("texts", "read as cp1252 (not UTF-8)")
    assert decode_text(text.encode()) == decode_text(text.encode("utf-8-sig")) == text
    assert decode_field("txt", text.encode()) == text
    assert counters.get("texts", "read as cp1252 (not UTF-8)") == before


def test_everything_else_is_windows_1252_and_counted():
    before = counters.get("texts", "read as cp1252 (not UTF-8)")
    for text in ("caf\u00e9", "\u201cquoted\u201d \u2013 \u20ac5", "\u00e9"):
        assert decode_text(text.encode("cp1252")) == text
    assert decode_text(b"caf\xe9 \x81") == "caf\u00e9 \ufffd"
    assert counters.get("texts", "read as cp1252 (not UTF-8)") - before == 4


@pytest.mark.parametrize("kind", ["utf-16", "utf-32"])
def test_a_byte_order_mark_says_what_a_text_is(kind):
    assert decode_text("a caf\u00e9, \u732b".encode(kind)) == "a caf\u00e9, \u732b"


@pytest.mark.parametrize("data", ["\u00e9".encode("utf-16-le"), "a cat".encode("utf-16-be"), b"\xff\0\xff", b"a\0b"])
def test_nul_bytes_are_damage(data):
    with pytest.raises(sp.DecodeError, match="are no text: byte . is a NUL .*; save it as UTF-8"):
        decode_text(data)


def test_a_mark_that_lies_is_damage():
    with pytest.raises(sp.DecodeError, match="begin as utf-16 text, but are none"):
        decode_text("a cat".encode("utf-16")[:-1])


CAFES = "Two caf\u00e9s in K\u00f6ln, \u2615 \u732b\u304c\u597d\u304d"


@pytest.mark.parametrize("at", [at for at, byte in enumerate(CAFES.encode()) if byte > 127])
def test_a_byte_that_is_cut_out_leaves_a_text_utf8(at):
    data = CAFES.encode()
    before = counters.get("texts", "with damaged UTF-8")
    text = decode_text(data[:at] + data[at + 1 :])
    assert sum(a != b for a, b in zip(text, CAFES, strict=False)) <= 2 or "\ufffd" in text
    assert "\ufffd" in text
    assert len(set(CAFES) - set(text)) <= 1
    assert counters.get("texts", "with damaged UTF-8") - before == 1


@pytest.mark.parametrize("text", ["a caf\u00e9", "a cup \u2615", "a grin \U0001f600", CAFES])
def test_a_text_that_is_cut_off_within_a_character_is_utf8(text):
    assert decode_text(text.encode()[:-1]) == text[:-1] + "\ufffd"


@pytest.mark.parametrize(
    "text", ["caf\u00e9", "MA\u00c7\u00c3", "voil\u00e0\u201d", "\u00c3", "na\u00efve r\u00e9sum\u00e9\u2026"]
)
def test_short_texts_in_windows_1252_are_not_taken_for_cut_ones(text):
    assert decode_text(text.encode("cp1252")) == text


@pytest.mark.parametrize("kind", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_json_is_read_in_every_encoding_by_caption_and_decode_alike(kind):
    data = '{"caption": "caf\u00e9", "n": 1}'.encode(kind)
    sample = {"__key__": "a", "json": data}
    assert [each["caption"] for each in sp.from_iterable([sample]).caption()] == ["caf\u00e9"]
    assert [each["caption"] for each in sp.from_iterable([sample]).decode().caption()] == ["caf\u00e9"]
    assert [each["__key__"] for each in sp.from_iterable([sample]).where("n == 1")] == ["a"]


def test_json_whose_objects_would_take_too_much_is_refused_before_they_are_made():
    for data in (b"[" + b"{}," * 2_000_000 + b"{}]", b"[" * 3_000_000, b'{"a":' * 2_000_000):
        with pytest.raises(sp.DecodeError, match="could take"):
            decode_json(data)
    assert len(decode_json(b"[" + b"0," * 600_000 + b"0]")) == 600_001
