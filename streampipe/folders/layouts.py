"""Layouts of folders: where a file belongs, and what its place says of its sample.

A layout gives each file a place, the path that it would have in a plain folder, where an image lies beside the files of
the same name. What the place or a table says (a class, a number of repeats, a caption) becomes facts of the sample.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from streampipe.decoding.fields import IMAGES
from streampipe.errors import ConfigError
from streampipe.folders.metadata import Rows, find
from streampipe.folders.names import File, Item, extension

CAPTIONS = frozenset(("txt", "json", "caption", "text", "transcript"))
"""Fields that a caption may be in."""
_LABELS = re.compile(r"-(masklabel|condlabel)(?=\.[^./]+\Z)", re.IGNORECASE)
_REPEATS = re.compile(r"([1-9]\d*)_(.+)")
_ROLES = {
    **dict.fromkeys(("images", "image", "img", "imgs", "target", "targets"), ""),
    **dict.fromkeys(("captions", "caption", "texts", "text", "prompts", "prompt", "txt", "instructions"), "caption"),
    **dict.fromkeys(("conditioning_images", "conditioning_image", "conditioning", "cond"), "conditioning"),
    **dict.fromkeys(("control", "controls", "control_images"), "control"),
    **dict.fromkeys(("mask", "masks"), "mask"),
    **dict.fromkeys(("source", "sources", "input", "inputs"), "source"),
    **dict.fromkeys(("ref", "refs", "reference", "references"), "ref"),
    **{name: name for name in ("depth", "canny", "edges", "pose", "seg", "normal", "lineart", "sketch")},
}
"""Folders side by side that hold the parts of samples, by the part of the field's name that they stand for."""


@dataclass(frozen=True)
class Layout:
    """How a folder is laid out.

    Args:
        place: a file's place; None if it is of no sample.
        finish: adds facts to a sample; None if it is none after all.
        rows: the tables that ``place`` and ``finish`` ask.
    """

    name: str
    about: str
    place: Callable[[str], str | None]
    finish: Callable[[Item], Item | None] = lambda item: item
    rows: Rows | None = None
    wants: str = "images lie in the folder and those below it, with their .txt or .json files beside them"


def _plain(path: str) -> str | None:
    """``a-masklabel.png`` (OneTrainer's) is a field of ``a``, as ``a.masklabel.png`` is."""
    return _LABELS.sub(r".\1", path) if "-" in path else path


PLAIN = Layout("plain", "images with files of the same name beside them", _plain)


def kohya(folder: str) -> Layout:
    """``N_class tokens/image.jpg``: repeats and class tokens become facts; images are not copied N times."""

    def place(path: str) -> str | None:
        cached = path.endswith(".npz")  # latents and embeddings, of a model and its settings
        return _plain(path) if path.count("/") == 1 and _REPEATS.match(path) and not cached else None

    def finish(item: Item) -> Item:
        found = _REPEATS.fullmatch(item.key.partition("/")[0])
        assert found is not None
        return _with_facts(item, {"repeats": int(found[1]), "class_tokens": found[2]}, found[2])

    wants = "images lie in folders named as in '10_my dog': a number of repeats, and class tokens"
    return Layout("kohya", "folders of repeats and class tokens", place, finish, wants=wants)


def classes(folder: str) -> Layout:
    """``class/.../image.jpg``: the number of the class among all, sorted, becomes ``cls``, its name a fact."""
    with os.scandir(folder) as entries:
        names = sorted(each.name for each in entries if each.is_dir(follow_symlinks=False) and each.name[0] != ".")
    numbers = {name: number for number, name in enumerate(names)}

    def place(path: str) -> str | None:
        return _plain(path) if "/" in path else None

    def finish(item: Item) -> Item:
        name = next(iter(item.files.values())).path.partition("/")[0]
        return _with(_with_facts(item, {"class": name}, None), "cls", str(numbers[name]))

    wants = "images lie in one folder for each class"
    return Layout("classes", f"{len(names)} folders that are classes", place, finish, wants=wants)


def tables(folder: str, given: str | None = None) -> Layout:
    """Images that a table describes (Hugging Face's imagefolder, lists of captions, a trainer's json)."""
    where = [os.path.relpath(given, folder)] if given is not None else find(folder)
    if not where:
        raise ConfigError(f"{folder} has no metadata.csv, .jsonl or .parquet; name the table with metadata=")
    rows = Rows(folder, where, of_folder=given is not None)
    skip = frozenset(map(os.path.normpath, where))

    def place(path: str) -> str | None:
        if path in skip:
            return None
        return rows.place(path) or _plain(path)

    def finish(item: Item) -> Item:
        paths = [file.path for name, file in item.files.items() if name in IMAGES]
        found = next((row for path in paths if (row := rows.row(path)) is not None), None)
        return item if found is None else _with_facts(item, json.loads(found[0]), found[1])

    return Layout("tables", f"{rows.count} rows of {', '.join(where[:3])}", place, finish, rows)


def pairs(folder: str) -> Layout:
    """Folders side by side, ``images/a.jpg``, ``conditioning_images/a.png``, ``captions/a.txt``: sample ``a``."""

    def place(path: str) -> str | None:
        top, _, below = path.partition("/")
        role = _ROLES.get(top.lower())
        ext = extension(below) if below else None
        if role is None or ext is None:
            return None
        if role in ("", "caption"):
            return below
        stem = below[: -len(ext) - 1]
        parent, slash, name = stem.rpartition("/")
        if role == "ref" and slash and name.isdigit():  # a folder of references for each image
            return f"{parent}.ref{name}.{ext}"
        return f"{stem}.{role}.{ext}"

    def finish(item: Item) -> Item | None:
        return item if any(_ROLES[file.path.partition("/")[0].lower()] == "" for file in item.files.values()) else None

    wants = "images lie in images/, and what belongs to them under the same names in folders beside it"
    return Layout("pairs", "folders side by side that hold the parts of samples", place, finish, wants=wants)


LAYOUTS: dict[str, Callable[[str], Layout]] = {
    "plain": lambda folder: PLAIN,
    "kohya": kohya,
    "classes": classes,
    "tables": tables,
    "pairs": pairs,
}


def layout_of(folder: str, name: str = "auto", metadata: str | None = None) -> Layout:
    """The layout of this name; under ``"auto"`` the one that a folder seems to have, never ``"classes"``.

    Raises:
        ConfigError: there is none of this name.
        PackError: a table cannot be read.
    """
    if name != "auto" and name not in LAYOUTS:
        raise ConfigError(f"there is no layout {name!r}; there are auto, {', '.join(LAYOUTS)}")
    if metadata is not None:
        if name not in ("auto", "tables"):
            raise ConfigError(f"metadata= is a table of layout 'tables', not of {name!r}")
        return tables(folder, metadata)
    if name != "auto":
        return LAYOUTS[name](folder)
    if find(folder):
        return tables(folder)
    try:
        with os.scandir(folder) as entries:
            seen = [(each.name, each.is_dir(follow_symlinks=False)) for each in entries if each.name[0] != "."]
    except OSError:
        return PLAIN  # whoever lists the files says so
    folders = [name for name, is_folder in seen if is_folder]
    loose = any(extension(name) for name, is_folder in seen if not is_folder)
    roles = [_ROLES.get(name.lower()) for name in folders]
    if not loose and len(folders) > 1 and roles.count("") == 1 and None not in roles:
        return pairs(folder)
    if not loose and folders and all(_REPEATS.fullmatch(name) for name in folders):
        return kohya(folder)
    return PLAIN


def with_caption(item: Item, caption: str) -> Item:
    """A sample with a caption where it has none; ``{name}`` and ``{folder}`` are those of its image.

    >>> item = Item("dogs/old_dog", {"jpg": File("dogs/old_dog.jpg", 1, 0)})
    >>> with_caption(item, "a photo of {name}").files["txt"].data
    'a photo of old dog'
    """
    if not CAPTIONS.isdisjoint(item.files):
        return item
    folder, _, name = item.key.rpartition("/")
    words = {"{name}": name.replace("_", " "), "{folder}": folder.rpartition("/")[2].replace("_", " ")}
    for slot, word in words.items():
        caption = caption.replace(slot, word)
    return _with(item, "txt", caption)


def _with_facts(item: Item, facts: dict[str, object], caption: str | None) -> Item:
    """A sample with facts as its json (as ``meta.json`` where it has one), and a caption where no file has one."""
    if facts:
        name = "meta.json" if "json" in item.files else "json"
        item = _with(item, name, json.dumps(facts, ensure_ascii=False))
    has_one = not (CAPTIONS - {"json"}).isdisjoint(item.files)
    return item if has_one or not caption else _with(item, "txt", caption)


def _with(item: Item, name: str, text: str) -> Item:
    return Item(item.key, {**item.files, name: File("", len(text.encode()), 0, text)})
