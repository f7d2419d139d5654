"""The same samples are found however the files of a folder come: a directory at a time, or a few."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.folders import walk
from streampipe.folders.files import packed, packed_size, to_text
from streampipe.folders.layouts import PLAIN
from streampipe.folders.listing import scan
from streampipe.folders.names import File, Found, group, simple

RESTS = st.sampled_from([".jpg", ".JPG", ".png", ".txt", ".json", ".mp4", ".mask.png", ".v2.jpg", ".npz", ".json.gz"])


def found(folder):
    """All that a listing says, but for times."""
    with scan(str(folder), layout=PLAIN) as listing:
        samples = [(item.key, {name: file.path for name, file in item.files.items()}) for item in listing.items()]
        return samples, listing.fields, listing.bytes, listing.orphans.examples, list(listing.why_broken())


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"...")


def test_a_directory_of_any_length_gives_the_same_samples(tmp_path, monkeypatch):
    fill(
        tmp_path, *(f"{where}{n}{rest}" for where in ("", "b/", "a/c/") for n in range(5) for rest in (".jpg", ".txt"))
    )
    fill(tmp_path, "a/c/2.mask.png", "b/alone.txt", "a/x.v2.jpg")
    whole = found(tmp_path)
    assert len(whole[0]) == 16
    for few in (1, 2, 7, 12):
        monkeypatch.setattr(walk, "_RUN", few)
        assert found(tmp_path) == whole


@pytest.mark.skipif(os.uname().sysname == "Darwin", reason="a folder has one form of a name there")
def test_files_meet_whose_folders_are_two_forms_of_one_name(tmp_path):
    fill(tmp_path, "caf\u00e9/a.jpg", "cafe\u0301/a.txt", "b/c.jpg")
    samples, *_ = found(tmp_path)
    assert samples == [
        ("b/c", {"jpg": "b/c.jpg"}),
        ("caf\u00e9/a", {"jpg": "caf\u00e9/a.jpg", "txt": "cafe\u0301/a.txt"}),
    ]


TREES = [
    ["a.jpg", "b.jpg", "c.jpg"],  # keys and their folds grow: nothing is sorted
    ["B.jpg", "a.jpg", "c.jpg"],  # folds do not
    ["z.jpg", "a/x.jpg", "a b/x.jpg", "a/b/c.jpg"],  # nor keys: a directory's files come before its directories
    ["B/1.jpg", "a/2.jpg", "b/1.jpg"],  # and two that differ in case are found
]


@pytest.mark.parametrize("names", TREES)
def test_samples_are_in_order_and_twins_are_found_whether_or_not_there_is_anything_to_sort(tmp_path, names):
    fill(tmp_path, *names)
    with scan(str(tmp_path), layout=PLAIN) as listing:
        keys = [name.removesuffix(".jpg") for name in names]
        assert [item.key for item in listing.items()] == sorted(keys)
        assert [item.key for item in listing.items(1, 1)] == sorted(keys)[1:2]
        assert listing.collisions.count == ("b/1.jpg" in names)
        assert (listing.samples, listing.fields) == (len(names), {"jpg": len(names)})
    with scan(str(tmp_path), layout=PLAIN, seed=1) as listing:
        assert sorted(item.key for item in listing.items()) == sorted(keys)


@given(
    st.lists(RESTS, min_size=1, max_size=3),
    st.sampled_from(["a", "d/a", "\u00fc", "__a__", "a b", "-x"]),
    st.booleans(),
)
def test_what_is_simple_is_what_all_rules_give(rests, stem, broken):
    rows = [(stem, rest, None, 3, 7, "it is empty" if broken else None) for rest in rests]
    kind = simple(rows)
    if kind is not None:
        item = kind.item(rows)
        assert packed(stem, kind, rows) == (packed_size(item), to_text(item.files))
        files = [Found(rest, File(stem + rest, 3, 7), None) for rest in rests]
        result = group(stem, files)
        assert (result.items, result.orphans, result.collisions, result.broken) == ([item], [], [], [])
        assert list(item.files) == sorted(item.files)


def test_an_image_with_its_caption_is_simple():
    rows = [("d/a", ".txt", None, 3, 7, None), ("d/a", ".JPG", "x/a.JPG", 4, 8, None)]
    item = simple(rows).item(rows)
    assert item.key == "d/a"
    assert item.files == {"jpg": File("x/a.JPG", 4, 8), "txt": File("d/a.txt", 3, 7)}
