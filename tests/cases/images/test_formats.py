"""Formats that must be asked for have all that the others have: sizes in indexes, buckets, crops, records, batches."""

import pytest
import torch

import streampipe as sp
from tests.data import encoded, natural, shard
from tests.kinds import kinds_of

NAMES = {"bmp": "bmp", "tiff": "tif", "jpeg2000": "jp2", "heic": "heic", "jxl": "jxl"}


def files(name, count=6):
    """Files of a format, of two shapes."""
    if name in ("heic", "jxl"):
        pytest.importorskip({"heic": "pillow_heif", "jxl": "pillow_jxl"}[name])
    kinds_of(name)  # Pillow can write it from now on
    kind = {"heic": "HEIF"}.get(name, name.upper())
    options = {"lossless": True} if name == "jxl" else {"quality": -1} if name == "heic" else {}
    shapes = [(90, 60), (60, 90)]
    return [encoded(natural(*shapes[i % 2], i), kind, **options) for i in range(count)]


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["own", "jpg"])
def test_they_are_queried_bucketed_cut_and_batched_like_all_others(tmp_path, name, field, tier):
    field = NAMES[name] if field == "own" else field
    data = files(name)
    (tmp_path / "0.tar").write_bytes(shard([(str(i), {field: each}) for i, each in enumerate(data)]))
    pipe = sp.stream(tmp_path / "0.tar", tier=tier, seed=1).where("width >= 60 and height >= 60")
    pipe = pipe.bucket([(32, 48), (48, 32)]).rename(image=field)
    framing = {"crop": "random", "flip": 0.5, "formats": (name,)}
    batches = list(pipe.decode(**framing).batch(3))
    assert sorted(tuple(batch["image"].shape) for batch in batches) == [(3, 3, 32, 48), (3, 3, 48, 32)]
    plain = [{"__key__": str(i), "image": encoded(natural(*[(90, 60), (60, 90)][i % 2], i), "PNG")} for i in range(6)]
    alone = {s["__key__"]: s for s in sp.from_iterable(plain, seed=1).bucket([(32, 48), (48, 32)]).decode(**framing)}
    for batch in batches:
        for key, image, ids in zip(batch["__key__"], batch["image"], batch["time_ids"], strict=True):
            assert torch.equal(ids, alone[key]["time_ids"])
            assert (image.float() - alone[key]["image"].float()).abs().mean() <= (12 if name == "heic" else 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("told", [True, False], ids=["by its name", "under another"])
def test_without_being_asked_for_they_are_an_error_that_says_how(name, told):
    (data,) = files(name, 1)
    with pytest.raises(sp.DecodeError, match=rf"decode\(formats=\('{name}',\)\) takes it"):
        list(sp.from_iterable([{"__key__": "a", NAMES[name] if told else "jpg": data}]).decode())


@pytest.mark.parametrize(("name", "module"), [("heic", "pillow_heif"), ("jxl", "pillow_jxl.JpegXLImagePlugin")])
def test_a_missing_package_is_named_with_its_command(name, module, monkeypatch):
    import sys

    (data,) = files(name, 1)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(sp.ConfigError, match=rf"pip install 'streampipe\[{name}\]'"):
        list(sp.from_iterable([{"__key__": "a", "jpg": data}]).decode(formats=(name,)))
    (sized,) = sp.from_iterable([{"__key__": "a", "jpg": data}]).bucket([(8, 8)])
    assert sized["__size__"] == (8, 8)  # its size is known without it


def test_a_heic_is_not_taken_for_an_avif_nor_an_avif_for_a_heic():
    from streampipe.decoding import BUILT_IN, recognise

    def file(main, *others):
        body = main + bytes(4) + b"".join(others)
        return (len(body) + 8).to_bytes(4, "big") + b"ftyp" + body

    assert recognise(file(b"mif1", b"heic", b"mif1"), BUILT_IN).name == "heic"
    assert recognise(file(b"mif1", b"mif1", b"avif", b"miaf"), BUILT_IN).name == "avif"
    assert recognise(file(b"heix"), BUILT_IN).name == "heic"
    assert recognise(file(b"mp42", b"isom"), BUILT_IN) is None
