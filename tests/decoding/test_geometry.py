"""The one decision about size, crop and flip, in integers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.decoding import decide

edges, targets, places = st.integers(1, 5000), st.integers(1, 1300), st.floats(0, 1)
margins = st.sampled_from([None, 1.0, 1.5, 3.0])


@settings(max_examples=400)
@given(edges, edges, targets, targets, places, places, margins)
def test_the_box_lies_inside_and_has_the_targets_shape_to_a_pixel(h, w, out_h, out_w, y, x, margin):
    geometry = decide((h, w), (out_h, out_w), (y, x), margin=margin)
    assert 0 <= geometry.top <= h - geometry.height
    assert 0 <= geometry.left <= w - geometry.width
    assert geometry.height == h or geometry.width == w
    step = 8 // geometry.cut((h, w), 1, margin).eighths
    zoom = max(out_h / h, out_w / w)
    assert abs(geometry.height - out_h / zoom) <= max(1, step)
    assert abs(geometry.width - out_w / zoom) <= max(1, step)


@settings(max_examples=400)
@given(edges, edges, targets, targets, places, places, st.integers(1, 8), st.booleans(), margins)
def test_the_cut_begins_on_whole_pixels_and_is_large_enough(h, w, out_h, out_w, y, x, orientation, flip, margin):
    stored_w, stored_h = (h, w) if orientation > 4 else (w, h)
    cut = decide((h, w), (out_h, out_w), (y, x), flip, margin).cut((stored_h, stored_w), orientation, margin)
    assert cut.left == int(cut.left) >= 0
    assert cut.top == int(cut.top) >= 0
    assert cut.left + cut.width <= stored_w
    assert cut.top + cut.height <= stored_h
    if margin and cut.eighths < 8:
        assert cut.scaled[2] >= margin * cut.out_width - 1e-6
        assert cut.scaled[3] >= margin * cut.out_height - 1e-6
    if orientation == 1:
        assert cut.scaled[0] == int(cut.scaled[0])
        assert cut.scaled[1] == int(cut.scaled[1])


@settings(max_examples=400)
@given(edges, edges, targets, targets, places, places, margins)
def test_the_crop_is_mirrored_by_a_flip_and_never_outside_the_resized_picture(h, w, out_h, out_w, y, x, margin):
    plain, mirrored = (decide((h, w), (out_h, out_w), (y, x), flip, margin) for flip in (False, True))
    top, left = plain.crop_top_left
    rows, columns = plain.resized
    assert 0 <= top <= rows - out_h
    assert 0 <= left <= columns - out_w
    assert mirrored.crop_top_left == (top, columns - out_w - left)
    assert mirrored.resized == plain.resized


@pytest.mark.parametrize(
    ("size", "target", "margin", "crop"),
    [
        ((2000, 3000), (832, 1216), 1.5, (0, 16)),  # kohya-ss records (10, 0) for this one
        ((1000, 1600), (500, 500), 1.0, (0, 150)),
        ((1024, 1024), (1024, 1024), 1.5, (0, 0)),
        ((100, 100), (400, 200), None, (0, 100)),  # enlarged
    ],
)
def test_crops_of_known_pictures(size, target, margin, crop):
    assert decide(size, target, margin=margin).crop_top_left == crop


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_the_edges_can_be_reached(at):
    geometry = decide((1000, 1600), (500, 500), (at, at))
    assert geometry.crop_top_left == (0, round(at * 300))
