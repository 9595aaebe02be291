"""Boxes at the 255 levels are those of the field's 1000 thresholds, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit import brute_force
from tests.unit.score_maps import GRAY_KINDS, KINDS, gray_maps, make_gray, make_map, score_maps
from wsol_dist.regions.boxes import (
    NUM_LEVELS,
    LevelBoxes,
    boxes_at_levels,
    level_of,
    normalise,
    resize_map,
    threshold_of,
    to_uint8,
)
from wsol_dist.regions.components import boxes_by_growing
from wsol_dist.regions.contours import boxes_by_tracing

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
        here = field.every_N4[(field.first_N <= level) & (level <= field.last_N)]
        assert sorted(here.tolist()) == sorted(brute_force.every_box(gray, threshold))


def assert_same_both_ways(gray):
    """Grown and traced boxes against brute force, at the first and last level of each distinct mask."""
    grown, traced = boxes_by_growing(gray, every=True), boxes_by_tracing(gray, every=True)
    for largest, every_box, first, last in (grown, traced, boxes_by_growing(gray, every=False)):
        assert (largest.dtype, every_box.dtype) == (np.int16, np.int16)
        assert (first <= last).all()
    assert np.array_equal(grown[0], traced[0])
    assert np.array_equal(grown[0], boxes_by_growing(gray, every=False)[0])
    assert np.array_equal(grown[0], boxes_by_tracing(gray, every=False)[0])
    edges = {int(value) + step for value in np.unique(gray) for step in (-1, 0)} & set(range(NUM_LEVELS))
    for level in edges:
        boxes, best = brute_force.boxes_and_largest(gray, threshold_of(level))
        assert grown[0][level].tolist() == boxes[best]
        for _, every_box, first, last in (grown, traced):
            assert sorted(every_box[(first <= level) & (level <= last)].tolist()) == sorted(boxes)


@settings(max_examples=25, deadline=None)
@given(score_hw=score_maps(), size_px=st.sampled_from([1, 2, 7, 32, 48]))
@example(score_hw=np.zeros((3, 3), np.float32), size_px=32)
def test_resized_maps(score_hw, size_px):
    assert_same_at_every_threshold(field_gray(score_hw, size_px))


@settings(max_examples=300, deadline=None)
@given(gray=gray_maps())
@example(gray=np.full((1, 1), 255, np.uint8))
@example(gray=np.full((5, 9), 255, np.uint8))
def test_maps_of_few_values_that_tie_nest_and_touch_the_border(gray):
    assert_same_both_ways(gray)


@pytest.mark.parametrize("kind", GRAY_KINDS)
def test_every_kind_of_gray_map(kind):
    for seed in range(8):
        assert_same_both_ways(make_gray(kind, (40, 33), 2 + seed % 3, seed))


@pytest.mark.parametrize("cells", [14, 28, 112])
def test_noise_at_full_size(cells):
    assert_same_both_ways(field_gray(make_map("noise", (cells, cells), cells), 224))


def test_maps_of_alternating_shapes_do_not_share_memory():
    first, second = make_gray("frames", (30, 20), 4, 1), make_gray("noise", (12, 50), 4, 2)
    before = boxes_by_growing(first, every=True)
    copies = [part.copy() for part in before]
    boxes_by_growing(make_gray("pits", (30, 20), 4, 3), every=True)
    boxes_by_growing(second, every=True)
    assert all(np.array_equal(*pair) for pair in zip(before, copies, strict=True))
    assert all(
        np.array_equal(*pair) for pair in zip(boxes_by_growing(first, every=True), copies, strict=True)
    )


@pytest.mark.parametrize("kind", ["blobs", "constant", "few_values"])
def test_full_size_maps(kind):
    assert_same_at_every_threshold(field_gray(make_map(kind, (14, 14), 3), 224))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "constant"])
def test_full_size_maps_both_ways(kind):
    assert_same_both_ways(field_gray(make_map(kind, (14, 14), 3), 224))


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


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 60), seed=st.integers(0, 2**32 - 1))
def test_best_by_level_of_any_ranges(count, seed):
    rng = np.random.default_rng(seed)
    first, last = np.sort(rng.integers(0, NUM_LEVELS, (2, count)), axis=0)
    boxes = {"largest_L4": np.zeros((NUM_LEVELS, 4), np.int16), "every_N4": np.zeros((count, 4), np.int16)}
    score = rng.random(count)
    best = LevelBoxes(**boxes, first_N=first, last_N=last).best_by_level(score)
    for level in range(NUM_LEVELS):
        assert best[level] == max(score[(first <= level) & (level <= last)], default=0)
