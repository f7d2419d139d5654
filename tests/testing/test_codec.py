"""Every built-in codec keeps the protocol; and the check finds one that does not."""

import io

import numpy as np
import pytest
from PIL import Image

from streampipe.decoding import DEFAULT, Pixels, codecs_of
from streampipe.errors import DecodeError
from streampipe.testing import check_codec
from tests.data import encoded, natural
from tests.kinds import kinds_of


@pytest.mark.parametrize("name", [each.name for each in DEFAULT] + ["bmp", "tiff", "jpeg2000", "heic", "jxl"])
def test_built_in_codecs_keep_the_protocol(name):
    if name in ("heic", "jxl"):
        pytest.importorskip({"heic": "pillow_heif", "jxl": "pillow_jxl"}[name])
    codec = next(each for each in codecs_of((name,)) if each.name == name)
    check_codec(codec, kinds_of(name))


class Good:
    """A format of tests: a magic word, height and width of one byte each, then the pixels."""

    name = "toy"
    extensions = frozenset(("toy",))

    def recognises(self, head):
        return head[:4] == b"TOY1"

    def header(self, data):
        from streampipe.decoding import ImageHeader

        if len(data) < 6 or bytes(data[:4]) != b"TOY1" or not (data[4] and data[5]):
            raise DecodeError("no toy")
        return ImageHeader("TOY", data[4], data[5])

    def memory(self, header, eighths):
        return 3 * header.stored_height * header.stored_width

    def decode(self, data, header, wanted):
        if len(data) != 6 + self.memory(header, 8):
            raise DecodeError("a toy of the wrong length")
        return Pixels(np.frombuffer(bytes(data[6:]), np.uint8).reshape(*header.stored, 3).copy())


class Raises(Good):
    def decode(self, data, header, wanted):
        return Pixels(np.frombuffer(bytes(data[6:]), np.uint8).reshape(*header.stored, 3).copy())


class Greedy(Good):
    def recognises(self, head):
        return True


class Turned(Good):
    def decode(self, data, header, wanted):
        return Pixels(super().decode(data, header, wanted).values.transpose(1, 0, 2))


TOY = b"TOY1" + bytes((5, 7)) + bytes(range(105))


def test_a_codec_of_somebody_elses_is_checked_and_used():
    import streampipe as sp

    check_codec(Good(), [TOY])
    (made,) = sp.from_iterable([{"__key__": "a", "toy": TOY}]).decode((10, 14), formats=(Good(),))
    assert made["toy"].shape == (3, 10, 14)
    assert made["original_size"] == (5, 7)


@pytest.mark.parametrize(
    ("codec", "words"), [(Raises, "ValueError instead"), (Greedy, "takes"), (Turned, "the header says")]
)
def test_what_a_codec_gets_wrong_is_named(codec, words):
    with pytest.raises(AssertionError, match=words):
        check_codec(codec(), [TOY])


def test_entry_points_bring_codecs(monkeypatch):
    from importlib.metadata import EntryPoint

    from streampipe.decoding import codecs

    point = EntryPoint("mine", "tests.testing.test_codec:Good", codecs.GROUP)
    monkeypatch.setattr(codecs, "entry_points", lambda group: [point] if group == codecs.GROUP else [])
    codecs._named.cache_clear()
    try:
        assert codecs_of(("mine",))[-1].name == "toy"
    finally:
        codecs._named.cache_clear()


def test_a_file_of_an_opt_in_format_names_its_option():
    import streampipe as sp

    data = encoded(natural(20, 10), "TIFF")
    with pytest.raises(
        sp.DecodeError, match=r"no image of the formats JPEG.*but of TIFF: decode\(formats=\('tiff',\)\)"
    ):
        list(sp.from_iterable([{"__key__": "a", "jpg": data}]).decode())
    for formats, words in ((("tga",), "no image format 'tga'"), ("tiff", "a tuple"), ((3,), "3 is no codec")):
        with pytest.raises(sp.ConfigError, match=words):
            list(sp.from_iterable([{"__key__": "a", "jpg": data}]).decode(formats=formats))
    assert Image.open(io.BytesIO(data)).size == (20, 10)
