"""What images take while they are decoded is bounded in bytes for a whole process: who would take more waits."""

import threading
import time

import pytest
from PIL import Image

import streampipe as sp
from streampipe.decoding import EncodedImage, decode_image
from streampipe.decoding.budget import Budget, budget
from streampipe.threads import ordered
from tests.data import encoded, natural, photo


def test_no_more_is_held_than_the_limit_and_everybody_gets_a_turn():
    own, most, alone = Budget(), [], []

    def work(size):
        with own.take(size, limit=100):
            most.append(own.used)
            if size > 100:
                alone.append(own.used)
            time.sleep(0.001)

    list(ordered(work, [30, 60, 250, 10, 90, 100, 50, 300] * 6, threads=8))
    assert own.used == 0
    assert len(most) == 48
    assert max(each for each in most if each not in (250, 300)) <= 100
    assert set(alone) == {250, 300}  # what is more than there is at all is alone


def test_an_error_gives_back_what_was_held():
    own = Budget()
    with pytest.raises(KeyError), own.take(10, limit=10):
        raise KeyError
    assert own.used == 0
    for data in (photo()[:900], encoded(natural(60, 40), "PNG")[:300]):
        with pytest.raises(sp.DecodeError):
            decode_image(data)
    assert budget.used == 0


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "JPEG"])
def test_images_are_decoded_one_by_one_where_there_is_room_for_one(kind, monkeypatch):
    data = encoded(natural(120, 90), kind)
    image = EncodedImage(data)
    at_once, most = [], []
    lock = threading.Lock()
    plain = EncodedImage._pixels

    def watched(self, *args):
        with lock:
            at_once.append(1)
            most.append(len(at_once))
        time.sleep(0.002)
        try:
            return plain(self, *args)
        finally:
            with lock:
                at_once.pop()

    monkeypatch.setattr(EncodedImage, "_pixels", watched)
    need = image._codec.memory(image.header, image.header.scales[0])
    samples = [{"__key__": str(i), "image": data} for i in range(12)]
    assert len(list(sp.from_iterable(samples).decode(8, threads=6, memory=need))) == 12
    assert max(most) == 1
    most.clear()
    assert len(list(sp.from_iterable(samples).decode(8, threads=6, memory=8 * need))) == 12
    assert max(most) > 1


def test_a_few_bytes_that_are_a_large_image_say_so_before_a_byte_is_allocated():
    data = encoded(Image.new("RGB", (4000, 4000)), "WEBP", lossless=True, method=0)
    assert len(data) < 500
    image = EncodedImage(data)
    assert image._codec.memory(image.header, 8) > 300 << 20


def test_a_limit_above_pillows_own_is_obeyed_and_its_globals_are_not_touched(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for kind in ("PNG", "JPEG"):
        assert decode_image(encoded(natural(60, 50), kind), fast=False).shape == (3, 50, 60)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(sp.DecodeError, match=r"50 x 60 pixels \(height x width; at most 2000"):
        decode_image(encoded(natural(60, 50), "PNG"), max_pixels=2000)
