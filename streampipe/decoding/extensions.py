"""What the last part of a field's name says about its bytes. Each list stands here once; those of images with their
codecs."""

from __future__ import annotations

from functools import lru_cache

TEXTS = frozenset(("txt", "text", "transcript", "caption"))
JSONS = frozenset(("json", "jsn"))
NUMBERS = frozenset(("cls", "cls2", "index", "inx", "id"))
VIDEOS = frozenset(("mp4", "m4v", "mov", "webm", "mkv"))
SOUNDS = frozenset(("m4a", "m4b", "aac", "mka", "weba", "mp3", "wav", "flac", "ogg", "opus"))
UNSAFE = frozenset(("pkl", "pickle", "pyd", "pth", "pt", "ckpt", "bin", "joblib", "dill"))
"""Formats that can run code when they are read."""


@lru_cache(1024)
def extension_of(name: str) -> str:
    """The last part of a field's name, in lower case.

    >>> extension_of("seg.PNG"), extension_of("txt")
    ('png', 'txt')
    """
    return name.rpartition(".")[2].lower()
