"""EXIF and XMP turn an image as Pillow and browsers do; what of them cannot be parsed refuses nothing."""

import io
import struct
import warnings
import zlib

import pytest
from PIL import Image, ImageOps, PngImagePlugin

import streampipe as sp
from streampipe.decoding import decode_image, probe
from tests.data import encoded, natural, shard

PICTURE = natural(64, 48)
JPEG = encoded(PICTURE)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:Description tiff:Orientation="%d"/></x:xmpmeta>'


def app1(body):
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def block(order=">", kind=3, value=6, entries=1):
    packed = {1: struct.pack("Bxxx", value), 3: struct.pack(order + "HH", value, 0), 4: struct.pack(order + "I", value)}
    start = b"MM\0*" if order == ">" else b"II*\0"
    return start + struct.pack(order + "IHHHI", 8, entries, 0x112, kind, 1) + packed[kind] + b"\0" * 4


def jpeg(*segments):
    return JPEG[:2] + b"".join(map(app1, segments)) + JPEG[2:]


def exif(body):
    return b"Exif\0\0" + body


def xmp(value=6):
    return b"http://ns.adobe.com/xap/1.0/\0" + XMP % value


FILES = {
    **{f"{order}{kind}": jpeg(exif(block(order, kind))) for order in "<>" for kind in (1, 3, 4)},
    "a second segment goes on": jpeg(exif(block()), exif(bytes(99))),
    "a block over two segments": jpeg(exif(block()[:15]), exif(block()[15:])),
    "a second block": jpeg(exif(block(value=6)), exif(block(value=3))),
    "XMP alone": jpeg(xmp()),
    "EXIF before XMP": jpeg(exif(block(value=3)), xmp(6)),
    "EXIF without one, then XMP": jpeg(exif(block(value=6).replace(b"\x01\x12", b"\x01\x13")), xmp(8)),
    "EXIF behind the frame header": JPEG.replace(b"\xff\xda", app1(exif(block())) + b"\xff\xda", 1),
    "none that exists": jpeg(exif(block(value=0))),
    "one that does not exist": jpeg(exif(block(value=9))),
    "a directory that is cut off": jpeg(exif(block(entries=40))),
    "an offset far away": jpeg(exif(b"MM\0*" + b"\xff" * 4)),
}


@pytest.mark.parametrize("name", FILES)
def test_jpegs_are_turned_as_pillow_turns_them(name):
    data = FILES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about blocks that are cut off
        wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size
    header = probe(data)
    assert (header.width, header.height) == wanted
    assert decode_image(data).shape == (3, wanted[1], wanted[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("where", ["exif", "xmp"])
def test_all_formats_are_turned_by_both(kind, where, orientation):
    if where == "xmp":
        options = {"xmp": XMP % orientation}
        if kind == "JPEG":
            data = jpeg(xmp(orientation))
        elif kind == "PNG":
            texts = PngImagePlugin.PngInfo()
            texts.add_itxt("XML:com.adobe.xmp", (XMP % orientation).decode(), zip=bool(orientation % 2))
            data = encoded(PICTURE, kind, pnginfo=texts)
        else:
            data = encoded(PICTURE, kind, **options)
    else:
        tags = Image.Exif()
        tags[0x112] = orientation
        data = encoded(PICTURE, kind, exif=tags)
    with Image.open(io.BytesIO(data)) as opened:
        wanted = ImageOps.exif_transpose(opened).size
    assert (probe(data).width, probe(data).height) == wanted


def png_text(kind, body):
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    data = encoded(PICTURE, "PNG")
    return data[:33] + chunk + data[33:]


def profile(body):
    return b"\nexif\n    %d\n%s\n" % (len(body), body.hex().encode())


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png_text(b"tEXt", b"Raw profile type exif\0" + profile(exif(block()))), (48, 64)),
        (png_text(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile(exif(block())))), (48, 64)),
        (png_text(b"zTXt", b"Raw profile type exif\0\0garbage"), (64, 48)),
        (png_text(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1 << 25))), (64, 48)),
        (png_text(b"tEXt", b"Raw profile type exif\0\nexif\n    4\nzz zz\n"), (64, 48)),
    ],
)
def test_orientations_in_the_texts_of_a_png(data, size):
    assert (probe(data).width, probe(data).height) == size


GARBAGE = {
    "JPEG": encoded(PICTURE, "JPEG", exif=b"garbage!garbage!"),
    "JPEG of CMYK, cut off": encoded(PICTURE.convert("CMYK"), "JPEG", exif=b"Exif\0\0" + block(value=1, entries=40)),
    "PNG": encoded(PICTURE, "PNG", exif=b"garbage!garbage!"),
    "PNG text": png_text(b"tEXt", b"Raw profile type exif\0\nexif\n    4\nzz zz\n"),
    "WEBP": encoded(PICTURE, "WEBP", exif=b"garbage!garbage!"),
    "WEBP XMP": encoded(PICTURE, "WEBP", xmp=b"\xff\xfe<broken tiff:Orientation="),
    "a broken profile": encoded(PICTURE, "PNG", icc_profile=b"garbage!garbage!" * 20),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_metadata_that_cannot_be_parsed_refuses_nothing(name, tmp_path):
    data = GARBAGE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = Image.open(io.BytesIO(data)).convert("RGB")
    (made,) = sp.from_iterable([{"__key__": "a", "jpg": data}]).decode(16)
    assert made["original_size"] == (wanted.height, wanted.width)
    (made,) = sp.from_iterable([{"__key__": "a", "jpg": data}]).bucket([(16, 16)])
    assert made["__size__"] == (16, 16)
    (tmp_path / "0.tar").write_bytes(shard([("a", {"jpg": data})]))
    for missing in ("drop", "keep"):
        kept = list(sp.stream(tmp_path / "0.tar").where("width >= 32", missing=missing))
        assert [sample["__key__"] for sample in kept] == ["a"]


def test_an_avif_is_not_refused_for_its_exif():
    tags = Image.Exif()
    tags[0x112], tags[0x10E] = 6, "a description"
    data = bytearray(encoded(PICTURE, "AVIF", exif=tags))
    at = data.rindex(b"MM\0*") if b"MM\0*" in data else data.rindex(b"II*\0")
    data[at : at + 4] = b"junk"
    header = probe(bytes(data))
    assert (header.width, header.height) == (48, 64)  # the file's own boxes turn it
    assert decode_image(bytes(data)).shape == (3, 64, 48)
