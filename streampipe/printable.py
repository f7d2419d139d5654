"""Text of others, made so that a terminal and a log show it as what it is."""

from __future__ import annotations

import unicodedata


def printable(text: str, most: int | None = 300, keep: str = "") -> str:
    r"""Text that data or a server brought, on one line: no control characters, no escape sequences, no turned letters.

    A name in a shard may hold the sequence that clears a screen, or that makes the letters behind it run backwards.

    >>> printable("a\x1b[2Jb\n\u202egnp.exe")
    'a\\x1b[2Jb\\n\\u202egnp.exe'
    >>> printable("straße 東京")
    'straße 東京'

    Args:
        most: characters to show; of a longer text, its beginning and its length. None: all.
        keep: characters to leave as they are, such as line breaks.
    """
    cut = text[:most]
    shown = cut if cut.isprintable() else "".join(each if each in keep else _shown(each) for each in cut)
    return shown if len(cut) == len(text) else f"{shown}... ({len(text)} characters)"


def _shown(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":  # wide spaces are letters' like
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
