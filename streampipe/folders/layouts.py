"""Layouts of folders: where a file belongs, and what its place says of its sample.

A layout gives each file a place, the path that it would have in a plain folder, where an image lies beside the files of
the same name. What the place or a table says (a class, a number of repeats, a caption) becomes facts of the sample.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.decoding.movie import PICTURES
from streampipe.errors import ConfigError, PackError
from streampipe.folders.files import Unreadable, read_file
from streampipe.folders.metadata import Rows, find
from streampipe.folders.names import File, Incomplete, Item, Taken, extension
from streampipe.folders.walk import allowed, folders_in, is_passed_over, leads_out, seen_from

CAPTIONS = frozenset(("txt", "json", "caption", "text", "transcript"))
"""Fields that a caption may be in."""
_DEFAULT = "default.txt"
_SHORT = 100  # bytes: the text of a number
_LABELS = re.compile(r"-(masklabel|condlabel)(?=\.[^./]+\Z)", re.IGNORECASE)
_REPEATS = re.compile(r"([1-9]\d*)_(.+)")
_REG = "reg"
_KOHYA = ("img", "image", "images", "train", _REG)
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
        place: a file's place, or the places of one that is of several samples; None if it is of none, empty if it is
            the layout's own.
        finish: adds facts to a sample; None if it is none after all; raises ``Incomplete`` where it lacks a part,
            ``Taken`` where a file has the field that they would be.
        rows: the tables that ``place`` and ``finish`` ask.
        stays: whether files have their places in their own directories, and ``finish`` adds nothing.
    """

    name: str
    about: str
    place: Callable[[str], str | tuple[str, ...] | None]
    finish: Callable[[Item], Item | None] = lambda item: item
    rows: Rows | None = None
    stays: bool = False
    wants: str = "images lie in the folder and those below it, with their .txt or .json files beside them"


def _plain(path: str) -> str | None:
    """``a-masklabel.png`` (OneTrainer's) is a field of ``a``, as ``a.masklabel.png`` is."""
    return _LABELS.sub(r".\1", path) if "-" in path else path


PLAIN = Layout("plain", "images with files of the same name beside them", _plain, stays=True)


def kohya(folder: str, without: Iterable[str] = ()) -> Layout:
    """``N_class tokens/image.jpg``: repeats and class tokens become facts; images are not copied N times.

    Such folders may lie in ``img/`` and, those of regularization images, in ``reg/``: ``is_reg`` then says which.
    """
    roots = _kohya_roots(folder, without)

    def place(path: str) -> str | None:
        root, _, below = path.partition("/")
        found = below if root in roots else path
        cached = path.endswith(".npz")  # latents and embeddings, of a model and its settings
        return _plain(path) if found.count("/") == 1 and _REPEATS.match(found) and not cached else None

    def finish(item: Item) -> Item:
        root, _, below = item.key.partition("/")
        found = _REPEATS.fullmatch(below.partition("/")[0] if root in roots else root)
        assert found is not None
        facts: dict[str, object] = {"repeats": int(found[1]), "class_tokens": found[2]}
        if roots:
            facts["is_reg"] = root.lower() == _REG
        return _with_facts(item, facts, found[2])

    about = "folders of repeats and class tokens" + (f" in {', '.join(sorted(roots))}" if roots else "")
    wants = "images lie in folders named as in '10_my dog': a number of repeats, and class tokens"
    return Layout("kohya", about, place, finish, wants=wants)


def _kohya_roots(folder: str, without: Iterable[str]) -> frozenset[str]:
    """The folders ``img`` and ``reg`` in which kohya's folders lie; none if they lie in the folder itself."""
    tops = folders_in(folder, without)
    if any(map(_REPEATS.fullmatch, tops)):
        return frozenset()
    below = {top: folders_in(os.path.join(folder, top), without) for top in tops if top.lower() in _KOHYA}
    return frozenset(top for top, names in below.items() if names and all(map(_REPEATS.fullmatch, names)))


def classes(folder: str, without: Iterable[str] = ()) -> Layout:
    """``class/.../image.jpg``: the number of the class among all, sorted, becomes ``cls``, its name a fact.

    Only a folder with images in it is a class: one that is empty, or is somebody's cache, moves no other's number.
    """
    names: set[str] = set()

    @cache
    def numbers() -> dict[str, int]:  # asked when all files have their places
        return {name: number for number, name in enumerate(sorted(names))}

    def place(path: str) -> str | None:
        if "/" not in path:
            return None
        if extension(path) in PICTURES:
            names.add(_class_of(path))
        return _plain(path)

    def finish(item: Item) -> Item | None:
        name = _class_of(item.key)
        if name not in numbers():  # a part that lies elsewhere, of no image here
            return None
        number = str(numbers()[name])
        item = _with_facts(item, {"class": name}, None)
        return item if _says(folder, item.files.get("cls"), number) else _with(item, "cls", number)

    wants = "images lie in one folder for each class"
    return Layout("classes", "each folder with images is a class", place, finish, wants=wants)


def _says(folder: str, file: File | None, text: str) -> bool:
    """Whether there is a file that says just this. Those of a store are not here to be asked."""
    try:
        return file is not None and file.size < _SHORT and read_file(folder, file, "cls").strip() == text.encode()
    except Unreadable:
        return False


def _class_of(path: str) -> str:
    return unicodedata.normalize("NFC", path.partition("/")[0])


def ai_toolkit(folder: str, without: Iterable[str] = (), follow: str | None = None) -> Layout:
    """``default.txt`` is the caption of all images in its folder that have none. ``follow``: where links may lead."""
    defaults: dict[str, str] = {}
    roots = allowed(folder, follow)

    def place(path: str) -> str | None:
        below, _, name = path.rpartition("/")
        if name != _DEFAULT:
            return _plain(path)
        defaults[unicodedata.normalize("NFC", below)] = _text_of(os.path.join(folder, path), roots)
        return ""

    def finish(item: Item) -> Item:
        caption = defaults.get(item.key.rpartition("/")[0])
        return item if caption is None or not CAPTIONS.isdisjoint(item.files) else _with(item, "txt", caption)

    return Layout("ai-toolkit", f"{_DEFAULT} is the caption of images without one", place, finish)


def _text_of(place: str, roots: Iterable[str]) -> str:
    """The text of a file.

    Raises:
        PackError: it is none, cannot be read, or leads out of all ``roots``.
    """
    if why := leads_out(place, roots):
        raise PackError(f"{place} is {why}")
    if not os.path.isfile(place):  # a fifo would be waited for
        raise PackError(f"{place} is no file, but the caption of a folder; put a text in its place")
    try:
        with open(place, encoding="utf-8-sig", errors="replace") as file:
            return file.read().strip()
    except OSError as error:
        raise PackError(f"{place} cannot be read ({error.strerror or error}); it is the caption of a folder") from error


def img2dataset(folder: str, without: Iterable[str] = ()) -> Layout:
    """What img2dataset writes as ``files``: folders of images with texts and json, and tables of all downloads."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    tables = sorted(name for name in names if re.fullmatch(r"\d+\.parquet", name))
    failed = total = 0
    for name in tables:
        try:
            column = pq.read_table(os.path.join(folder, name), columns=["status"]).column(0).to_pylist()
        except (OSError, ValueError, KeyError, IndexError, pa.ArrowException):
            continue  # it says nothing that is packed
        failed, total = failed + sum(status != "success" for status in column), total + len(column)
    about = f"of img2dataset, {len(tables)} tables"
    if total:
        about += f"; {failed} of {total} downloads failed, so there are no images of them"

    def place(path: str) -> str | None:
        if "/" not in path:
            return "" if path.endswith((".parquet", "_stats.json")) else None
        return _plain(path)

    wants = "images lie in folders such as 00000, as img2dataset leaves them"
    return Layout("img2dataset", about, place, stays=True, wants=wants)


def tables(
    folder: str,
    without: Iterable[str] = (),
    given: str | None = None,
    file_column: str | None = None,
    caption_column: str | None = None,
) -> Layout:
    """Images that a table describes (Hugging Face's imagefolder, lists of captions, a trainer's json)."""
    where = [seen_from(folder, given)] if given is not None else find(folder, without)
    if not where:
        raise ConfigError(f"{folder} has no metadata.csv, .jsonl or .parquet; name the table with metadata=")
    rows = Rows(folder, where, given is not None, file_column, caption_column)
    skip = frozenset(map(os.path.normpath, where))

    def place(path: str) -> str | tuple[str, ...] | None:
        if path in skip:
            return ""
        parts, own = rows.places(path), _plain(path)
        if not parts or own is None:
            return parts or own
        return (*parts, own) if rows.has(path) else parts  # a part of others, and an image with a row

    def finish(item: Item) -> Item:
        for path in [file.path for name, file in item.files.items() if name in PICTURES]:
            if (row := rows.row(path)) is not None:
                facts, text, parts = row
                for name, named in parts.items():
                    if name not in item.files:
                        raise Incomplete(path, f"its row names {named}, which is not in the folder")
                return _with_facts(item, json.loads(facts), text)
        return item

    return Layout("tables", f"{rows.count} rows of {given or ', '.join(where[:3])}", place, finish, rows)


def holds_images(top: str) -> bool:
    """Whether a folder of this name, beside those of other parts, is the one of the samples' images."""
    return _ROLES.get(top.lower()) == ""


def pairs(folder: str, without: Iterable[str] = ()) -> Layout:
    """Folders side by side, ``images/a.jpg``, ``conditioning_images/a.png``, ``captions/a.txt``: sample ``a``.

    ``refs/a/0.jpg`` is a reference of ``a``, unless ``images/a`` is a folder: then it is one of ``a/0``.
    """
    targets = list(filter(holds_images, folders_in(folder, without)))

    @cache
    def of_images(below: str) -> bool:
        return any(os.path.isdir(os.path.join(folder, target, below)) for target in targets)

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
        if role == "ref" and slash and name.isdigit() and not of_images(parent):  # a folder of them for each image
            return f"{parent}.ref{name}.{ext}"
        return f"{stem}.{role}.{ext}"

    def finish(item: Item) -> Item | None:
        tops = (file.path.partition("/")[0] for file in item.files.values())
        return item if any(map(holds_images, tops)) else None

    wants = "images lie in images/, and what belongs to them under the same names in folders beside it"
    return Layout("pairs", "folders side by side that hold the parts of samples", place, finish, wants=wants)


LAYOUTS: dict[str, Callable[[str, Iterable[str]], Layout]] = {
    "plain": lambda folder, without: PLAIN,
    "kohya": kohya,
    "classes": classes,
    "tables": tables,
    "pairs": pairs,
    "ai-toolkit": ai_toolkit,
    "img2dataset": img2dataset,
}


def layout_of(
    folder: str,
    name: str = "auto",
    metadata: str | None = None,
    file_column: str | None = None,
    caption_column: str | None = None,
    without: Iterable[str] = (),
    follow: str | None = None,
) -> Layout:
    """The layout of this name; under ``"auto"`` the one that a folder seems to have, never ``"classes"``. ``without``:
    folders in it that are not of it, as the output. ``follow``: a folder that symbolic links may lead into.

    Raises:
        ConfigError: there is none of this name.
        PackError: a table cannot be read.
    """
    if name != "auto" and name not in LAYOUTS:
        raise ConfigError(f"there is no layout {name!r}; there are auto, {', '.join(LAYOUTS)}")
    if metadata is not None:
        if name not in ("auto", "tables"):
            raise ConfigError(f"metadata= is a table of layout 'tables', not of {name!r}")
        return tables(folder, without, metadata, file_column, caption_column)
    if name == "tables" or (name == "auto" and (file_column or caption_column)):
        return tables(folder, without, None, file_column, caption_column)
    if file_column or caption_column:
        raise ConfigError(f"file_column and caption_column are of layout 'tables', not of {name!r}")
    if name == "ai-toolkit":
        return ai_toolkit(folder, without, follow)
    if name != "auto":
        return LAYOUTS[name](folder, without)
    if find(folder, without):
        return tables(folder, without)
    try:
        with os.scandir(folder) as entries:
            there = [each for each in entries if not is_passed_over(each.name)]
            files = {each.name for each in there if not each.is_dir(follow_symlinks=False)}
    except OSError:
        return PLAIN  # whoever lists the files says so
    folders = folders_in(folder, without)
    loose = any(map(extension, files))
    roles = [_ROLES.get(name.lower()) for name in folders]
    if not loose and len(folders) > 1 and roles.count("") == 1 and None not in roles:
        return pairs(folder, without)
    repeats = [name for name in folders if _REPEATS.fullmatch(name)]
    if not loose and folders and (len(repeats) == len(folders) or _kohya_roots(folder, without)):
        return kohya(folder, without)
    if not loose_images(files) and any(re.fullmatch(r"\d+_stats\.json", name) for name in files):
        return img2dataset(folder, without)
    if _DEFAULT in files and not any(name.startswith("default.") for name in files - {_DEFAULT}):
        return ai_toolkit(folder, without, follow)
    if roles.count("") == 1 and any(roles):
        parts = ", ".join(sorted(name for name, role in zip(folders, roles, strict=True) if role is not None))
        return replace(PLAIN, about=f"{PLAIN.about}; should {parts} be parts of samples, say --layout pairs")
    if len(folders) == 1 and not files:
        inner = layout_of(os.path.join(folder, folders[0]), without=without)
        if inner.rows is not None:
            inner.rows.close()
        if inner.name != PLAIN.name:
            return replace(PLAIN, about=f"{PLAIN.about}; {folders[0]} by itself looks like {inner.name}: pack that")
    if repeats:
        return replace(
            PLAIN, about=f"{PLAIN.about}; should {min(repeats)} say how often images are repeated: --layout kohya"
        )
    return PLAIN


def loose_images(names: Iterable[str]) -> bool:
    """Whether images are among these names."""
    return any((extension(name) or "") in PICTURES for name in names)


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
    if name in item.files:
        raise Taken(
            f"{item.files[name].path or 'a fact'} and what the layout says of {item.key} would both be field {name!r} "
            f"(--layout plain keeps the file)"
        )
    return Item(item.key, {**item.files, name: File("", len(text.encode()), 0, text)})
