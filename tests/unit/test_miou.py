"""mIoU's counters against brute force, one pixel at a time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import brute_force
from tests.unit.score_maps import KINDS, make_map
from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.miou import NUM_THRESHOLDS, MIoU, pixel_counts
from wsol_dist.metrics.pxap import PxAP

CLASSES = 5
CONFIG = EvaluateConfig(size_px=16)


def make_scored(seed, **more):
    rng = np.random.default_rng(seed)
    labels = tuple(int(n) for n in np.flatnonzero(rng.random(CLASSES) < 0.5))
    maps = [make_map(str(rng.choice(KINDS)), (4, 5), int(rng.integers(1 << 30))) for _ in labels]
    height, width = rng.integers(3, 12, 2)
    fields = {
        "id": str(seed),
        "label": 0,
        "prob_C": np.ones(CLASSES, np.float32),
        "map_hw": np.zeros((4, 5), np.float32),
        "size_px": 16,
        "mask": rng.choice(np.array([0, 0, 1, 2, 3, 4, 5, 255], np.uint8), (height, width)),
        "semantic": True,
        "map_Khw": np.stack(maps) if maps else np.zeros((0, 4, 5), np.float32),
        "label_K": labels,
    }
    return Scored(**fields | more)


def by_hand(scored):
    """{class: scores at the mask's size} and mask."""
    size = scored.mask.shape[::-1]
    score_of = {}
    for number, map_hw in zip(scored.label_K, scored.map_Khw, strict=True):
        if map_hw.min() == map_hw.max():
            score_of[number] = np.zeros(scored.mask.shape, np.float32)
            continue
        large = cv2.resize(map_hw, size, interpolation=cv2.INTER_LINEAR)
        low, high = large.min(), large.max()
        score_of[number] = (large - low) / (high - low) if high > low else np.zeros_like(large)
    return (score_of if scored.decoded else {}), scored.mask


def counted(scored_images):
    metric = MIoU(CONFIG, num_classes=CLASSES)
    for scored in scored_images:
        metric.update(scored)
    return metric


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_miou_is_brute_force_at_every_threshold(seed):
    scored = [make_scored(seed + k, decoded=k != 1) for k in range(4)]
    metric = counted(scored)
    images = [by_hand(one) for one in scored]
    curve = metric.curves()["miou"]
    for position in range(NUM_THRESHOLDS):
        mean, ious = brute_force.seed_miou(images, position / 100)
        assert curve[position] == pytest.approx(mean, abs=1e-9)
        found = metric.by_class()[position]
        assert {n: float(found[n]) for n in np.flatnonzero(~np.isnan(found)).tolist()} == ious


def test_scores_that_tie_go_to_the_background_and_to_the_lower_class():
    step = np.float32(0.25)
    mask = np.array([[1, 2, 0, 255]], np.uint8)
    maps = np.array([[[1, step, step, 0]], [[0, step, 1, 1]]], np.float32)
    counts = pixel_counts(maps, (0, 1), mask, num_classes=2)
    right, predicted, true = counts
    assert true[0].tolist() == [1, 1, 1]
    assert predicted[24].tolist() == [0, 2, 1]  # above 0.24: the second pixel is of the lower class
    assert predicted[25].tolist() == [1, 1, 1]  # not above 0.25
    assert right[25].tolist() == [0, 1, 0]
    assert (predicted.sum(axis=1) == 3).all()


def test_an_image_without_classes_is_background_and_one_without_its_maps_is_not_counted():
    empty = make_scored(
        1, map_Khw=np.zeros((0, 4, 4), np.float32), label_K=(), mask=np.zeros((3, 3), np.uint8)
    )
    assert counted([empty]).curves()["miou"].tolist() == [100.0] * NUM_THRESHOLDS
    for left_out in ({"map_Khw": None}, {"semantic": False}, {"mask": None}):
        metric = counted([make_scored(1, **left_out)])
        assert not metric.counts.any()
        assert metric.curves() == {}
        assert metric.records(thresholds.oracle()) == []


def test_pxap_leaves_masks_of_many_classes_alone():
    metric = PxAP(CONFIG, num_classes=CLASSES)
    metric.update(make_scored(1))
    assert not metric.counts.any()
    metric.update(make_scored(1, semantic=False))
    assert metric.counts.any()


def test_records_name_the_threshold_and_its_source():
    metric = counted([make_scored(seed) for seed in range(6)])
    curve = metric.curves()["miou"]
    (best,) = metric.records(thresholds.oracle())
    assert (best.name, best.threshold_source, best.value) == ("max_miou", "oracle", curve.max())
    assert best.value == curve[round(best.threshold * 100)]
    assert "of 6 classes" in best.note
    for position in range(NUM_THRESHOLDS):
        _, fixed = metric.records(thresholds.fixed(position / 100))
        assert (fixed.name, fixed.threshold_source) == ("miou", "fixed")
        assert (fixed.threshold, fixed.value) == (position / 100, curve[position])
    assert len(metric.records(thresholds.fixed(0.7))) == 1
    val = thresholds.from_curves(
        {"gt_known": [0.0] * 255, "miou": curve.tolist()}, select="gt_known", origin="v"
    )
    assert metric.records(val)[1].value == best.value
    assert metric.records(val)[1].threshold_source == "val"


def test_counters_add_up_over_ranks():
    scored = [make_scored(seed) for seed in range(7)]
    shares = [counted(scored[rank::3]).counts for rank in range(3)]
    assert np.array_equal(sum(shares), counted(scored).counts)
    assert counted([]).counts.shape == shares[0].shape == (3, NUM_THRESHOLDS, CLASSES + 1)
