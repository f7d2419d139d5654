"""Which files are one sample, and which names no shard can hold."""

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.decoding.fields import IMAGES, KNOWN
from streampipe.folders.names import File, Found, extension, folded, group


def grouped(*names, why=None):
    """Of the files of one folder: samples (key: fields by name), and what is wrong."""
    stems = {}
    for name in names:
        base, dot, rest = unicodedata.normalize("NFC", name).partition(".")
        stems.setdefault(f"d/{base}", []).append(Found(dot + rest, File(name, 1, 0), (why or {}).get(name)))
    results = [group(stem, files) for stem, files in sorted(stems.items())]
    samples = {item.key: {f: file.path for f, file in item.files.items()} for each in results for item in each.items}
    return samples, [each for result in results for each in (*result.orphans, *result.collisions, *result.broken)]


@pytest.mark.parametrize(
    ("names", "samples"),
    [
        (["a.jpg", "a.mask.png", "a.txt"], {"d/a": {"jpg": "a.jpg", "mask.png": "a.mask.png", "txt": "a.txt"}}),
        (["a.jpg", "a.jpg.txt"], {"d/a": {"jpg": "a.jpg", "txt": "a.jpg.txt"}}),
        (["a.JPG", "a.jpg.TXT"], {"d/a": {"jpg": "a.JPG", "txt": "a.jpg.TXT"}}),
        (["a.jpg", "a.tags.txt", "a.json.gz"],
         {"d/a": {"jpg": "a.jpg", "tags.txt": "a.tags.txt", "json.gz": "a.json.gz"}}),
        (["a.jpg", "a.jpg.jpg"], {"d/a": {"jpg": "a.jpg"}, "d/a_jpg": {"jpg": "a.jpg.jpg"}}),
        (["a.source.png", "a.target.png", "a.txt"],
         {"d/a": {"source.png": "a.source.png", "target.png": "a.target.png", "txt": "a.txt"}}),
        (["a.jpg", "a.Mask.PNG"], {"d/a": {"jpg": "a.jpg", "mask.png": "a.Mask.PNG"}}),
        (["a.jpg", "a.b.jpg", "a.b.mask.png"],
         {"d/a": {"jpg": "a.jpg", "b.jpg": "a.b.jpg", "b.mask.png": "a.b.mask.png"}}),
        (["a.jpg", "a.mask.png", "a.mask.png.txt"],
         {"d/a": {"jpg": "a.jpg", "mask.png": "a.mask.png", "mask.txt": "a.mask.png.txt"}}),
        (["a.jpg", "a.2.jpg", "a.v3.jpg", "a.v3.mask.png"],
         {"d/a": {"jpg": "a.jpg"}, "d/a_2": {"jpg": "a.2.jpg"},
          "d/a_v3": {"jpg": "a.v3.jpg", "mask.png": "a.v3.mask.png"}}),
        (["a.x.png", "a.y.png"], {"d/a_x": {"png": "a.x.png"}, "d/a_y": {"png": "a.y.png"}}),
        (["img.v1.5.JPG", "img.v1.5.txt"], {"d/img_v1_5": {"jpg": "img.v1.5.JPG", "txt": "img.v1.5.txt"}}),
        (["caf\u00e9.jpg", "cafe\u0301.txt"], {"d/caf\u00e9": {"jpg": "caf\u00e9.jpg", "txt": "cafe\u0301.txt"}}),
        (["cafe\u0301.jpg", "caf\u00e9.mask.png"],
         {"d/caf\u00e9": {"jpg": "cafe\u0301.jpg", "mask.png": "caf\u00e9.mask.png"}}),
    ],
)  # fmt: skip
def test_files_that_belong_together_are_one_sample_in_any_order(names, samples):
    for order in itertools.permutations(names):
        assert grouped(*order) == (samples, [])


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (["a.txt"], "a.txt"),
        (["a.jpg", "a.png"], "a.jpg and a.png share one stem"),
        (["a.jpg", "a.JPG"], "a.JPG and a.jpg would both be field 'jpg' of a sample"),
        (["a.jpg", "a.txt", "a.jpg.txt"], "a.txt and a.jpg.txt would both be field 'txt' of a sample"),
        (["a.jpg", "a.mask.png", "a.MASK.png"], "a.MASK.png and a.mask.png would both be field 'mask.png' of a sample"),
        (["caf\u00e9.jpg", "cafe\u0301.jpg"], "would both be field 'jpg' of a sample"),
    ],
)
def test_what_does_not_fit_together_is_said(names, wrong):
    assert any(wrong in said for said in grouped(*names)[1])


@pytest.mark.parametrize("suffix", sorted(KNOWN))
def test_every_suffix_that_the_reader_knows_is_packed(suffix):
    for written in (suffix, suffix.upper()):
        names = {f"a.{written}"} | ({"a.jpg"} if suffix not in IMAGES else set())
        samples, wrong = grouped(*names)
        assert (sorted(samples["d/a"]), wrong) == (sorted({suffix} | ({"jpg"} if suffix not in IMAGES else set())), [])


@pytest.mark.parametrize("name", ["z\n.jpg", "z\r.jpg", "__init__.jpg", "caf\udce9.jpg"])
def test_names_that_no_shard_can_hold_are_known_before_they_are_written(name):
    base, dot, rest = name.partition(".")
    result = group(base, [Found(dot + rest, File(name, 1, 0), None)])
    assert (result.items, [path for path, _ in result.broken]) == ([], [name])


def test_half_a_sample_is_never_packed():
    samples, wrong = grouped("a.jpg", "a.txt", "b.jpg", why={"a.txt": "Permission denied"})
    assert (samples, wrong) == ({"d/b": {"jpg": "b.jpg"}}, [("a.txt", "Permission denied")])


PARTS = st.sampled_from(["jpg", "JPG", "txt", "mask", "png", "v2", "2", "b", "json", "gz"])
NAMES = st.lists(
    st.builds(
        lambda base, parts: ".".join([base, *parts]),
        st.sampled_from("ab"),
        st.lists(PARTS, min_size=1, max_size=4),
    ).filter(extension),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(NAMES)
def test_every_file_is_in_one_sample_or_said_to_be_wrong(names):
    samples, wrong = grouped(*names)
    packed = [path for fields in samples.values() for path in fields.values()]
    assert len(packed) == len(set(packed))
    for name in set(names) - set(packed):
        assert any(name in said or "share one stem" in said for said in wrong)
    for key, fields in samples.items():
        assert "." not in key.rpartition("/")[2]
        assert all(field == field.lower() for field in fields)


@given(st.text(max_size=8), st.booleans())
def test_folding_is_stable_under_normal_forms(text, case):
    composed = unicodedata.normalize("NFC", text)
    assert folded(composed, True) == composed
    assert folded(composed.upper(), case_sensitive=False) == folded(folded(composed.upper(), False), False) or case
