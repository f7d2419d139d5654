"""Whether a codec is right: what every codec promises, tried on files of its format, whole and broken."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable, Mapping

import numpy as np

from streampipe.decoding.codec import HEAD, Codec, Data, ImageHeader, Wanted
from streampipe.decoding.codecs import DEFAULT
from streampipe.decoding.image import EncodedImage
from streampipe.errors import DecodeError
from streampipe.threads import ordered

_CUTS = 24
_CHANGES = 60


def check_codec(codec: Codec, files: Mapping[str, bytes] | Iterable[bytes], seed: int = 0) -> None:
    """Check that a codec keeps the protocol (``streampipe.decoding.Codec``), on files of its format.

    Give it small ones of every kind that there is: grey, colours, transparent, 16 bits, turned, animated. Checked are:
    names; that it recognises them and no other format's; that the header's size is that of the pixels, at every scale;
    that memoryviews, threads, pickles and copies give the same; that what is cut off, changed or no image at all is
    ``DecodeError`` and never another exception, and never pixels of another size.

    Raises:
        AssertionError: it says of which file, and what.

    >>> import io
    >>> from PIL import Image
    >>> from streampipe.decoding.codecs import codecs_of
    >>> (*_, bmp) = codecs_of(("bmp",))
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (9, 5), (1, 2, 3)).save(file, "BMP")
    >>> check_codec(bmp, {"plain": file.getvalue()})
    """
    named = dict(files) if isinstance(files, Mapping) else {f"file {i}": data for i, data in enumerate(files)}
    _need(named, "give it one file of its format at least")
    _check_names(codec)
    for name, data in named.items():
        _check_whole(codec, name, data)
        _check_broken(codec, name, data, random.Random(seed))
    _check_threads(codec, list(named.values()))


def _need(true: object, what: str) -> None:
    if not true:
        raise AssertionError(what)


def _check_names(codec: Codec) -> None:
    _need(isinstance(codec, Codec), f"{codec!r} lacks a method of the protocol")
    _need(codec.name and codec.name == codec.name.lower(), f"its name must be lower case, unlike {codec.name!r}")
    for each in codec.extensions:
        _need(each == each.lower() and "." not in each, f"extensions are lower case and without a dot, unlike {each!r}")
    _need(pickle.loads(pickle.dumps(codec)).name == codec.name, "it must survive pickling")
    for odd in (b"", b"\0", bytes(HEAD), b"<html>", b"\xff" * HEAD):
        _need(not codec.recognises(odd), f"it takes {odd[:8]!r} for an image of its format")
        try:
            codec.header(odd)
        except DecodeError:
            continue
        raise AssertionError(f"header() must raise DecodeError for {odd[:8]!r}")


def _check_whole(codec: Codec, name: str, data: bytes) -> None:
    head = data[:HEAD]
    _need(codec.recognises(head), f"{name}: it does not recognise it")
    others = [each.name for each in DEFAULT if each.name != codec.name and each.recognises(head)]
    _need(not others, f"{name}: it is also taken for {', '.join(others)}")
    header = codec.header(data)
    _check_header(name, header)
    for eighths in header.scales:
        _need(codec.memory(header, eighths) >= np.prod(header.scaled(eighths)), f"{name}: memory() is too little")
        for labels in (False, True):
            wanted = Wanted(eighths=eighths, labels=labels)
            values, alpha = _decoded(codec, name, data, header, wanted)
            again, _ = _decoded(codec, name, memoryview(data), codec.header(memoryview(data)), wanted)
            _need(np.array_equal(values, again), f"{name}: a memoryview gives other pixels than bytes")
            if alpha is not None:
                _need(alpha.dtype == np.uint8 and alpha.shape == (*header.scaled(eighths), 1), f"{name}: alpha")


def _check_header(name: str, header: ImageHeader) -> None:
    _need(min(header.stored) >= 1, f"{name}: its size is {header.stored}")
    _need(header.orientation in range(1, 9), f"{name}: its orientation is {header.orientation}")
    _need(header.scales[-1] == 8, f"{name}: full scale, 8 eighths, must be the last of its scales {header.scales}")
    _need(list(header.scales) == sorted(set(header.scales)), f"{name}: its scales {header.scales} must ascend")


def _decoded(
    codec: Codec, name: str, data: Data, header: ImageHeader, wanted: Wanted
) -> tuple[np.ndarray, np.ndarray | None]:
    pixels = codec.decode(data, header, wanted)
    size, found = header.scaled(wanted.eighths), pixels.values
    channels = (1, 3) if wanted.labels else (3,)
    kinds = (np.uint8, np.int32) if wanted.labels else (np.uint8,)
    _need(found.ndim == 3 and found.shape[:2] == size, f"{name}: {found.shape} pixels, the header says {size}")
    _need(found.shape[2] in channels, f"{name}: {found.shape[2]} channels, not one of {channels}")
    _need(found.dtype in kinds, f"{name}: pixels of {found.dtype}")
    return found.copy(), None if pixels.alpha is None else pixels.alpha.copy()


def _check_broken(codec: Codec, name: str, data: bytes, rng: random.Random) -> None:
    broken = [data[: len(data) * i // _CUTS] for i in range(_CUTS)]
    for _ in range(_CHANGES):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        broken.append(bytes(changed))
    for each in broken:
        if not codec.recognises(each[:HEAD]):
            continue
        try:
            image = EncodedImage(each, codecs=(codec,), max_pixels=1 << 20)
            pixels, _ = image.decode(image.cut(None))
        except DecodeError:
            continue
        except Exception as error:
            raise AssertionError(f"{name}, broken: {type(error).__name__} instead of DecodeError: {error}") from error
        _need(tuple(pixels.shape[1:]) == image.size, f"{name}, broken: its pixels are not of the header's size")


def _check_threads(codec: Codec, files: list[bytes]) -> None:
    def pixels(data: bytes) -> bytes:
        return codec.decode(data, codec.header(data), Wanted()).values.tobytes()

    files = (files * 8)[:24]
    _need(list(ordered(pixels, files, threads=4)) == [pixels(data) for data in files], "threads give other pixels")
