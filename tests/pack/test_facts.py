"""A folder is asked what its shards would be asked, and answers the same."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import streampipe as sp
from streampipe.decoding import conditioning
from tests.data import photo
from tests.pack.test_pack import contents, quiet


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate("abcd"):
        (folder / f"{name}.jpg").write_bytes(photo(number, 64, 48))
        (folder / f"{name}.mask.png").write_bytes(photo(number, 16 + 8 * number, 16))
        (folder / f"{name}.ref0.jpg").write_bytes(photo(number, 20, 40 if number < 2 else 10))
    (folder / "d.mask.png").write_bytes(b"no image")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(np.zeros((10, 50, 3), np.uint8)).save(file, "JPEG", exif=exif)
    (folder / "c.ref0.jpg").write_bytes(file.getvalue())
    return folder


@pytest.mark.parametrize(
    "condition",
    [
        "width == 64",
        "mask.image.width >= 24",
        "mask.image.width == 0",
        "mask.image.height > 0 and ref0.image.height > 20",
        "ref0.image.width == 10",
        "control.image.width > 1",
    ],
)
def test_conditions_about_other_images_mean_the_same_for_a_folder_and_its_shards(tmp_path, folder, condition):
    quiet(folder, tmp_path / "all")
    quiet(folder, tmp_path / "asked before", where="height == 48")
    for given in (tmp_path / "all", str(folder)):
        stream = sp.stream(given).where(condition)
        try:
            wanted = {sample["__key__"] for sample in stream}
        except sp.StageError:
            wanted = set()
        if wanted:
            quiet(folder, tmp_path / f"of {len(str(given))}", where=condition)
            assert set(contents(tmp_path / f"of {len(str(given))}")) == wanted
        else:
            with pytest.raises(sp.PackError, match="leave none of its 4 samples"):
                quiet(folder, tmp_path / f"of {len(str(given))}", where=condition)


def test_what_conditions_cost_can_be_asked_of_a_folder(tmp_path, folder):
    for number, name in enumerate("ab"):
        value = sp.Conditioning(["dog", "cat"][: number + 1], t5=torch.ones(number + 1, 6, 8))
        data = conditioning.encode(value, eight=False)
        (folder / f"{name}.text.safetensors").write_bytes(data)
    quiet(folder, tmp_path / "all")
    wanted = {sample["__key__"] for sample in sp.stream(tmp_path / "all").where("text.captions == 2")}
    quiet(folder, tmp_path / "out", where="text.captions == 2")
    assert set(contents(tmp_path / "out")) == wanted == {"b"}
