"""Conditions are stored trimmed and once: exactly, or where that is asked for in 8 bits within a checked bound."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

import streampipe as sp
from streampipe.decoding.arrays import safetensors
from streampipe.decoding.blocks import LEAST_COSINE, quantized, restored
from streampipe.decoding.conditioning import Conditioning, cost_of, encode
from streampipe.errors import ConfigError, DecodeError, StageError
from streampipe.write.encode import encode_field

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


def drawn(seed, shape, dtype=torch.float32, spread=1.0):
    """Normal numbers; with a spread, rows of very unequal size, as those of a text encoder's channels are."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (made * torch.logspace(0, np.log10(spread), shape[0]).view(-1, *[1] * (len(shape) - 1))).to(dtype)


def captions(dtype=torch.bfloat16):
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[0, :5], mask[1, 13:], mask[2, :5] = True, True, True  # padded on the right, and on the left
    embeds = drawn(1, (3, 16, 256), dtype)
    return embeds, mask, Conditioning(["a cat", "", "a cat"], mask=mask, t5=embeds, pooled=drawn(2, (3, 8), dtype))


@settings(max_examples=30, deadline=None)
@given(
    some.integers(0, 99),
    some.sampled_from([(1,), (200,), (3, 64), (2, 65), (4, 2, 33), (1, 3), (2, 2, 2, 16)]),
    some.sampled_from(FLOATS),
    some.sampled_from([1e-3, 1.0, 1e4]),
)
def test_what_comes_back_is_within_the_bound_and_of_the_same_kind(seed, shape, dtype, spread):
    tensor = drawn(seed, shape, dtype, spread)
    found = quantized(tensor)
    back = safetensors(encode(tensor, eight=True))
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert torch.equal(back, restored(found.values.numpy(), found.scales, dtype))
    off = (back.double() - tensor.double()).abs().max().item()
    assert off == pytest.approx(found.error)
    assert off <= found.bound
    assert found.cosine >= LEAST_COSINE
    assert found.values.abs().max() <= 127


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (1,)])
def test_nothing_and_zeros_come_back_as_they_are(shape):
    back = safetensors(encode(torch.zeros(shape, dtype=torch.float16), eight=True))
    assert torch.equal(back, torch.zeros(shape, dtype=torch.float16))


def test_what_8_bits_cannot_hold_is_refused_by_its_name_and_says_what_to_do():
    few = torch.full((1, 64), 1e-3)
    few[0, 0] = 100.0  # the others are less than half a scale; they still hardly count
    quantized(few)
    for value, words in (
        (torch.tensor([[1.0, float("nan")]]), "not finite"),
        (1e-40 * torch.arange(64)[None] / 64, "cosine"),
        (torch.arange(4), "floats"),
        ("a cat", "tensors"),
    ):
        with pytest.raises(StageError, match=f"(?s)'latent.q8'.*{words}.*call the field 'latent' to keep it exactly"):
            encode_field("latent.q8", value)


def test_a_field_is_exact_unless_its_name_asks_for_8_bits():
    embeds, mask, conditions = captions()
    name, data = encode_field("text", conditions)
    assert name == "text.safetensors"
    for number, caption in enumerate(safetensors(data)):
        assert torch.equal(caption["t5"], embeds[number][mask[number]] if number < 2 else embeds[0][mask[0]])
    name, lossy = encode_field("text.q8", conditions)
    assert name == "text.q8.safetensors"
    assert len(lossy) < len(data)
    assert encode_field(name, conditions) == (name, lossy)


def test_captions_are_trimmed_and_stored_once():
    embeds, _, conditions = captions()
    data = encode(conditions, eight=True)
    found = safetensors(data)
    assert found.texts == ("a cat", "", "a cat")
    assert found.lengths == (5, 3, 5)
    assert found.exact == embeds.nbytes + 3 * 8 * 2
    assert len(data) < len(encode(conditions, eight=False)) < found.exact
    stored = pytest.importorskip("safetensors.torch").load(data)  # anybody's reader reads it
    assert sorted(stored) == [
        "0.pooled",
        "0.pooled.scale",
        "0.t5",
        "0.t5.scale",
        *sorted(n for n in stored if "1." in n),
    ]
    assert torch.equal(found[2]["t5"], stored["0.t5"].bfloat16() * stored["0.t5.scale"].repeat_interleave(64, 1))
    assert cost_of("text.q8.safetensors", data)["text.tokens"] == 5
    again = pickle.loads(pickle.dumps(found))
    assert again.texts == found.texts
    assert all(torch.equal(a["t5"], b["t5"]) for a, b in zip(again, found, strict=True))
    assert encode(found, eight=False)[-64:] == encode(again, eight=False)[-64:]


def test_a_mask_with_holes_and_uneven_tensors_are_refused():
    with pytest.raises(ConfigError, match="holes"):
        Conditioning(["a"], mask=torch.tensor([[1, 0, 1]]), t5=torch.ones(1, 3, 4))
    with pytest.raises(ConfigError, match="'t5' has 2 tensors"):
        Conditioning(["a"], t5=torch.ones(2, 3, 4))


def test_damage_is_an_error():
    data = encode(drawn(0, (4, 128)), eight=True)
    start = 8 + int.from_bytes(data[:8], "little")
    wrong_scale = bytearray(data)
    wrong_scale[start + 1] ^= 0x7F  # scales come first
    header = json.loads(data[8:start])
    header["__metadata__"]["streampipe"] = header["__metadata__"]["streampipe"].replace('"cosine"', '"kosine"')
    header["tensor"]["shape"] = [4, 127]
    text = json.dumps(header).encode()
    for each in (bytes(wrong_scale), data[:-1], data + b"x", len(text).to_bytes(8, "little") + text + data[start:]):
        with pytest.raises(DecodeError):
            sp.decoding.decode_field("latent.q8.safetensors", each)


def test_a_damaged_header_is_an_error_or_tells_of_sound_tensors():
    _, _, conditions = captions()
    data = encode(conditions, eight=True)
    size = 8 + int.from_bytes(data[:8], "little")
    rng, seen = np.random.default_rng(0), 0
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(8, size, rng.integers(1, 4)):
            broken[at] = rng.choice(np.frombuffer(b'0179-{}[]",:.a ' + bytes([broken[at] ^ 1]), np.uint8))
        told = cost_of("text.q8.safetensors", bytes(broken))
        assert all(type(value) in (int, float) for value in told.values())
        try:
            found = sp.decoding.decode_field("text.q8.safetensors", bytes(broken))
        except DecodeError:
            seen += 1
            continue
        for each in found if isinstance(found, Conditioning) else []:
            assert all(torch.is_tensor(value) or isinstance(value, str) for value in each.values())
    assert seen > 100


def test_the_report_of_a_write_says_what_it_cost_and_the_index_knows_the_tokens(tmp_path):
    _, _, conditions = captions()
    samples = [
        {"__key__": f"{i}", "latent.q8": drawn(i, (4, 8, 8), torch.float16), "text": conditions} for i in range(5)
    ]
    samples[0] = {**samples[0], "text": Conditioning(["x"], t5=[torch.ones(40, 256)])}
    out = str(tmp_path / "{:05d}.tar")
    summary = sp.from_iterable(samples).write(out, max_samples=2, progress=False)
    cost = summary.costs["latent"]
    assert (cost.samples, cost.exact) == (5, 5 * 4 * 64 * 2)
    assert 0.999 < cost.cosine < 1
    assert cost.error > 0
    assert summary.costs["text"].cosine == 1
    assert "exact" in str(summary)
    assert "latent: 0.0 MB in place of" in str(summary)
    assert sp.from_iterable(samples).write(out, max_samples=2, progress=False).costs == summary.costs  # all were there
    for tier in ("planned", "sequential"):
        long = list(sp.stream(str(tmp_path), tier=tier).where("text.tokens > 5 and latent.cosine >= 0.999").decode())
        assert [each["__key__"] for each in long] == ["0"]
    batches = list(sp.stream(str(tmp_path)).decode().batch(2))
    assert batches[0]["latent.q8.safetensors"].shape == (2, 4, 8, 8)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shard(tmp_path):
    wds, st = pytest.importorskip("webdataset"), pytest.importorskip("safetensors.torch")
    latent = drawn(0, (4, 8, 8), torch.float16)
    sp.from_iterable([{"__key__": "a", "latent.q8": latent}]).write(str(tmp_path / "{:05d}.tar"), progress=False)
    (sample,) = wds.WebDataset(str(tmp_path / "00000.tar"), shardshuffle=False)
    found = st.load(sample["latent.q8.safetensors"])
    rows = found["tensor"].reshape(4, -1, 64).float() * found["tensor.scale"][:, :, None].float()
    assert torch.allclose(rows.reshape(4, 8, 8), latent.float(), atol=0.02)


@pytest.mark.parametrize("form", [lambda x: x, list, lambda x: x.numpy(), lambda x: list(x.numpy())])
def test_arrays_and_lists_are_trimmed_as_tensors_are(form):
    embeds, mask = torch.arange(12.0).reshape(2, 3, 2), torch.tensor([[1, 1, 0], [1, 0, 0]])
    for tokens in (mask, mask.numpy(), mask.tolist()):
        made = Conditioning(["a cat", "a"], mask=tokens, t5=form(embeds))
        assert [each["t5"].tolist() for each in made] == [embeds[0, :2].tolist(), embeds[1, :1].tolist()]


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (None, {}, "takes a list of captions"),
        (["a"], {"mask": "yes"}, "a mask is captions x tokens"),
        (["a"], {"mask": [1, 0]}, "a mask is captions x tokens"),
        (["a"], {"t5": ["x"]}, "one tensor for each of 1; 't5' has"),
        (["a"], {"t5": {"x": 1}}, "one tensor for each of 1; 't5' has"),
    ],
)
def test_what_is_no_conditioning_is_one_clear_sentence(texts, options, words):
    with pytest.raises(sp.ConfigError, match=words):
        Conditioning(texts, **options)
