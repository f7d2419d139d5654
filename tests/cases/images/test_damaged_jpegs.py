"""A JPEG of which a part is missing or wrong is an error; one whose pixels are right is none, whatever else is odd."""

import random

import pytest
import simplejpeg

import streampipe as sp
from streampipe.counters import counters
from streampipe.decoding import decode_image
from tests.data import encoded, natural, photo

KINDS = {
    "baseline": photo(1, 320, 240),
    "progressive": photo(1, 320, 240, progressive=True),
    "restarts": photo(1, 320, 240, restart_marker_blocks=4),
    "grey": encoded(natural(320, 240, 1).convert("L")),
    "CMYK": encoded(natural(320, 240, 1).convert("CMYK")),
    "CMYK progressive": encoded(natural(320, 240, 1).convert("CMYK"), progressive=True),
}
SINGLE = ("baseline", "grey", "CMYK")  # one scan, without restarts


def scan_of(data):
    at = data.find(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def cut(data, share, end=b"\xff\xd9"):
    """A part of the scan is lost."""
    start = scan_of(data)
    return data[: start + int((len(data) - start) * share)] + end


def outcome(data, **options):
    (sample,) = sp.from_iterable([{"__key__": "a", "jpg": data}]).decode(64, **options)
    return sample["jpg"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [b"\xff\xd9", b""])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_a_scan_that_lost_its_rest_is_an_error_or_accepted_and_counted(kind, end, share):
    data = cut(KINDS[kind], share, end)
    with pytest.raises(sp.DecodeError, match=r"sample 'a', field 'jpg'.*damaged.*decode\(damaged='accept'\)"):
        outcome(data)
    before = counters.get("decode", "damaged images accepted")
    assert outcome(data, damaged="accept").shape == (3, 64, 64)
    assert counters.get("decode", "damaged images accepted") == before + 1


@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes_that_the_codec_notices_are_an_error(kind):
    data, rng, warned, taken = KINDS[kind], random.Random(1), 0, 0
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(8):
            changed[rng.randrange(scan_of(data), len(data) - 2)] = rng.randrange(255)
        try:
            simplejpeg.decode_jpeg(bytes(changed), "CMYK" if "CMYK" in kind else "RGB")
            continue  # not even the codec can tell
        except ValueError:
            warned += 1
        try:
            outcome(bytes(changed))
            taken += 1
        except sp.DecodeError:
            pass
    assert warned >= 20
    assert taken <= 1  # one byte too many before a marker may be padding


def with_padding(data, padding):
    return data[:-2] + padding + data[-2:]


ODD = {
    "bytes behind the end": lambda data: data + b"trailing bytes" * 9,
    "another file behind the end": lambda data: data + data,
    "junk between segments": lambda data: data.replace(b"\xff\xdb", b"junk\xff\xdb", 1),
    "zeros before the end": lambda data: with_padding(data, bytes(100)),
    "fill bytes before the end": lambda data: with_padding(data, b"\xff" * 9),
    "no end marker": lambda data: data[:-2],
    "half an end marker": lambda data: data[:-1],
    "an unknown version of JFIF": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\7"),
    "a broken ICC profile": lambda data: data[:2] + b"\xff\xe2\0\x12ICC_PROFILE\0\7\2" + data[2:],
    "an unknown Adobe transform": lambda data: data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1" + data[2:],
    "a long comment": lambda data: data[:2] + b"\xff\xfe\x80\0" + bytes(0x7FFE) + data[2:],
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_whose_pixels_are_right_is_no_damaged_one(kind, odd):
    whole = KINDS[kind]
    if "JFIF" in odd and b"JFIF" not in whole:
        pytest.skip("it has no such segment")
    before = counters.get("decode", "damaged images accepted")
    assert (outcome(ODD[odd](whole)) == outcome(whole)).all()
    assert counters.get("decode", "damaged images accepted") == before


@pytest.mark.parametrize("kind", SINGLE)
def test_what_is_left_of_a_scan_is_no_padding(kind):
    """Where bytes were lost in the middle, the codec is done before the scan is, and complains as about padding."""
    data, start = KINDS[kind], scan_of(KINDS[kind])
    for at in (0.3, 0.6):
        middle = start + int((len(data) - start) * at)
        with pytest.raises(sp.DecodeError):
            outcome(data[:middle] + data[middle + 40 : -2] + data[middle : middle + 40] * 3 + data[-2:])


def test_the_smallest_scale_finds_damage_too():
    data = cut(photo(1, 1600, 1200), 0.5)
    for size in (16, 64, 512, None):
        with pytest.raises(sp.DecodeError):
            list(sp.from_iterable([{"__key__": "a", "jpg": data}]).decode(size))


def test_other_formats_that_are_damaged_are_errors_whatever_is_accepted():
    for kind in ("PNG", "WEBP", "GIF"):
        data = encoded(natural(99, 70), kind)
        with pytest.raises(sp.DecodeError):
            decode_image(data[: len(data) // 2], damaged="accept")
    with pytest.raises(sp.ConfigError, match="damaged is one of .error., .accept."):
        list(sp.from_iterable([{"__key__": "a", "jpg": photo()}]).decode(damaged="skip"))
