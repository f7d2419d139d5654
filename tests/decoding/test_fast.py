"""imagecodecs gives Pillow's pixels, or the image is left to Pillow: damaged files are refused as without it."""

import random

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe.decoding import decode_image, fast
from tests.data import encoded, natural

pytest.importorskip("imagecodecs")

FILES = {
    "png": encoded(natural(61, 43), "PNG"),
    "png, compressed little": encoded(natural(61, 43), "PNG", compress_level=1),
    "webp": encoded(natural(61, 43), "WEBP", quality=80),
    "webp, lossless": encoded(natural(61, 43), "WEBP", lossless=True),
    "webp, transparent": encoded(natural(61, 43).convert("RGBA"), "WEBP"),
    "png, grey": encoded(natural(61, 43).convert("L"), "PNG"),
    "png, transparent colour": encoded(natural(61, 43), "PNG", transparency=(1, 2, 3)),
    "png, frames": encoded(natural(61, 43), "PNG", save_all=True, append_images=[natural(61, 43, 1)]),
    "webp, frames": encoded(natural(61, 43), "WEBP", save_all=True, append_images=[natural(61, 43, 1)]),
}


def result(data):
    try:
        return decode_image(data, size=(40, 40))
    except sp.DecodeError as error:
        return str(error)


def both(data, monkeypatch):
    with_it = result(data)
    with monkeypatch.context() as without:
        for module in ("png", "web"):
            without.setattr(f"streampipe.decoding.{module}.decode_fast", lambda *given: None)
        return with_it, result(data)


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_pillow(name, monkeypatch):
    one, other = both(FILES[name], monkeypatch)
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["png", "webp"])
def test_it_is_used_where_the_file_is_plain(name, monkeypatch):
    seen = []
    real = fast._reader(name)
    monkeypatch.setattr(fast, "_reader", lambda asked: lambda data: seen.append(asked) or real(data))
    assert isinstance(result(memoryview(FILES[name])), torch.Tensor)
    assert seen == [name]


@pytest.mark.parametrize("name", ["png", "webp"])
def test_damaged_files_are_refused_as_pillow_refuses_them(name, monkeypatch):
    data, drawn = FILES[name], random.Random(0)
    damaged = [data[:end] for end in range(40, len(data), max(1, len(data) // 25))]
    for _ in range(60):
        at = drawn.randrange(33, len(data))
        damaged.append(data[:at] + bytes([data[at] ^ 1 << drawn.randrange(8)]) + data[at + 1 :])
    for each in damaged:
        one, other = both(each, monkeypatch)
        if isinstance(other, str):
            assert one == other
        else:
            assert isinstance(one, torch.Tensor)
            np.testing.assert_array_equal(one, other)
