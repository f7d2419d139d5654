"""Text of others is shown as what it is: nothing in it is an order to a terminal or a log."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streampipe as sp
from streampipe.cli import main
from streampipe.printable import printable
from streampipe.source import redact
from tests.data import shard

EVIL = "\x1b[2J\x1b]0;owned\x07\u202egnp.\x9b31m"


def is_safe(text):
    return not any(ord(each) < 32 or 127 <= ord(each) < 160 or each in "\u202a\u202b\u202d\u202e" for each in text)


@given(st.text())
def test_what_is_shown_holds_no_order_and_plain_text_stays(text):
    assert is_safe(printable(text, None))
    assert printable(printable(text, None), None) == printable(text, None)
    if text.isprintable():
        assert printable(text, None) == text


def test_long_texts_are_cut_and_letters_of_the_world_are_kept():
    assert printable("x" * 400) == "x" * 300 + "... (400 characters)"
    assert printable("stra\u00dfe \u6771\u4eac\u3000\u00a0.", None) == "stra\u00dfe \u6771\u4eac\u3000\u00a0."
    assert printable("a\nb\udc80", None) == "a\\nb\\udc80"


def test_urls_and_errors_are_printable():
    assert is_safe(redact(f"https://h/{EVIL}.tar"))
    for kind in (sp.ConfigError, sp.SourceError, sp.ShardMissing, sp.CorruptShard, sp.DecodeError, sp.PackError):
        error = kind(f"{EVIL}: what")
        assert is_safe(str(error))
        assert is_safe(error.args[0])
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == str(error)
    assert str(sp.NameCollision("a\n  b")) == "a\n  b"  # our own lists have lines
    assert str(sp.SourceError()) == ""


@pytest.mark.parametrize("command", [["ls"], ["info"], ["verify"], ["cat"]])
def test_commands_print_no_order_of_a_shard(tmp_path, capsys, command):
    path = tmp_path / "a.tar"
    key = EVIL.replace(".", "")
    samples = [(f"k{key}", {"txt": "x", "jpg": "y"}), (f"l{key}", {"txt": "x"})]
    path.write_bytes(shard(samples)[: -1024 if command == ["verify"] else None])  # cut off: there is something to say
    main([*command, str(path), *([f"k{key}.none"] if command == ["cat"] else [])])
    out = capsys.readouterr()
    assert is_safe((out.out + out.err).replace("\n", "").replace("\t", "").replace("\r", ""))
    assert "\\x1b[2J" in out.out + out.err or command != ["ls"]
