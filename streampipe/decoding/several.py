"""Several images of one sample in one field: references of an edit, layers, views."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

_NUMBERED = re.compile(r"(.+)\.(\d+)\.image", re.DOTALL)
_RECORDED = ("original_size", "crop_top_left", "target_size")


class Images(list[Any]):
    """Several images of one sample, in order: their bytes, and behind ``decode`` their pixels.

    In a batch: a tensor for each, of all samples, where their sizes agree (``bucket`` sees to that); else
    ``batch(pad={"ref": 0})`` fills them up.
    """


@lru_cache(1024)
def place_of(name: str) -> str:
    """An image's name without its format: what its size, and what was done to it, go by.

    >>> place_of("control.png"), place_of("ref.0.jpg"), place_of("ref.1"), place_of("jpg")
    ('control', 'ref.0', 'ref.1', 'jpg')
    """
    first, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return f"{first}.{number}" if number.isdecimal() else first


def numbered(names: Iterable[str], stem: str) -> list[str]:
    """The fields of one name and several numbers, in the order of these: ``ref.0.jpg``, ``ref.1.png``.

    Those without a number (``ref.jpg``) come first.

    >>> numbered(["ref.10.jpg", "ref.2.png", "reference.0.jpg", "ref.jpg", "ref.a.jpg"], "ref")
    ['ref.jpg', 'ref.2.png', 'ref.10.jpg']
    """
    found = []
    for name in names:
        place = place_of(name)
        if place == stem and name.count(".") <= 1:
            found.append((-1, name))
        elif place != stem and place.rpartition(".")[0] == stem:
            found.append((int(place.rpartition(".")[2]), name))
    return [name for _, name in sorted(found)]


def list_of(name: str) -> str | None:
    """The field that an image stands in together with others, by the name that it has while it is decoded."""
    found = _NUMBERED.fullmatch(name)
    return found and found[1]


def apart(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sample with each of several images as a field of its own, ``ref.0.image``, in their place."""
    if Images not in map(type, sample.values()):
        return sample
    found: dict[str, Any] = {}
    for name, value in sample.items():
        found |= {f"{name}.{i}.image": each for i, each in enumerate(value)} if type(value) is Images else {name: value}
    return found


def together(sample: dict[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite: fields as in ``whole``, and what was noted of each of several images as a list."""
    if Images not in map(type, whole.values()):
        return sample
    lists = {name: len(value) for name, value in whole.items() if type(value) is Images}
    rest, found = dict(sample), dict[str, Any]()
    for name in whole:
        if name in lists:
            found[name] = Images(rest.pop(f"{name}.{i}.image") for i in range(lists[name]))
        elif name in rest:
            found[name] = rest.pop(name)
    for name, number in lists.items():
        for what in _RECORDED:
            noted = [rest.pop(f"{name}.{i}.{what}", None) for i in range(number)]
            if any(each is not None for each in noted):
                rest[f"{name}.{what}"] = noted
    return found | rest
