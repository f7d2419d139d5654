"""Texts of every encoding that captions come in."""

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.decoding import decode_field
from streampipe.decoding.text import decode_text


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


@pytest.mark.parametrize("data", ["a cat\u00e9".encode("utf-16"), "\u00e9".encode("utf-16-le"), b"\xff\0\xff"])
def test_utf16_and_binary_data_are_damage(data):
    with pytest.raises(sp.DecodeError, match="no UTF-8 text .*; save it as UTF-8"):
        decode_text(data)
