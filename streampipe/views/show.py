"""``show``: a sample or a batch, for a notebook and for a terminal. A sample stays the dict that it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from PIL import Image

from streampipe.decoding import EncodedImage, is_image, is_image_field, probe
from streampipe.decoding.extensions import JSONS, TEXTS, extension_of
from streampipe.decoding.several import apart
from streampipe.errors import ConfigError, DecodeError
from streampipe.printable import printable
from streampipe.views.picture import thumbnail, webp

_EDGE, _PICTURES, _LONGEST = 192, 16, 300
_CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top;border-bottom:1px solid #8884;overflow-wrap:anywhere"


class View:
    """What ``show`` makes: ``repr`` for a terminal, and HTML for a notebook. It holds texts and small pictures only."""

    def __init__(self, title: str, rows: Sequence[tuple[str, str]], pictures: Sequence[tuple[str, str]] = ()) -> None:
        self._title = title
        self._rows = rows
        self._pictures = pictures

    def __repr__(self) -> str:
        width = max((len(name) for name, _ in self._rows), default=0)
        return "\n".join([self._title, *(f"  {name:<{width}}  {text}" for name, text in self._rows)])

    def _repr_html_(self) -> str:
        figures = (
            f'<figure style="margin:0 8px 8px 0;max-width:{_EDGE}px"><img src="data:image/webp;base64,{data}">'
            f'<figcaption style="font-size:11px;overflow-wrap:anywhere">{escape(text)}</figcaption></figure>'
            for text, data in self._pictures
        )
        pictures = f'<div style="display:flex;flex-wrap:wrap">{"".join(figures)}</div>' if self._pictures else ""
        return f"<div><b>{escape(self._title)}</b>{pictures}{table(self._rows)}</div>"


def show(thing: Mapping[str, Any]) -> View:
    """A sample or a batch to look at: put it last in a notebook's cell, or print it.

    Images, encoded or decoded, are shown small; other fields by what they are: size, shape, type, the beginning of a
    text. Tensors of floats are shown as images where they have 1 or 3 channels, [-1, 1] (or [0, 1], where nothing is
    below 0) as black to white.

    Raises:
        ConfigError: it is neither.

    >>> show({"__key__": "a", "txt": b"a cat", "cls": 3, "latent": torch.zeros(4, 8, 8)})
    sample 'a'
      txt     5 bytes: a cat
      cls     3
      latent  float32 4 x 8 x 8
    """
    if not isinstance(thing, Mapping):
        raise ConfigError(f"show takes a sample or a batch, which are dicts, not {type(thing).__name__}")
    shown = {name: value for name, value in thing.items() if not name.startswith("__")}
    keys, url = thing.get("__key__"), thing.get("__url__")
    rows = [(printable(name), _in_words(name, value)) for name, value in shown.items()]
    if not isinstance(keys, list):
        place = f"sample {keys!r}" + (f" of {url}" if isinstance(url, str) else "")
        pictures = [(name, data) for name, value in apart(shown).items() if (data := _picture(name, value))]
        return View(printable(place), rows, pictures)
    pictures = []
    for i, key in enumerate(keys[:_PICTURES]):
        of_one = {name: value[i] for name, value in shown.items() if _has(value, i)}
        data = next((data for name, value in of_one.items() if (data := _picture(name, value))), None)
        if data:
            pictures.append((printable(f"{key} {_text(of_one.get('caption'))}", 120), data))
    return View(f"batch of {len(keys)} samples", rows, pictures)


def chain_html(source: str, stages: Iterable[str], note: str) -> str:
    """A pipeline: its source, its stages, and a note. Nothing is read for it."""
    rows = [("source", source), *((f"{i}", each) for i, each in enumerate(stages, 1))]
    return f'<div><b>pipeline</b>{table(rows)}<div style="font-size:11px">{escape(note)}</div></div>'


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of two texts."""
    cells = (
        f'<tr><td style="{_CELL}">{escape(name)}</td><td style="{_CELL}"><code>{escape(text)}</code></td></tr>'
        for name, text in rows
    )
    return f'<table style="border-collapse:collapse">{"".join(cells)}</table>'


def _in_words(name: str, value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _of_bytes(name, bytes(value))
    if isinstance(value, (torch.Tensor, np.ndarray)):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} {' x '.join(map(str, value.shape)) or 'scalar'}"
    if isinstance(value, Image.Image):
        return f"PIL {value.mode} {value.height} x {value.width}"
    if isinstance(value, list):
        return f"list of {len(value)}" + (f", {_in_words(name, value[0])} and so on" if value else "")
    return printable(value if isinstance(value, str) else repr(value), _LONGEST)


def _of_bytes(name: str, data: bytes) -> str:
    size = f"{len(data):,} bytes"
    if is_image_field(name, data):
        try:
            header = probe(data)
        except DecodeError as error:
            return f"{size}: {printable(str(error))}"
        return f"{size}: {header.format} {header.height} x {header.width} (height x width)"
    if extension_of(name) in TEXTS | JSONS:
        return f"{size}: {printable(data[: 4 * _LONGEST].decode('utf-8', 'replace'), _LONGEST)}"
    return size


def _picture(name: str, value: Any) -> str | None:
    """A value as a small picture; None where it is no image."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return thumbnail(EncodedImage(value), _EDGE) if is_image_field(name, bytes(value)) else None
        except DecodeError:
            return None  # the row says so
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() == 3 and value.shape[0] in (1, 3):
        value = value.detach().float().cpu().nan_to_num()
        value = (value + 1) / 2 if value.numel() and value.min() < 0 else value
        value = (value.clamp(0, 1) * 255).to(torch.uint8)
    if not is_image(value) or (isinstance(value, torch.Tensor) and value.dtype != torch.uint8):
        return None
    pixels = value.cpu().permute(1, 2, 0).numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if pixels.size == 0 or pixels.dtype != np.uint8:
        return None
    image = Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    )
    image = image.convert("RGB")
    image.thumbnail((_EDGE, _EDGE))
    return webp(np.asarray(image))


def _has(value: Any, i: int) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dim() > 0 and len(value) > i
    return isinstance(value, (list, np.ndarray)) and len(value) > i


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
