"""The bucket sets are the published ones, and every image goes to the nearest, the same on every machine."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.plan.buckets import make
from streampipe.plan.ratios import log_ratios
from streampipe.plan.shapes import SETS

PRESETS = {name: make(name) for name in SETS}

HALF = {512: [1856, 1920, 1984, 2048], 576: [1664, 1728, 1792], 640: [1536, 1600], 704: [1408, 1472], 768: [1280, 1344]}
HALF |= {832: [1216], 896: [1152], 960: [1088]}
SDXL = {(w, h) for w, heights in HALF.items() for h in heights}
SDXL |= {(h, w) for w, h in SDXL} | {(1024, 1024)}
PIXART = {  # (height, width), github.com/PixArt-alpha/PixArt-alpha, diffusion/data/datasets/utils.py
    *[(512, 2048), (512, 1984), (512, 1920), (512, 1856), (576, 1792), (576, 1728), (576, 1664), (640, 1600)],
    *[(640, 1536), (704, 1472), (704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152)],
    *[(896, 1152), (896, 1088), (960, 1088), (960, 1024), (1024, 1024), (1024, 960), (1088, 960), (1088, 896)],
    *[(1152, 896), (1152, 832), (1216, 832), (1280, 768), (1344, 768), (1408, 704), (1472, 704), (1536, 640)],
    *[(1600, 640), (1664, 576), (1728, 576), (1792, 576), (1856, 512), (1920, 512), (1984, 512), (2048, 512)],
}


def one(buckets, height, width):
    number = int(buckets.assign(np.array([height]), np.array([width]))[0])
    assert buckets.of(height, width) == number
    return buckets.sizes[number] if number >= 0 else None


def test_the_sets_are_the_published_ones():
    assert len(SDXL) == 33
    assert set(make("sdxl").sizes) == SDXL
    assert make("sdxl") == sp.Buckets(base=1024, step=64, min=512, max=2048)
    assert len(PIXART) == 40
    assert set(make("pixart").sizes) == set(make("sdxl-published").sizes) == PIXART
    assert len(make("sd15").sizes) == 17
    assert all(w * h <= 512 * 512 and 256 <= min(w, h) <= max(w, h) <= 1024 for h, w in make("sd15").sizes)


def test_photo_is_the_ladder_of_diffusers():
    ladder = pytest.importorskip("diffusers.training_utils").generate_aspect_ratio_buckets(1024)
    assert set(make("photo").sizes) == set(ladder)
    assert len(ladder) == 11


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(PRESETS)), st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_nearest_by_log_aspect_ratio_is_chosen(name, width, height):
    buckets = make(name)
    distances = np.abs(log_ratios(buckets.sizes) - (np.log(width) - np.log(height)))
    assert np.isclose(distances[buckets.sizes.index(one(buckets, height, width))], distances.min(), atol=1e-9)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["sdxl", "sd15", "photo"]), st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_transposed_image_goes_to_the_transposed_bucket(name, width, height):
    if width != height:
        buckets = make(name)
        assert one(buckets, height, width) == one(buckets, width, height)[::-1]


@pytest.mark.parametrize(("a", "b"), [((16, 9), (4, 1)), ((1, 1), (4, 1)), ((1, 1), (1, 9)), ((2, 3), (8, 3))])
@pytest.mark.parametrize("times", [1, 3, 77, 1009])
def test_an_aspect_ratio_exactly_between_two_buckets_goes_to_the_squarer_and_so_does_its_transpose(a, b, times):
    (h1, w1), (h2, w2) = a, b
    middle = Fraction(w1 * w2, h1 * h2)
    width, height = (round(part**0.5) for part in (middle.numerator, middle.denominator))
    assert Fraction(width, height) ** 2 == middle, "the test needs a middle in whole numbers"
    squarer = min(a, b, key=lambda size: abs(np.log(size[0] / size[1])))
    buckets = sp.Buckets([a, b])
    assert one(buckets, height * times, width * times) == squarer
    turned = sp.Buckets([a[::-1], b[::-1]])
    assert one(turned, width * times, height * times) == squarer[::-1]
    assert one(buckets, height * times * 1000, width * times * 1000 + 1) == max(a, b, key=lambda s: s[1] / s[0])
    assert one(buckets, height * times * 1000, width * times * 1000 - 1) == min(a, b, key=lambda s: s[1] / s[0])


def test_whole_columns_are_assigned_as_single_images_are():
    rng = np.random.default_rng(0)
    h, w = rng.integers(1, 5000, (2, 500))
    buckets = sp.Buckets(base=1024, max_ar=3)
    wanted = [one(buckets, *each) for each in zip(h.tolist(), w.tolist(), strict=True)]
    assert [buckets.sizes[i] if i >= 0 else None for i in buckets.assign(h, w)] == wanted
    assert [each is None for each in wanted] == (np.maximum(w, h) > 3 * np.minimum(w, h)).tolist()
    assert one(sp.Buckets([(64, 64)]), 3, 700) == (64, 64)


def test_buckets_are_frozen_picklable_and_equal_by_their_sizes():
    for buckets in PRESETS.values():
        copy = pickle.loads(pickle.dumps(buckets))
        assert (copy, hash(copy), repr(copy)) == (buckets, hash(buckets), repr(buckets))
    with pytest.raises(AttributeError, match="Buckets are frozen"):
        make("sdxl").max_ar = 3
    assert sp.Buckets(base=512) != sp.Buckets(base=512, max_ar=4)
    others = (
        sp.Buckets(base=512, max_ar=4),
        sp.Buckets([(8, 8)]),
        sp.Buckets(nearest="ratio"),
        sp.Buckets(upscale=False),
    )
    for each in others:
        assert pickle.loads(pickle.dumps(each)) == each
    assert len({each.text for each in (*PRESETS.values(), *others)}) == 8  # two sets are the same one


@pytest.mark.parametrize(
    ("make_them", "words"),
    [
        (lambda: make("sd3"), "there are no buckets 'sd3': choose one of sdxl, sd15, sdxl-published, pixart, photo"),
        (lambda: make([]), "one or more sizes"),
        (lambda: make([(0, 8)]), r"one or more sizes \(height, width\)"),
        (lambda: make([(512, 512), (1024, 1024)]), r"512x512 and 1024x1024 \(height x width\) have the same aspect"),
        (lambda: sp.Buckets([(8, 8)], base=8), "not both: leave out base=8"),
        (lambda: sp.Buckets(base=1000), "a base that is a multiple of step"),
        (lambda: sp.Buckets(max_ar=0.5), "1 or more, not 0.5"),
        (lambda: sp.Buckets("sdxl", upscale=False), "not both: leave out upscale=False"),
        (lambda: sp.Buckets("sdxl", nearest="far"), "nearest is 'log' or 'ratio', not 'far'"),
        (lambda: sp.Buckets(base=()), r"given by base=\(512, 1024\), say, and step alone, not base=\(\)"),
        (lambda: sp.Buckets(base=(512, 1024), max=2048), "and step alone, not .*, max=2048"),
        (lambda: sp.Buckets(base=(512, 1024), upscale=False), "and step alone, not .*, upscale=False"),
    ],
)
def test_wrong_specs_are_refused(make_them, words):
    with pytest.raises(sp.ConfigError, match=words):
        make_them()


SIDES = st.integers(1, 4000)


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES)
def test_of_several_areas_an_image_goes_to_the_largest_that_it_fills(h, w):
    several = sp.Buckets(base=(256, 512, 1024))
    found = several.sizes[several.of(h, w)]
    sets = [sp.Buckets(base=base) for base in (256, 512, 1024)]
    own = [each.sizes[each.of(h, w)] for each in sets]
    assert found == ([size for size in own if h >= size[0] and w >= size[1]] or own[:1])[-1]


def sd_scripts(sizes, h, w):
    """The bucket that sd-scripts gives an image of this size (library/train_util.py, BucketManager.select_bucket)."""
    resos = sorted((w_, h_) for h_, w_ in sizes)
    if (w, h) in resos:
        return h, w
    errors = np.array([w_ / h_ for w_, h_ in resos]) - w / h
    return resos[np.abs(errors).argmin()][::-1]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["sdxl", "sd15", "photo"]), st.integers(1, 9000), st.integers(1, 9000))
def test_nearest_by_ratio_is_what_sd_scripts_assigns(name, h, w):
    assert one(sp.Buckets(name, nearest="ratio"), h, w) == sd_scripts(make(name).sizes, h, w)


def test_sd_scripts_assigns_a_few_images_otherwise():
    rng = np.random.default_rng(0)
    h, w = 1000 * np.ones(5000, int), (1000 * np.exp(rng.normal(0, 0.4, 5000))).astype(int)
    differ = (sp.Buckets("sdxl").assign(h, w) != sp.Buckets("sdxl", nearest="ratio").assign(h, w)).mean()
    assert 0.005 < differ < 0.03


def no_upscale(w, h, base, step):
    """The same with bucket_no_upscale."""
    ratio, area = w / h, base * base

    def steps(x):
        x = int(x + 0.5)
        return x - x % step

    size = w, h
    if w * h > area:
        wide = (area * ratio) ** 0.5
        high = area / wide
        by_width, by_height = steps(wide), steps(high)
        first = by_width / steps(by_width / ratio), steps(by_height * ratio) / by_height
        if abs(first[0] - ratio) < abs(first[1] - ratio):
            size = by_width, int(by_width / ratio + 0.5)
        else:
            size = int(by_height * ratio + 0.5), by_height
    return size[1] - size[1] % step, size[0] - size[0] % step


@settings(max_examples=400, deadline=None)
@given(st.integers(64, 4000), st.integers(64, 4000))
def test_without_upscaling_an_image_goes_where_sd_scripts_puts_it(h, w):
    buckets = sp.Buckets(base=1024, upscale=False)
    if max(h, w) <= 12 * min(h, w):  # longer ones come to sides of less than a step there
        assert one(buckets, h, w) == no_upscale(w, h, 1024, 64)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_without_upscaling_no_image_is_enlarged(h, w):
    found = one(sp.Buckets(base=512, step=32, upscale=False), h, w)
    assert (found is None) or (found[0] <= h and found[1] <= w and found[0] * found[1] <= 512 * 512)
    if min(h, w) >= 32 and max(h, w) <= 12 * min(h, w):
        assert found is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [({"base": 0}, "multiple of step, not base=0"), ({"frames": 1.5}, "frames of buckets are numbers")],
)
def test_a_value_that_is_none_is_not_taken_for_the_default(options, words):
    with pytest.raises(sp.ConfigError, match=words):
        sp.Buckets(**options)
