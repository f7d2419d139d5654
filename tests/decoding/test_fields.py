import gzip
import io
import json
import pickle
import zipfile

import msgpack
import numpy as np
import pytest
import webdataset as wds
from PIL import Image
from webdataset import tenbin

import streampipe as sp
from streampipe.decoding import decode_field
from tests.data import photo


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code from the data was run",))


@pytest.mark.parametrize(
    ("name", "data", "value"),
    [
        ("txt", "é".encode(), "é"),
        ("txt", b"\xef\xbb\xbfbom", "bom"),
        ("en.TXT", b"x", "x"),
        ("json", b'{"a": [1, NaN]}', None),
        ("cls", b" 12\n", 12),
        ("mp", msgpack.packb({"a": 1}), {"a": 1}),
        ("txt.gz", gzip.compress(b"zipped", mtime=0), "zipped"),
        ("json.gz", gzip.compress(b"[1]", mtime=0), [1]),
        ("gz", gzip.compress(b"raw", mtime=0), b"raw"),
        ("unknown", b"\x00\x01", b"\x00\x01"),
    ],
)
def test_fields_by_name(name, data, value):
    found = decode_field(name, data)
    assert found == value or (value is None and np.isnan(found["a"][1]))


def test_the_same_values_as_webdataset():
    sample = {
        "txt": b"caption",
        "json": json.dumps({"a": 1}).encode(),
        "cls": b"3",
        "mp": msgpack.packb([1, "x"]),
        "npy": npy(np.arange(6).reshape(2, 3)),
    }
    theirs = next(wds.filters.decode()([{"__key__": "k", **sample}]))
    ours = {name: decode_field(name, data) for name, data in sample.items()}
    assert ours.pop("npy").tolist() == theirs.pop("npy").tolist()
    assert ours == {name: value for name, value in theirs.items() if name != "__key__"}
    arrays = [np.arange(4.0), np.ones((2, 2), np.float32)]
    assert [a.tolist() for a in decode_field("ten", tenbin.encode_buffer(arrays))] == [a.tolist() for a in arrays]


def test_cbor():
    import cbor2

    assert decode_field("cbor", cbor2.dumps({"a": [1]})) == {"a": [1]}


@pytest.mark.parametrize("name", ["jpg", "png", "seg.png", "image", "bin2"])
def test_images_by_content(name):
    assert decode_field(name, photo(), size=(8, 8)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("kind", "name"), [("TIFF", "tif"), ("BMP", "bmp"), ("JPEG2000", "jp2"), ("TIFF", "mask.tiff")]
)
def test_an_image_in_a_format_that_nobody_asked_for_is_told_how_to_ask(kind, name):
    """It would go into a batch as bytes."""
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 10, 10)).save(file, kind)
    codec = kind.lower()
    with pytest.raises(sp.DecodeError, match=rf"formats=\('{codec}',\).*drop\('{name}'\)"):
        decode_field(name, file.getvalue())
    assert decode_field(name, file.getvalue(), formats=(codec,)).shape[1:] == (7, 9)
    assert decode_field(name, b"something else") == b"something else"


@pytest.mark.parametrize("name", ["pkl", "pickle", "pyd", "pth", "pt", "x.pth", "pkl.gz", "PYD"])
def test_what_could_run_code_is_refused_with_advice(name):
    data = pickle.dumps(Bomb())
    with pytest.raises(sp.UnsafeFormat, match="decoders="):
        decode_field(name, gzip.compress(data, mtime=0) if name.endswith("gz") else data)


def test_object_arrays_are_refused():
    for data in (npy(np.array([Bomb()], object), allow_pickle=True),):
        with pytest.raises(sp.UnsafeFormat):
            decode_field("npy", data)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("a.npy", data)
        with pytest.raises(sp.UnsafeFormat):
            decode_field("npz", archive.getvalue())


def test_arrays_must_be_as_long_as_they_say():
    good = npy(np.arange(100))
    assert decode_field("npy", good).tolist() == list(range(100))
    for data in (good[:-8], good + b"x" * 8, good.replace(b"(100,)", b"(9**9)"), good.replace(b"(100,)", b"(999,)")):
        with pytest.raises(sp.DecodeError):
            decode_field("npy", data)
    file = io.BytesIO()
    np.savez(file, a=np.ones(3), b=np.zeros((2, 2)))
    assert {k: v.shape for k, v in decode_field("npz", file.getvalue()).items()} == {"a": (3,), "b": (2, 2)}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("txt", b"\xff\xfea"),
        ("json", b"{"),
        ("cls", b"cat"),
        ("npy", b"x"),
        ("npz", b"PK"),
        ("mp", b"\xc1"),
        ("txt.gz", b"no"),
    ],
)
def test_damage_is_a_decode_error(name, data):
    with pytest.raises(sp.DecodeError):
        decode_field(name, data)


def test_gzip_fields_are_bounded_and_whole(monkeypatch):
    monkeypatch.setattr("streampipe.decoding.inflate.MAX_INFLATED", 1000)
    with pytest.raises(sp.DecodeError, match="more than 1000"):
        decode_field("txt.gz", gzip.compress(bytes(2000)))
    with pytest.raises(sp.DecodeError, match="too early"):
        decode_field("txt.gz", gzip.compress(b"hello", mtime=0)[:-3])


def test_a_decoder_of_the_users_comes_first():
    decoders = {"pyd": len, "seg.png": bytes.upper}
    assert decode_field("pyd", b"abc", decoders=decoders) == 3
    assert decode_field("x.pyd", b"abc", decoders=decoders) == 3
    assert decode_field("seg.png", b"abc", decoders=decoders) == b"ABC"


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(sp.ConfigError, match=r"pip install 'streampipe\[msgpack\]'"):
        decode_field("mp", b"\x01")
