"""Boxes at the 255 levels are those of the field's 1000 thresholds, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit import brute_force
from tests.unit.score_maps import KINDS, make_map, score_maps
from wsol_dist.regions.boxes import (
    NUM_LEVELS,
    boxes_at_levels,
    level_of,
    normalise,
    resize_map,
    threshold_of,
    to_uint8,
)

FIELD = {"clamp": True, "no_contour": (0, 0, 0, 0)}
TS_CAM = {"clamp": False, "no_contour": (0, 0, 1, 1)}


def field_gray(score_hw, size_px):
    return to_uint8(normalise(resize_map(score_hw.astype(np.float64), size_px, "bicubic")))


def assert_same_at_every_threshold(gray):
    field = boxes_at_levels(gray, **FIELD, every=True)
    ts_cam = boxes_at_levels(gray, **TS_CAM)
    assert field.largest_L4.shape == ts_cam.largest_L4.shape == (NUM_LEVELS, 4)
    # Thresholds of one level see the same pixels, which test_thresholds_have_255_levels makes sure of.
    for threshold in [threshold_of(level) for level in range(NUM_LEVELS)]:
        level = level_of(threshold)
        assert field.largest_L4[level].tolist() == brute_force.largest_box(gray, threshold, clamp=True)
        assert ts_cam.largest_L4[level].tolist() == brute_force.largest_box(gray, threshold, clamp=False)
        here = field.every_N4[field.mask_of_box_N == field.mask_of_level_L[level]]
        assert sorted(here.tolist()) == sorted(brute_force.every_box(gray, threshold))


@settings(max_examples=60, deadline=None)
@given(score_hw=score_maps(), size_px=st.sampled_from([1, 2, 7, 32, 48]))
@example(score_hw=np.zeros((3, 3), np.float32), size_px=32)
def test_resized_maps(score_hw, size_px):
    assert_same_at_every_threshold(field_gray(score_hw, size_px))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    num_values=st.integers(2, 12),
    seed=st.integers(0, 2**32),
)
def test_raw_gray_maps_of_many_components(height, width, num_values, seed):
    rng = np.random.default_rng(seed)
    side = max(height, width)
    gray = np.zeros((side, side), np.uint8)
    values = np.append(rng.integers(0, 256, num_values), [0, 255]).astype(np.uint8)
    gray[:height, :width] = rng.choice(values, (height, width))
    gray[rng.integers(height), rng.integers(width)] = 255
    assert_same_at_every_threshold(gray)


@pytest.mark.parametrize("kind", KINDS)
def test_full_size_maps(kind):
    assert_same_at_every_threshold(field_gray(make_map(kind, (14, 14), 3), 224))


def test_thresholds_have_255_levels():
    levels = {int(threshold * np.uint8(255)) for threshold in np.arange(0, 1, 0.001)}
    assert levels == set(range(NUM_LEVELS))
    assert [level_of(threshold_of(level)) for level in range(NUM_LEVELS)] == list(range(NUM_LEVELS))
    assert level_of(0.12) == 30


def test_largest_is_by_contour_area_and_first_on_ties():
    gray = np.zeros((20, 20), np.uint8)
    gray[2, 1:19] = 255  # 18 pixels, but a contour of area 0
    gray[10:13, 3:6] = 255  # 9 pixels, area 4
    gray[10:13, 12:15] = 255  # the same again
    boxes = boxes_at_levels(gray, **TS_CAM).largest_L4
    assert boxes[0].tolist() == brute_force.largest_box(gray, 0.0, clamp=False)
    assert boxes[0].tolist() in ([3, 10, 6, 13], [12, 10, 15, 13])


def test_hole_contours_are_boxes_of_v2_only():
    gray = np.full((20, 20), 255, np.uint8)
    gray[5:10, 6:12] = 0
    found = boxes_at_levels(gray, **FIELD, every=True)
    assert sorted(found.every_N4.tolist()) == [[0, 0, 19, 19], [5, 4, 13, 11]]
    assert found.largest_L4[100].tolist() == [0, 0, 19, 19]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "constant"])
def test_opencv_resizes_a_patch_grid_as_torch_does_in_float64(kind):
    # 14 -> 224 and the like only: OpenCV's weights are float32, exact for steps of 1/16 but not of 7/64.
    score_hw = make_map(kind, (14, 14), 5)
    as_torch = torch.nn.functional.interpolate(
        torch.from_numpy(score_hw.astype(np.float64))[None, None], size=(224, 224), mode="bicubic"
    )[0, 0].numpy()
    assert np.array_equal(to_uint8(normalise(as_torch)), field_gray(score_hw, 224))


@pytest.mark.parametrize("value", [0.0, 0.3, -7.1, 1e30])
def test_a_constant_map_has_no_pattern(value):
    gray = field_gray(np.full((14, 14), value, np.float32), 224)
    assert not gray.any()
    assert (boxes_at_levels(gray, **TS_CAM).largest_L4 == [0, 0, 1, 1]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_an_error(bad):
    score_hw = np.ones((4, 4), np.float32)
    score_hw[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        normalise(score_hw)
    with pytest.raises(ValueError, match="NaN or infinite"):
        field_gray(score_hw, 32)


def test_best_by_level():
    gray = np.zeros((12, 12), np.uint8)
    gray[1:4, 1:4], gray[6:11, 6:11] = 100, 255
    found = boxes_at_levels(gray, **FIELD, every=True)
    score_N = (found.every_N4[:, 0] == 1).astype(float)
    assert found.best_by_level(score_N).tolist() == [1.0] * 100 + [0.0] * 155
