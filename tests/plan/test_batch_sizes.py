"""How many samples a batch of each bucket has."""

import pickle

import pytest

import streampipe as sp
from streampipe.plan.batch_sizes import batch_sizes
from streampipe.plan.buckets import make


def test_batch_sizes_are_given_by_bucket_or_follow_from_a_pixel_budget():
    buckets = make("sdxl")
    sizes = batch_sizes(buckets, None, 16 * 1024 * 1024)
    pixels = [n * w * h for n, (h, w) in zip(sizes, buckets.sizes, strict=True)]
    assert all(0.9 * 16 * 1024 * 1024 < each <= 16 * 1024 * 1024 for each in pixels)
    assert set(batch_sizes(buckets, None, 5)) == {1}
    with pytest.raises(sp.ConfigError, match=r"no size for \(2048, 512\)"):
        batch_sizes(buckets, {(1024, 1024): 4}, None)
    with pytest.raises(sp.ConfigError, match=r"\(9, 9\), which are no bucket"):
        batch_sizes(make([(8, 8)]), {(8, 8): 1, (9, 9): 1}, None)


def test_several_areas_are_one_set_with_batch_sizes_by_area():
    several = sp.Buckets(base=[1024, 512])
    assert several == sp.Buckets(base=(512, 1024)) == pickle.loads(pickle.dumps(several)) != sp.Buckets()
    assert {(512, 512), (1024, 1024)} <= set(several.sizes)
    assert several.upscale
    assert several.text == "Buckets(base=(512, 1024), step=64)"
    assert set(zip(several.sizes, batch_sizes(several, {512: 32, 1024: 8}, None), strict=True)) == {
        (size, n) for base, n in ((512, 32), (1024, 8)) for size in sp.Buckets(base=base).sizes
    }
    with pytest.raises(sp.ConfigError, match=r"sizes for areas \[512\]; the buckets have \[512, 1024\]"):
        batch_sizes(several, {512: 32}, None)
    with pytest.raises(sp.ConfigError, match="could bring small images to the size of a larger area"):
        list(sp.from_iterable([]).bucket(several, tail="merge").batch(2))
