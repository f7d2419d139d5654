"""Batches on a device: the same as the loader's, with images decoded there, and the loader's life."""

import itertools

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe.counters import counters
from streampipe.decoding import DeferredBatch
from tests.data import encoded, natural, photo, shard, write_photos, write_shards

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


def pipe(folder, device, size=32, on_error="raise", **options):
    stream = sp.stream(folder, shuffle=True, seed=3, epochs=options.pop("epochs", 1), on_error=on_error)
    options = {"crop": "random", "flip": 0.5, **options}
    return stream.decode(size, device=device, **options).batch(4)


def keys(batches):
    return [key for batch in batches for key in batch["__key__"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, [5, 7, 4])
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("device", DEVICES)
def test_images_that_a_device_decodes_are_those_of_the_workers(folder, device, workers):
    expected = list(pipe(folder, None, margin=None).loader())
    found = list(sp.to_device(pipe(folder, "cuda").loader(num_workers=workers), device))
    assert keys(found) == keys(expected)
    for batch, other in zip(found, expected, strict=True):
        assert batch.keys() == other.keys()
        assert batch["jpg"].shape == other["jpg"].shape
        assert batch["jpg"].dtype == torch.uint8
        assert batch["jpg"].device.type == device
        assert batch["time_ids"].device.type == device
        assert batch["jpg"].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch["time_ids"].cpu(), other["time_ids"])
        assert batch["flipped"].tolist() == other["flipped"].tolist()
        error = (batch["jpg"].cpu().float() - other["jpg"].float()).square().mean()
        assert error < (1e-9 if device == "cpu" else 6.5)  # 40 dB


def test_workers_hand_over_bytes_and_no_pixels(folder):
    batch = next(iter(pipe(folder, "cuda").loader(num_workers=1)))
    assert isinstance(batch["jpg"], DeferredBatch)
    assert [image.size for image in batch["jpg"]] == [(32, 32)] * 4
    assert len(batch["jpg"].data) < 4 * 120 * 160 * 3
    assert "sp.to_device(loader, 'cuda')" in repr(batch["jpg"])


TURNS = [("upright", 1), ("mirrored", 2), ("on its side", 6), ("transposed", 5)]


@pytest.mark.parametrize(("name", "orientation"), TURNS)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["cover", "pad"])
def test_turned_images_and_canvases(tmp_path, device, name, orientation, mode):
    image = natural(90, 60, 1)
    exif = image.getexif()
    exif[0x0112] = orientation
    (tmp_path / "0.tar").write_bytes(shard([("a", {"jpg": encoded(image, exif=exif, quality=95)})]))

    def made(device):
        return (
            sp.stream(tmp_path)
            .decode((40, 24), mode=mode, margin=None, device=device, background=(9, 99, 199))
            .batch(1)
        )

    expected = next(iter(made(None).loader()))["jpg"].float()
    found = next(iter(sp.to_device(made("cuda").loader(), device)))["jpg"].cpu().float()
    assert (found - expected).square().mean() < 6.5


@pytest.mark.parametrize("device", DEVICES)
def test_what_the_gpus_codec_does_not_take_is_decoded_by_the_workers(tmp_path, device):
    image = natural(64, 48, 2)
    grey = image.convert("L")
    files = {
        "a": encoded(image, "PNG"),
        "b": encoded(image, "WEBP", lossless=True),
        "c": encoded(image.convert("CMYK"), quality=95),
        "d": encoded(grey, quality=95),
        "e": encoded(image, quality=95) + bytes(100),  # the end marker is not where it belongs
        "f": encoded(image, quality=95, progressive=True),
    }
    (tmp_path / "0.tar").write_bytes(shard([(key, {"image": data}) for key, data in files.items()]))

    def made(device):
        return sp.stream(tmp_path).decode(24, margin=None, device=device).batch(6)

    expected = next(iter(made(None).loader()))["image"].float()
    found = next(iter(sp.to_device(made("cuda").loader(), device)))["image"].cpu().float()
    assert (found - expected).square().mean((1, 2, 3)).max() < 6.5


@pytest.mark.parametrize("device", DEVICES)
def test_damage_is_an_error_that_names_the_sample(tmp_path, device):
    data = photo()
    (tmp_path / "0.tar").write_bytes(shard([("a", {"jpg": photo(1)}), ("b", {"jpg": data[: len(data) // 2]})]))
    loader = sp.stream(tmp_path).decode(32, device="cuda").batch(2).loader()
    with pytest.raises(sp.DecodeError, match="'b'.*jpg"):
        list(sp.to_device(loader, device))


@pytest.fixture
def broken_inside(tmp_path):
    """Photos of which one has an end, but nothing sound before it."""
    data = bytearray(photo(0))
    start = data.index(b"\xff\xda") + 20
    data[start:-2] = b"\xff\xd9" * ((len(data) - 2 - start) // 2) + b"\0" * ((len(data) - 2 - start) % 2)
    files = [("a", photo(1)), ("b", bytes(data)), ("c", photo(2)), ("d", photo(3))]
    (tmp_path / "0.tar").write_bytes(shard([(key, {"jpg": each, "txt": key}) for key, each in files]))
    return tmp_path


def test_damage_that_the_device_finds_is_an_error_that_names_the_sample(broken_inside):
    loader = sp.stream(broken_inside).decode(32, device="cuda").batch(4).loader()
    with pytest.raises(sp.DecodeError, match="'b'.*'jpg'"):
        list(sp.to_device(loader, "cpu"))


def test_under_skip_another_sample_takes_the_place_of_a_damaged_one(broken_inside):
    before = counters.get("skipped", "DecodeError")
    loader = sp.stream(broken_inside, on_error="skip").decode(32, device="cuda").batch(4).loader()
    (batch,) = sp.to_device(loader, "cpu")
    assert batch["__key__"] == ["a", "a", "c", "d"]
    assert batch["txt"] == ["a", "a", "c", "d"]
    assert torch.equal(batch["jpg"][0], batch["jpg"][1])
    assert not torch.equal(batch["jpg"][0], batch["jpg"][2])
    assert counters.get("skipped", "DecodeError") == before + 1


def test_images_of_different_sizes_cannot_share_a_batch(tmp_path):
    files = [("a", photo(0, 64, 48)), ("b", photo(1, 48, 64))]
    (tmp_path / "0.tar").write_bytes(shard([(key, {"jpg": each}) for key, each in files]))
    with pytest.raises(sp.StageError, match="48 x 64.*64 x 48"):
        list(sp.stream(tmp_path).decode(device="cuda").batch(2).loader())


@pytest.mark.parametrize("options", [{"output": "pil"}, {"alpha": "mask"}, {"damaged": "accept"}, {"device": "tpu"}])
def test_options_that_a_device_does_not_have_are_refused(folder, options):
    with pytest.raises(sp.ConfigError, match="device"):
        sp.stream(folder).decode(32, **{"device": "cuda", **options})


class TestLife:
    """The state is that of the batch that was yielded, whatever was made ahead."""

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("taken", [0, 1, 3, 4])
    def test_a_state_continues_behind_the_batch_that_was_yielded(self, folder, device, taken):
        whole = sp.to_device(pipe(folder, "cuda", epochs=None).loader(steps_per_epoch=4), device)
        expected = keys(itertools.chain(whole, whole))
        first = sp.to_device(pipe(folder, "cuda", epochs=None).loader(steps_per_epoch=4), device)
        got = keys(itertools.islice(first, taken))
        second = sp.to_device(pipe(folder, "cuda", epochs=None).loader(steps_per_epoch=4), device)
        second.load_state_dict(first.state_dict())
        while len(got) < len(expected):
            got += keys(second)
        assert got == expected

    def test_break_in_a_stream_loses_nothing_that_was_made_ahead(self, folder):
        whole = sp.to_device(pipe(folder, "cuda", epochs=None).loader(steps_per_epoch=4), "cpu")
        expected = keys(itertools.chain(whole, whole))
        loader = sp.to_device(pipe(folder, "cuda", epochs=None).loader(steps_per_epoch=4), "cpu", prefetch=3)
        got = []
        while len(got) < len(expected):
            got += keys(itertools.islice(loader, 1))
        assert got == expected

    def test_passes_are_epochs(self, folder):
        loader = sp.to_device(pipe(folder, "cuda").loader(), "cpu")
        epochs = [keys(loader) for _ in range(2)]
        assert epochs[0] != epochs[1]
        assert sorted(epochs[0]) == sorted(epochs[1])
        exact = sp.to_device(pipe(folder, "cuda").loader(), "cpu")
        assert [keys(itertools.islice(exact, len(exact))) for _ in range(2)] == epochs
        exact.set_epoch(1)
        assert keys(exact) == epochs[1]

    def test_no_other_rank_is_asked_for_the_state_of_a_batch_that_is_made_ahead(self, folder, monkeypatch):
        asked = []
        monkeypatch.setattr(sp.Loader, "gathered", lambda self, state: asked.append(state) or state)
        loader = sp.to_device(pipe(folder, "cuda").loader(state_of="job"), "cpu")
        batches = iter(loader)
        next(batches)
        assert asked == []
        assert [loader.state_dict()["step"], len(asked)] == [1, 1]

    def test_an_older_iterator_ends(self, folder):
        loader = sp.to_device(pipe(folder, "cuda").loader(), "cpu")
        old = iter(loader)
        next(old)
        next(iter(loader))
        with pytest.raises(sp.ConfigError, match="has ended"):
            next(old)

    def test_an_error_of_a_stage_comes_through(self, folder):
        def broken(text):
            raise ValueError("no")

        loader = sp.stream(folder).map(broken, "txt").batch(4).loader()
        with pytest.raises(sp.StageError, match="no"):
            list(sp.to_device(loader, "cpu"))


def test_nested_tensors_are_copied_and_the_rest_stays_as_it_is():
    samples = [{"x": (torch.ones(2), "a"), "y": np.zeros(3), "n": None} for _ in range(2)]
    loader = sp.from_iterable(samples).batch(2).loader()
    (batch,) = sp.to_device(loader, "cpu")
    assert torch.equal(batch["x"][0][0], torch.ones(2))
    assert batch["x"][0][1] == "a"
    assert torch.equal(batch["y"], torch.zeros(2, 3, dtype=torch.float64))
    assert batch["n"] == [None, None]


@pytest.mark.parametrize("device", ["tpu", "meta", "mps", "cuda:77"])
def test_a_device_that_is_not_there_is_refused(device):
    loader = sp.from_iterable([{"n": 1}]).batch(1).loader()
    with pytest.raises(sp.ConfigError, match="to_device"):
        sp.to_device(loader, device)


def test_what_is_no_loader_is_refused():
    with pytest.raises(sp.ConfigError, match=r"pipe.loader"):
        sp.to_device([1, 2], "cpu")


@CUDA
def test_memory_is_not_given_away_while_another_stream_uses_it(folder):
    """Batches that are kept stay as they are while later ones are copied."""
    loader = sp.to_device(pipe(folder, None).loader(), "cuda")
    kept = []
    for batch in loader:
        torch.cuda._sleep(2_000_000)
        kept.append((batch["jpg"], batch["jpg"].clone()))
    torch.cuda.synchronize()
    assert all(torch.equal(*pair) for pair in kept)


def test_the_report_tells_the_loops_waits_and_what_the_device_took(folder, tmp_path):
    before = [counters.get("loader", what) for what in ("batches", "samples")]
    loader = sp.to_device(pipe(folder, "cuda").loader(threads=1, trace=True), "cpu")
    batches = list(itertools.chain(loader, loader))
    found = loader.summary()
    assert (found.batches, found.samples) == (len(batches), 32)
    assert len(found.first_batch_seconds) == 2
    assert found.device_decode_seconds > 0
    assert found.device_copy_seconds > 0
    assert "s decoding" in loader.report()
    assert "open on the device" in loader.report("html", tmp_path / "report.html")
    assert [counters.get("loader", what) - n for what, n in zip(("batches", "samples"), before, strict=True)] == [8, 32]


def test_what_the_device_skips_is_in_its_report(broken_inside):
    loader = sp.to_device(sp.stream(broken_inside, on_error="skip").decode(32, device="cuda").batch(4).loader(), "cpu")
    list(loader)
    (error,) = loader.summary().errors
    assert (error["reason"], error["samples"]) == ("DecodeError", 1)
    assert loader.summary().slots_filled == 1


ENDLESS = {"epochs": None}
PASSES = {
    "finite": ({}, {}),
    "fixed": ({}, {"fixed_epoch": True}),
    "endless": (ENDLESS, {}),
    "steps": (ENDLESS, {"steps_per_epoch": 6}),
    "steps, fixed": (ENDLESS, {"steps_per_epoch": 6, "fixed_epoch": True}),
}


@pytest.mark.parametrize("kind", PASSES)
@pytest.mark.parametrize("taken", [0, 2, 4])
def test_a_pass_that_is_left_goes_on_as_the_loaders_does_whatever_was_made_ahead(tmp_path, kind, taken):
    write_shards(tmp_path, [5, 7, 4])
    stream, options = PASSES[kind]

    def passes(made):
        found = []
        for number in (taken, 4, 6):
            batches = iter(made)
            found.append(
                [next(batches)["__key__"] for _ in range(min(number, 4 if kind in ("finite", "fixed") else 6))]
            )
            del batches
        return found, made.state_dict()

    pipe = sp.stream(str(tmp_path), shuffle=True, seed=3, **stream).batch(4)
    assert passes(sp.to_device(pipe.loader(**options), "cpu")) == passes(pipe.loader(**options))
