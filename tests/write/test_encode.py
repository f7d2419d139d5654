"""Values become bytes that decode gives back, in formats that cannot run code."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import streampipe as sp
from streampipe.decoding.fields import decode_field
from streampipe.write import encode_field, encode_sample
from tests.data import natural

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)
DTYPES = [np.bool_, np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64, np.complex64]


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (np.ndarray, torch.Tensor)):
        a, b = (np.asarray(x.float() if x.dtype == torch.bfloat16 else x) for x in (a, b))
        return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    return a == b and type(a) is type(b)


def back(name, value, **options):
    whole, data = encode_field(name, value, **options)
    return whole, decode_field(whole, data)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DTYPES).flatmap(lambda d: arrays.arrays(d, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)))
)
def test_arrays_of_any_shape_and_kind_come_back(array):
    for value in (array, np.asfortranarray(array)[..., ::-1] if array.ndim else array):
        name, found = back("x.npy", value)
        assert name == "x.npy"
        assert same(found, value)


TEXT = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_json_comes_back_whatever_it_is(value):
    assert back("meta.json", value) == ("meta.json", value)


@pytest.mark.parametrize(
    ("name", "value", "whole"),
    [
        ("txt", "a cät", "txt"),
        ("caption", "a", "caption"),
        ("cls", 7, "cls"),
        ("txt.gz", "a cat", "txt.gz"),
        ("latent", torch.randn(4, 8, 8).half(), "latent.npy"),
        ("latent", torch.randn(4, 8).bfloat16(), "latent.safetensors"),
        ("latent.safetensors", torch.randn(3, 5)[:, ::2], "latent.safetensors"),
        ("vae", {"mean": torch.ones(2), "std": torch.zeros(2, 3)}, "vae.safetensors"),
        ("size", [3, 2], "size.json"),
        ("flipped", True, "flipped.json"),
        ("meta", {"a": [1, None]}, "meta.json"),
        ("x.npz", {"a": np.ones(2), "b": np.zeros((0, 3), np.float16)}, "x.npz"),
        ("prompt", "text", "prompt.txt"),
        ("image", torch.arange(60, dtype=torch.uint8).reshape(3, 4, 5), "image.png"),
        ("mask.png", torch.arange(20, dtype=torch.uint8).reshape(1, 4, 5), "mask.png"),
    ],
)
def test_the_name_gets_the_format_and_the_value_comes_back(name, value, whole):
    found_name, found = back(name, value)
    assert found_name == whole
    assert same(found, value.numpy() if whole.endswith(".npy") else value)
    assert encode_field(name, value)[1] == encode_field(name, value)[1]


def test_bytes_stay_as_they_are_under_any_name():
    for name in ("jpg", "pt", "anything"):
        assert encode_field(name, memoryview(b"x")) == (name, b"x")


def test_jpegs_have_the_quality_asked_for_and_png_and_webp_lose_nothing():
    image = natural(64, 48)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    sizes = {quality: len(encode_field("jpg", image, quality)[1]) for quality in (30, 95)}
    assert sizes[30] < sizes[95]
    found = back("jpg", pixels)[1]
    assert 10 * torch.log10(255**2 / ((found.float() - pixels.float()) ** 2).mean()) > 38
    for name in ("png", "webp"):
        for value in (pixels, np.array(image), image):
            assert torch.equal(back(name, value)[1], pixels)
    with Image.open(io.BytesIO(encode_field("jpg", pixels)[1])) as opened:
        assert opened.layer[0][1:3] == opened.layer[1][1:3]  # no chroma subsampling


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("x", object(), "is a object, which has no format here"),
        ("x.pkl", {}, "can run code"),
        ("x.pt", torch.ones(1), "can run code"),
        ("x.npy", torch.ones(1).bfloat16(), "call the field .safetensors"),
        ("x.npy", np.array([object()]), "Python objects"),
        ("jpg", torch.rand(3, 4, 4), "an image is uint8: 3 x height x width"),
        ("png", "x", "a str cannot be written as .png .an image is uint8"),
        ("txt", 3, "text is wanted"),
        ("cls", 3.5, "a whole number is wanted"),
        ("json", {"a": object()}, "is no JSON"),
        ("json", float("nan"), "cannot be written as .json"),
        ("jpg", Image.new("RGBA", (2, 2)), "cannot write mode RGBA as JPEG"),
        (
            "mask.webp",
            np.full((2, 2), 40_000, np.uint16),
            "WEBP has 8 bits, and its pixels have more: call the field .png",
        ),
        ("x.npz", np.ones(1), "a dict of arrays is wanted"),
        ("x.cbor", {}, ".cbor is read, but not written"),
        ("png", torch.zeros(7, 4, 4, dtype=torch.uint8), "cannot be written as .png"),
        ("gif", torch.zeros(3, 4, 4, dtype=torch.uint8), ".gif is read, but not written"),
    ],
)
def test_what_has_no_safe_format_is_refused_with_the_name(name, value, words):
    with pytest.raises(sp.StageError, match=words):
        encode_field(name, value)


@pytest.mark.parametrize("name", ["m.json", "m.npz", "m.safetensors"])
def test_names_that_are_no_texts_are_refused_because_they_would_come_back_as_such(name):
    for key in (1, None, True):
        with pytest.raises(sp.StageError, match=f"its name {key} would come back as a text"):
            encode_sample({"__key__": "a", name: {"1": np.zeros(2), key: np.ones(2)}})
    with pytest.raises(sp.StageError, match="its name 3 would come back"):
        encode_sample({"__key__": "a", "m.json": [{"a": ({3: "x"},)}]})


def test_single_numbers_and_tensors_of_one_memory_come_back_from_safetensors():
    row, number = torch.arange(4.0), np.array(2.0)
    value = {"a": row, "b": row, "c": row[1:], "d": number, "e": np.asarray(row), "f": torch.zeros(0)}
    name, found = back("x", value)
    assert name == "x.safetensors"
    assert same(
        {each: np.asarray(tensor) for each, tensor in found.items()}, {k: np.asarray(v) for k, v in value.items()}
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("x", {"a": torch.ones(2, dtype=torch.complex128)}, "the format has no torch.complex128"),
        ("x", np.ma.masked_array([1, 2], [0, 1]), "its mask would be lost"),
        ("x", {"a": np.ma.masked_array([1, 2], [0, 1])}, "its mask would be lost"),
        ("x", np.datetime64(1, "ns"), "is a time: make it a number or a text"),
        ("x.json", {"a": [np.array([1], "timedelta64[ns]")]}, "is a time: make it a number or a text"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(name, value, words):
    with pytest.raises(sp.StageError, match=words):
        encode_field(name, value)


def test_the_name_of_a_field_is_a_text():
    with pytest.raises(sp.StageError, match="sample 'a': a field's name is a text, not 3"):
        encode_sample({"__key__": "a", 3: "x"})


def test_two_fields_never_get_one_name():
    with pytest.raises(sp.StageError, match=r"sample 'a': two fields would be called 'x.npy'"):
        encode_sample({"__key__": "a", "x": np.ones(1), "x.npy": b""})


def test_damaged_safetensors_are_an_error_wherever_they_are_cut():
    data = encode_field("x.safetensors", torch.arange(10.0))[1]
    for end in range(len(data)):
        with pytest.raises(sp.DecodeError, match="sound .safetensors"):
            decode_field("x.safetensors", data[:end])
    with pytest.raises(sp.DecodeError):
        decode_field("x.safetensors", (1 << 40).to_bytes(8, "little") + data[8:])


def test_safetensors_of_other_tools_come_as_dicts():
    found = decode_field("x.safetensors", encode_field("x.safetensors", {"a": torch.ones(2), "b": torch.zeros(1)})[1])
    assert sorted(found) == ["a", "b"]
    found["a"].mul_(2)  # writable, like any tensor
    assert found["a"].tolist() == [2, 2]
