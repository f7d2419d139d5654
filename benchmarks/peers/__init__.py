"""How each library is asked for the same work, with the settings that its documentation gives.

A module has ``photos(data, decode, way)``, which yields batches of 512 x 512 images, or ``samples(data, way)``, which
reads all samples as bytes and returns how many there were, or both; ``PHOTOS`` and ``SAMPLES`` are the ways in which
each can be done. A way is "Pillow" or "our decode", whose function is given as ``decode``, or what the library does
itself. Libraries are imported inside functions: only their own environments have them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def once(place: Path, make: Callable[[Path], object]) -> Path:
    """A folder that is made unless it is there, whole."""
    if not place.exists():
        part = place.with_name(place.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        make(part)
        part.rename(place)
    return place


def rows_of(urls: list[str]) -> Iterator[dict[str, bytes]]:
    """The samples of the shards, as other formats store them: the key and the fields, bytes."""
    import webdataset as wds

    for sample in wds.WebDataset(urls, shardshuffle=False, empty_check=False):
        yield {"key": sample["__key__"].encode()} | {name: sample[name] for name in sorted(sample) if name[0] != "_"}
