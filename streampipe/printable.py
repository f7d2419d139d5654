"""Text of others, made so that a terminal and a log show it as what it is."""

from __future__ import annotations


def printable(text: str, most: int = 300) -> str:
    r"""Text that data or a server brought, on one line: no control characters, no escape sequences, no turned letters.

    A name in a shard may hold the sequence that clears a screen, or that makes the letters behind it run backwards.

    >>> printable("a\x1b[2Jb\n\u202egnp.exe")
    'a\\x1b[2Jb\\n\\u202egnp.exe'
    >>> printable("straße 東京")
    'straße 東京'

    Args:
        most: characters to show; of a longer text, its beginning and its length.
    """
    cut = text[:most]
    shown = cut if cut.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in cut)
    return shown if len(text) <= most else f"{shown}... ({len(text)} characters)"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
