"""Layouts of folders: where a file belongs, and what its place says of its sample.

A layout gives each file a place, the path that it would have in a plain folder, where an image lies beside the files of
the same name. What the place says (a class, a number of repeats) becomes facts of the sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from streampipe.pack.names import Item

_LABELS = re.compile(r"-(masklabel|condlabel)(?=\.[^./]+\Z)", re.IGNORECASE)


def _as_it_is(path: str) -> str | None:
    """``a-masklabel.png`` (OneTrainer's) is a field of ``a``, as ``a.masklabel.png`` is."""
    return _LABELS.sub(r".\1", path) if "-" in path else path


def _no_more(item: Item) -> Item:
    return item


@dataclass(frozen=True)
class Layout:
    """How a folder is laid out: ``place`` gives a file's place (None: not of a sample), ``finish`` adds facts."""

    name: str
    about: str
    place: Callable[[str], str | None] = _as_it_is
    finish: Callable[[Item], Item] = _no_more
    wants: str = "images lie in the folder and those below it, with their .txt or .json files beside them"


PLAIN = Layout("plain", "images with files of the same name beside them")
