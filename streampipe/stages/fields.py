"""Fields by preference: ``"jpg;png;webp"`` is the first of these that a sample has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streampipe.context import where
from streampipe.errors import StageError


def find(sample: Mapping[str, Any], wanted: str, stage: str) -> str:
    """The name of the first alternative in ``wanted`` that the sample has.

    >>> find({"__key__": "a", "png": b""}, "jpg;png", "select")
    'png'
    """
    for name in wanted.split(";"):
        if name in sample:
            return name
    have = ", ".join(name for name in sample if not name.startswith("__")) or "no fields"
    raise StageError(
        f"stage {stage!r}, {where(sample)}: there is no field {wanted!r} (it has {have}); name what it has, "
        f"with alternatives as in 'jpg;png', or skip such samples with on_error='skip'"
    )


def metadata_of(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The entries whose names start with two underscores: key, URL and position."""
    return {name: value for name, value in sample.items() if name.startswith("__")}


def written(name: str, value: str) -> str:
    """A field as one writes it in a call that is given fields by their names.

    >>> written("mask", "0"), written("mask.png", "0")
    ('mask=0', "**{'mask.png': 0}")
    """
    return f"{name}={value}" if name.isidentifier() else f"**{{{name!r}: {value}}}"
