"""The fast JPEG codec is only given files that it scales as asked: others made it write past its buffer."""

import struct

import pytest

import streampipe as sp
from streampipe.decoding import jpeg, probe
from tests import images
from tests.data import encoded, natural, photo
from tests.warm import PIPE, Program


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def lossless(width, height):
    """A lossless JPEG (SOF3) of grey pixels: every difference is 0, one bit each."""
    table = segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")
    frame = segment(0xC3, struct.pack(">BHHB", 8, height, width, 3) + b"R\x11\0G\x11\0B\x11\0")
    scan = segment(0xDA, b"\x03R\x00G\x00B\x00\x01\x00\x00")
    return b"\xff\xd8" + table + frame + scan + bytes(-(-width * height * 3 // 8)) + b"\xff\xd9"


def fast_header(width, height):
    """A frame header that the fast path would be right for."""
    return segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + b"\1\x22\0\2\x11\0\3\x11\0")


def hidden(data):
    """Files that show the frame header of ``data`` to libjpeg, and another one to careless readers."""
    rest = data[2:]
    yield b"\xff\xd8" + b"\xff\x00" + struct.pack(">H", 60) + rest  # an escaped byte is no segment
    yield b"\xff\xd8" + segment(0xE5, fast_header(8, 8)) + rest  # a frame header inside another segment
    yield b"\xff\xd8" + b"junk" + rest
    yield b"\xff\xd8" + b"\xff\xff\xff" + rest[1:]  # fill bytes
    yield b"\xff\xd8" + segment(0x02, fast_header(64, 64)) + rest  # a reserved marker: libjpeg stops
    yield b"\xff\xd8" + fast_header(1600, 1600) + rest  # two frame headers


def decode_all(files):
    for data in files:
        for size in (8, 64, (1, 900)):
            for damaged in ("error", "accept"):
                try:
                    list(sp.from_iterable([{"__key__": "a", "jpg": data}]).decode(size, damaged=damaged))
                except sp.DecodeError:
                    pass
    print("alive")


@pytest.mark.usefixtures("warm")
def test_no_file_makes_the_codec_write_past_its_buffer():
    whole = lossless(1600, 1600)
    files = [whole, *hidden(whole), whole[:5000], encoded(natural(90, 70).convert("CMYK"), progressive=True)]
    program = Program(decode_all, files, stdout=PIPE, stderr=PIPE)
    said, errors = program.communicate()
    assert (program.returncode, said.strip()) == (0, "alive"), errors[-2000:]


def test_only_scalable_kinds_are_scaled(monkeypatch):
    monkeypatch.setattr(jpeg, "_decode", lambda *_, **__: pytest.fail("the fast codec was given it"))
    (made,) = sp.from_iterable([{"__key__": "a", "jpg": lossless(160, 120)}]).decode(16)
    assert made["jpg"].unique().tolist() == [128]
    for data in hidden(lossless(160, 120)):
        try:
            assert probe(data).scales == (8,)
        except sp.DecodeError:
            continue
    assert probe(photo()).scales == probe(photo(progressive=True)).scales == (1, 2, 4, 8)


@pytest.mark.parametrize("marker", sorted({*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}))
@pytest.mark.parametrize("precision", [8, 12])
def test_no_other_coding_is_fast(marker, precision):
    data = bytearray(photo())
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, precision
    assert probe(bytes(data)).scales == (8,)


def test_what_the_codec_gave_is_compared_with_what_was_asked_for(monkeypatch):
    import numpy as np

    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", lambda *_, **__: np.zeros((3, 3, 3), np.uint8))
    header = probe(photo())
    with pytest.raises(ValueError, match="the codec gave"):
        jpeg._decode(photo(), header, jpeg.Wanted(eighths=2))


@pytest.mark.usefixtures("warm")
def test_broken_files_of_every_format_are_refused_or_decoded_to_the_size_that_was_asked_for():
    program = Program(images.main, 7, 25, stdout=PIPE, stderr=PIPE)
    said, errors = program.communicate()
    assert (program.returncode, said.strip()) == (0, "alive"), errors[-2000:]


def test_our_reader_of_headers_and_the_codecs_agree_on_what_it_may_have():
    import random

    import simplejpeg

    from tests.images import broken

    rng, seen, agreed = random.Random(3), 0, 0
    whole = [photo(0, 40, 30), photo(1, 40, 30, progressive=True), encoded(natural(40, 30).convert("L"))]
    whole += [data for each in whole for data in hidden(each)]
    for _ in range(4000):
        data = broken(rng.choice(whole), rng)
        try:
            header = probe(data)
        except sp.DecodeError:
            continue
        if getattr(header, "scales", (8,)) == (8,):
            continue
        seen += 1
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
        except (ValueError, KeyError):  # KeyError: a subsampling that it has no name for
            continue
        agreed += 1
        assert (height, width) == header.stored
    assert seen > 1000
    assert agreed > 500
