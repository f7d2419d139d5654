"""Whatever a folder holds and however it is laid out: each of its files is packed, or it is told that it is not."""

import json
import random

import pytest

from streampipe.errors import ConfigError
from streampipe.folders.layouts import LAYOUTS, layout_of
from streampipe.folders.listing import scan

FOLDERS = ("", "images/", "images/train/", "masks/", "references/", "references/train/", "references/a/", "10_dog/",
           "img/10_dog/", "reg/1_x/", "cat/", "00000/", "captions/", "control/", "deep/p/q/r/", "é/",
           "cat.v2/")  # fmt: skip
NAMES = ("a", "b", "0001", "2", "a.v2", "a.mask", "a-masklabel", "A", "a.jpg", "train")
ENDS = ("jpg", "png", "txt", "json", "mp4", "npz", "caption", "webp")
FEW = 8  # files: so few that all are named


def made(folder, random):
    """Some files in some folders, and now and then a table of the images."""
    within = random.sample(FOLDERS, random.randint(1, 4))
    places = [random.choice(within) + random.choice(NAMES) for _ in range(random.randint(1, FEW))]
    files = sorted({f"{place}.{random.choice(ENDS)}" for place in places})
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
    images = [file for file in files if file.endswith(("jpg", "png", "webp"))]
    if images and random.random() < 0.4:
        rows = [{"file_name": image, "source_file_name": random.choice([*images, ""])} for image in images[::2]]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return files


@pytest.mark.parametrize("layout", ["auto", *LAYOUTS])
def test_each_file_is_packed_or_told(tmp_path, layout):
    looked = 0
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = made(folder, random.Random(number))
        try:
            laid_out = layout_of(str(folder), layout)
        except ConfigError:  # no table
            continue
        with scan(str(folder), layout=laid_out) as listing:
            if listing.collisions.count:  # which stop it all
                continue
            packed = {file.path for item in listing.items() for file in item.files.values()}
            broken = {path.removeprefix(f"{folder}/") for path, _ in listing.why_broken()}
            told = {*listing.orphans.examples, *listing.other.examples, *broken}
            assert set(files) <= packed | told, layout
            assert not packed & {*listing.orphans.examples, *listing.other.examples}
            looked += bool(packed)
    assert looked > 5
