"""The protocols' counters against brute force, on maps of every kind and on boxes made by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import brute_force
from tests.unit.score_maps import KINDS, make_map
from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.errors import UserError
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.centre_box import CentreBox, centred_boxes
from wsol_dist.metrics.classification import Classification
from wsol_dist.metrics.iou import overlap, scale_boxes
from wsol_dist.metrics.max_box_acc import MaxBoxAcc
from wsol_dist.metrics.pxap import EDGES, PxAP, average_precision, score_histograms
from wsol_dist.metrics.registry import METRICS, make_metrics
from wsol_dist.metrics.topk_loc import ERROR_KINDS, TopKLoc, localization_errors
from wsol_dist.validation import validated

SIZE, CLASSES = 32, 8
CONFIG = EvaluateConfig(size_px=SIZE)


def make_images(count, seed):
    """Dicts as brute_force reads them: boxes beyond the frame, none, equal probabilities, broken ones."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        frame = rng.integers(20, 90, 2)
        corners = np.sort(rng.uniform(0, 1.2, (rng.integers(1, 4), 2, 2)), axis=1) * frame
        decoded = rng.random() > 0.1
        images.append(
            {
                "id": f"image-{number}",
                "label": int(rng.integers(CLASSES)),
                "prob": rng.integers(0, 6, CLASSES).astype(np.float32) / 6,
                "map": make_map(str(rng.choice(KINDS)), (8, 8), int(rng.integers(1 << 30))),
                "boxes": None if rng.random() < 0.1 else corners.reshape(-1, 4).round(rng.integers(0, 3)),
                "frame_wh": tuple(frame.tolist()),
                "decoded": bool(decoded),
            }
        )
    return images


def to_scored(image, **more):
    renamed = {"prob": "prob_C", "map": "map_hw", "boxes": "boxes_xyxy", "frame_wh": "box_frame_wh"}
    return Scored(size_px=SIZE, **{renamed.get(key, key): value for key, value in image.items()}, **more)


def scored_by(metric_class, scored_images, config=CONFIG):
    metric = metric_class(config, num_classes=CLASSES)
    for scored in scored_images:
        metric.update(scored)
    return metric


def values(records):
    return {record.name: record.value for record in records}


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_topk_loc_is_brute_force_at_every_threshold(seed):
    images = make_images(6, seed)
    metric = scored_by(TopKLoc, [to_scored(image) for image in images])
    if all(image["boxes"] is None for image in images):
        assert metric.records(thresholds.fixed(0.1)) == []
        return
    by_level = {}
    for threshold in brute_force.THRESHOLDS:
        level = int(threshold * 255)
        if level not in by_level:  # another threshold of a level keeps the same pixels: test_boxes
            by_level[level] = brute_force.topk_loc(images, threshold, SIZE)
        found = values(metric.records(thresholds.fixed(threshold)))
        assert {name.removeprefix("error/"): value for name, value in found.items()} == by_level[level]


def test_max_box_acc_and_v2_are_brute_force_over_a_thousand_thresholds():
    images = make_images(40, 7)
    metric = scored_by(MaxBoxAcc, [to_scored(image) for image in images])
    found = values(metric.records(thresholds.oracle()))
    v1, *v2 = brute_force.max_box_acc(images, SIZE)
    assert found == {
        "max_box_acc": v1,
        "max_box_acc_v2": np.mean(v2),
        **{f"max_box_acc_v2@{delta}": value for delta, value in zip((0.3, 0.5, 0.7), v2, strict=True)},
    }
    assert 0 < v1 < 100
    assert v2[0] >= v2[1] >= v2[2] > 0


@pytest.mark.parametrize("kind", ["smooth", "rings"])
def test_max_box_acc_at_full_size(kind):
    image = {"map": make_map(kind, (14, 14), 1), "boxes": np.array([[30.0, 40, 150, 200]]), "decoded": True}
    image |= {"id": "a", "label": 0, "prob": np.ones(CLASSES, np.float32), "frame_wh": (200, 220)}
    scored = dataclasses.replace(to_scored(image), size_px=224)
    metric = scored_by(MaxBoxAcc, [scored], EvaluateConfig(size_px=224))
    found = values(metric.records(thresholds.oracle()))
    v1, *v2 = brute_force.max_box_acc([image], 224)
    assert [found["max_box_acc"], *(found[f"max_box_acc_v2@{delta}"] for delta in (0.3, 0.5, 0.7))] == [
        v1,
        *v2,
    ]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_pxap_is_brute_force(seed, ties):
    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, 1001, (9, 9)) / 1000 if ties else rng.random((9, 9)) for _ in range(3)]
    masks = [rng.choice(np.array([0, 1, 255], np.uint8), (9, 9)) for _ in range(3)]
    masks[0][0, 0] = 1
    counts = sum(score_histograms(*pair) for pair in zip(scores, masks, strict=True))
    assert average_precision(*counts) == pytest.approx(brute_force.pxap(scores, masks), abs=1e-9)
    metric = PxAP(CONFIG, num_classes=CLASSES)
    metric.counts += counts
    found = values(metric.records(thresholds.oracle()))
    assert found["max_piou"] == brute_force.max_piou(scores, masks)


def test_the_best_piou_may_be_that_of_the_scores_of_1_alone():
    mask = np.zeros((10, 10), np.uint8)
    mask[2:5, 2:5] = 1
    score = np.where(mask == 1, 1.0, 0.9995)
    metric = PxAP(CONFIG, num_classes=CLASSES)
    metric.counts += score_histograms(score, mask)
    best = next(one for one in metric.records(thresholds.oracle()) if one.name == "max_piou")
    assert (best.value, best.threshold) == (100, 1.0) == (brute_force.max_piou([score], [mask]), 1.0)
    # A threshold that is handed on is below 1: there everything is above it.
    assert metric.curves()["piou"].max() == pytest.approx(9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["any", "edges", "beside", "all"]))
def test_score_histograms_are_those_of_numpy(seed, kind):
    rng = np.random.default_rng(seed)
    score = rng.random((30, 30)) if kind == "any" else rng.choice(EDGES[:1001], (30, 30))
    if kind == "beside":
        score = np.nextafter(score, rng.choice([0.0, 1.0], score.shape))
    if kind == "all":
        score = np.concatenate([EDGES[:1001], np.nextafter(EDGES[:1001], 0), np.nextafter(EDGES[:1001], 1)])
    mask = rng.choice(np.array([0, 1, 7, 255], np.uint8), score.shape)
    positives, negatives = score_histograms(score, mask)
    assert np.array_equal(positives, np.histogram(score[mask == 1], EDGES)[0])
    assert np.array_equal(negatives, np.histogram(score[mask == 0], EDGES)[0])


def test_pxap_of_a_perfect_map_of_a_broken_image_and_of_none():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 5:30] = 1
    image = make_images(1, 0)[0] | {"decoded": True, "map": mask.astype(np.float32)}
    perfect = dataclasses.replace(to_scored(image, mask=mask), size_px=40)
    found = values(scored_by(PxAP, [perfect]).records(thresholds.fixed(0.5)))
    assert found == {"pxap": pytest.approx(100), "max_piou": 100.0, "piou": 100.0}
    broken = dataclasses.replace(perfect, decoded=False)
    both = values(scored_by(PxAP, [perfect, broken]).records(thresholds.fixed(0.5)))
    assert both["piou"] == pytest.approx(50)
    assert both["pxap"] == pytest.approx(100 * (0.5 + 0.5 * 250 / 1600))
    assert scored_by(PxAP, [to_scored(image)]).records(thresholds.fixed(0.5)) == []


GT = [20, 20, 59, 59]


@pytest.mark.parametrize(
    ("box", "truths", "class_right", "kind"),
    [
        (GT, [GT], False, "classification"),
        (GT, [GT], True, "right"),
        ([20, 20, 59, 45], [GT], True, "right"),
        ([20, 20, 59, 39], [GT], True, "part"),  # IoU exactly 0.5 is not above it
        ([30, 30, 45, 45], [GT], True, "part"),
        ([0, 0, 99, 99], [GT], True, "more"),
        ([70, 70, 90, 90], [GT], True, "wrong_place"),
        ([40, 40, 99, 99], [GT], True, "wrong_place"),
        ([0, 0, 99, 99], [[10, 10, 40, 40], [60, 60, 90, 90]], True, "multi_instance"),
        ([0, 0, 99, 99], [[10, 10, 40, 40], [150, 150, 190, 190]], True, "more"),
        ([0, 0, 99, 99], [[10, 10, 40, 40], [60, 60, 90, 90]], False, "classification"),
    ],
)
def test_error_kinds(box, truths, class_right, kind):
    _, kinds = localization_errors(np.array([box]), np.array(truths), class_right=class_right)
    assert ERROR_KINDS[kinds[0]] == kind == brute_force.error_kind(box, truths, class_right=class_right)


@settings(max_examples=300, deadline=None)
@given(
    box=st.lists(st.integers(0, 20), min_size=4, max_size=4),
    truths=st.lists(st.lists(st.integers(0, 20), min_size=4, max_size=4), min_size=1, max_size=3),
)
def test_error_kinds_of_any_boxes(box, truths):
    def straight(b):
        return [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]

    box, truths = straight(box), [straight(truth) for truth in truths]
    iou, kinds = localization_errors(np.array([box]), np.array(truths), class_right=True)
    assert iou[0] == max(brute_force.iou(box, truth) for truth in truths)
    assert ERROR_KINDS[kinds[0]] == brute_force.error_kind(box, truths, class_right=True)


def test_an_iou_of_exactly_one_half_is_gt_known_but_not_top1_unless_strict():
    score = np.zeros((SIZE, SIZE), np.float32)
    score[0:15, 0:15] = 1  # its box reaches one pixel behind it: [0, 0, 15, 15], 16 x 16 with both ends
    image = {"id": "a", "label": 0, "prob": np.eye(CLASSES, dtype=np.float32)[0], "map": score}
    image |= {"boxes": np.array([[0.0, 0, 15, 31]]), "frame_wh": (SIZE, SIZE), "decoded": True}
    at = thresholds.fixed(0.5)
    assert values(scored_by(TopKLoc, [to_scored(image)]).records(at))["gt_known"] == 100
    assert values(scored_by(TopKLoc, [to_scored(image)]).records(at))["top1_loc"] == 0
    strict = scored_by(TopKLoc, [to_scored(image)], EvaluateConfig(size_px=SIZE, strict_gt_known=True))
    assert values(strict.records(at))["gt_known"] == 0


def test_counters_of_one_and_of_three_ranks_are_the_same_integers():
    mask = np.ones((5, 5), np.uint8)
    scored = [to_scored(image, mask=mask) for image in make_images(20, 3)]
    segment = np.random.default_rng(5).random((CLASSES + 1, 3, 3), np.float32)
    multi_label = {"mask": mask, "semantic": True, "label_K": (0,), "segment_Chw": segment}
    scored += [to_scored(image, map_Khw=image["map"][None], **multi_label) for image in make_images(5, 4)]
    for metric_class in METRICS:
        alone = scored_by(metric_class, scored).counts
        shares = [scored_by(metric_class, scored[rank::3]).counts for rank in range(3)]
        assert alone.dtype == np.int64
        assert len({share.shape for share in shares} | {alone.shape}) == 1
        assert np.array_equal(sum(shares), alone), metric_class.name
        assert alone.sum() > 0


def test_counters_of_an_empty_rank_have_the_same_shape_and_give_no_numbers():
    for metric in make_metrics(CONFIG, num_classes=CLASSES):
        assert not metric.counts.any()
        assert metric.records(thresholds.oracle()) == []
        assert metric.curves() == {}


def test_broken_images_are_misses_and_stay_in_the_denominator():
    image = make_images(1, 1)[0] | {
        "decoded": False,
        "boxes": np.array([[0.0, 0, 9, 9]]),
        "frame_wh": (10, 10),
    }
    scored = to_scored(image)
    topk = values(scored_by(TopKLoc, [scored]).records(thresholds.fixed(0.0)))
    assert topk["gt_known"] == topk["top1_loc"] == topk["top5_loc"] == 0
    assert topk["error/classification"] == 100
    assert values(scored_by(Classification, [scored]).records(thresholds.oracle())) == {
        "cls_top1": 0,
        "cls_top5": 0,
    }
    assert set(values(scored_by(MaxBoxAcc, [scored]).records(thresholds.oracle())).values()) == {0}
    assert scored_by(CentreBox, [scored]).records(thresholds.oracle())[0].value == 100


def test_images_without_boxes_are_classified_only():
    image = make_images(1, 1)[0] | {
        "boxes": None,
        "decoded": True,
        "prob": np.eye(CLASSES, dtype=np.float32)[2],
    }
    scored = to_scored(image | {"label": 2})
    for metric_class in (TopKLoc, MaxBoxAcc, CentreBox):
        assert scored_by(metric_class, [scored]).records(thresholds.oracle()) == []
    assert values(scored_by(Classification, [scored]).records(thresholds.oracle()))["cls_top1"] == 100


def test_top5_is_left_out_where_there_are_only_five_classes():
    image = make_images(1, 1)[0]
    scored = to_scored(image | {"label": 0, "prob": np.ones(5, np.float32), "boxes": np.ones((1, 4))})
    for metric_class in (TopKLoc, Classification):
        metric = metric_class(CONFIG, num_classes=5)
        metric.update(scored)
        assert not any("top5" in record.name for record in metric.records(thresholds.oracle()))


def test_centre_box_is_brute_force_and_found_exactly():
    images = [image for image in make_images(25, 5) if image["boxes"] is not None]
    metric = scored_by(CentreBox, [to_scored(image) for image in images])
    truths = [
        [
            brute_force.clamped(brute_force.scaled(box, image["frame_wh"], SIZE), SIZE)
            for box in image["boxes"]
        ]
        for image in images
    ]
    assert metric.records(thresholds.oracle())[0].value == brute_force.centre_box(truths, SIZE)
    middle = {"boxes": np.array([[12.0, 8, 19, 23]]), "frame_wh": (SIZE, SIZE)}
    record = scored_by(CentreBox, [to_scored(images[0] | middle)]).records(thresholds.oracle())[0]
    assert (record.value, record.threshold_source) == (100, "oracle")


def test_centred_boxes_end_at_the_whole_square():
    boxes = centred_boxes(224)
    assert boxes[-1].tolist() == [0, 0, 223, 223]
    assert boxes.shape == (400, 4)
    assert (boxes[:, :2] <= boxes[:, 2:]).all()


def test_ground_truth_is_truncated_and_clamped_where_the_protocol_says_so():
    boxes = np.array([[0.9, 1.5, 500.0, 375.0]])
    assert scale_boxes(boxes, (500, 375), size_px=224).tolist() == [[0, 0, 224, 224]]
    assert scale_boxes(boxes, (500, 375), size_px=224, clamp=True).tolist() == [[0, 0, 223, 223]]
    assert scale_boxes(np.array([[20, 175, 111, 292]]), (500, 375), size_px=224).tolist() == [
        [8, 104, 49, 174]
    ]


def test_iou_counts_both_edge_pixels():
    both = overlap(np.array([[0, 0, 9, 9], [0, 0, 0, 0]]), np.array([[5, 0, 14, 9], [20, 20, 30, 30]]))
    assert both.iou_NM.tolist() == [[50 / 150, 0.0], [0.0, 0.0]]


def test_the_best_level_is_the_middle_of_the_longest_plateau():
    curve = np.zeros(255)
    curve[[3, 50, 51, 52, 53, 200]] = 7
    assert thresholds.best_position(curve) == 51
    assert thresholds.best_position(np.zeros(255)) == 127
    assert thresholds.best_position(np.array([5, 1, 1])) == 0
    assert thresholds.best_position(np.array([1, 1, 5, 5])) == 2


def test_a_val_threshold_gives_every_curve_its_own_best_place():
    curves = {"gt_known": [0.0] * 255, "max_box_acc": [0.0] * 255}
    curves["gt_known"][77], curves["max_box_acc"][100] = 50.0, 40.0
    threshold = thresholds.from_curves(curves, select="gt_known", origin="eval/val-step-00000001.json")
    assert (threshold.source, threshold.level, threshold.value) == ("val", 77, 0.302)
    assert threshold.position("max_box_acc", fixed=0) == 100
    assert threshold.position("piou", fixed=0) is None
    with pytest.raises(ValueError, match="no curve 'top1_loc'"):
        thresholds.from_curves(curves, select="top1_loc", origin="x")


def test_oracle_records_are_named_so_and_transferred_ones_stand_beside_them():
    scored = [to_scored(image) for image in make_images(12, 9)]
    metric = scored_by(MaxBoxAcc, scored)
    fixed = {record.name: record for record in metric.records(thresholds.fixed(0.3))}
    assert fixed["max_box_acc"].threshold_source == fixed["max_box_acc_v2"].threshold_source == "oracle"
    assert (fixed["box_acc"].threshold_source, fixed["box_acc"].threshold) == ("fixed", 0.3)
    assert fixed["box_acc"].value == metric.curves()["max_box_acc"][76] <= fixed["max_box_acc"].value
    curves = {name: curve.tolist() for name, curve in metric.curves().items()} | {"gt_known": [1.0] * 255}
    val = thresholds.from_curves(curves, select="gt_known", origin="val")
    transferred = {record.name: record for record in metric.records(val)}
    assert transferred["box_acc"].value == transferred["max_box_acc"].value
    assert transferred["box_acc_v2"].value == transferred["max_box_acc_v2"].value
    assert transferred["box_acc"].threshold_source == "val"


@pytest.mark.parametrize(
    ("knob", "value", "allowed"),
    [
        ("threshold", 1.0, "from 0 to below 1"),
        ("threshold", -0.1, "from 0 to below 1"),
        ("size_px", 1, "2 or more"),
        ("batch_size", 0, "1 or more"),
        ("workers", -1, "0 or more"),
        ("cases", -1, "0 or more"),
    ],
)
def test_config_is_checked(knob, value, allowed):
    with pytest.raises(UserError, match=f"^{knob}: given {value}; allowed: {allowed}$"):
        validated(EvaluateConfig, {knob: value})


def test_an_oracle_is_resolved_by_the_chosen_curve():
    curve = np.zeros(255)
    curve[77] = 1
    resolved = thresholds.oracle().resolved({"gt_known": curve}, select="gt_known", otherwise=0.12)
    assert (resolved.source, resolved.level, resolved.value) == ("oracle", 77, 0.302)
    without = thresholds.oracle().resolved({}, select="gt_known", otherwise=0.12)
    assert (without.level, without.value, without.source) == (30, 0.12, "fixed")  # nothing was chosen
    assert thresholds.fixed(0.3).resolved({"gt_known": curve}, select="gt_known", otherwise=0.12).level == 76


def test_boxes_without_a_frame_name_the_image():
    image = make_images(1, 1)[0] | {"boxes": np.ones((1, 4)), "frame_wh": None}
    with pytest.raises(UserError, match="image-0: boxes without the size"):
        to_scored(image).gt_boxes(clamp=True)
