"""GT-known, Top-1 and Top-5 localization with the kinds of errors, as TS-CAM and MOLT count them.

The map is enlarged bilinearly in float32, its box ends behind the last pixel, ground-truth boxes are clamped
to the square. Counted at every level, so that a fixed, a transferred and the best threshold need one pass.
"""

from __future__ import annotations

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored, percent
from wsol_dist.metrics.iou import overlap
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.regions.boxes import NUM_LEVELS

ERROR_KINDS = ("right", "classification", "multi_instance", "part", "more", "wrong_place")
"""What became of the Top-1 box, in the order in which the cases are tested."""

_LOCALIZATION = ("gt_known", "top1_loc", "top5_loc")
_COUNTERS = ("images", *_LOCALIZATION, *ERROR_KINDS)


class TopKLoc(Metric):
    """One box an image. Images without boxes are not counted, images that do not decode are missed.

    Top-k: the class is among the k most probable and the box of that class's map, which is the true class's,
    overlaps by more than 0.5.
    """

    name = "topk_loc"

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.strict_gt_known = config.strict_gt_known
        self.top5_says_something = num_classes > 5
        self.counts = np.zeros((len(_COUNTERS), NUM_LEVELS), np.int64)

    def update(self, scored: Scored) -> Row:
        if not scored.has_boxes:
            return {
                "box": None,
                "iou": None,
                "gt_known": None,
                "top1_loc": None,
                "top5_loc": None,
                "error_kind": None,
            }
        iou_L, kind_L = localization_errors(
            scored.topk_boxes.largest_L4,
            scored.gt_boxes(clamp=True),
            class_right=scored.label in scored.top5[:1],
            decoded=scored.decoded,
        )
        above_L = iou_L > 0.5
        hits = {
            "gt_known": above_L if self.strict_gt_known else iou_L >= 0.5,
            "top1_loc": above_L & (scored.label in scored.top5[:1]),
            "top5_loc": above_L & (scored.label in scored.top5),
        }
        self.counts[0] += 1
        self.counts[1:4] += np.stack([hits[name] for name in _LOCALIZATION])
        self.counts[4 + kind_L, np.arange(NUM_LEVELS)] += 1
        kinds = np.array(ERROR_KINDS, object)[kind_L]
        return {
            "box": scored.topk_boxes.largest_L4,
            "iou": iou_L.astype(np.float32),
            **hits,
            "error_kind": kinds,
        }

    def curves(self) -> dict[str, np.ndarray]:
        total = int(self.counts[0, 0])
        if total == 0:
            return {}
        names = [name for name in _COUNTERS[1:] if name != "top5_loc" or self.top5_says_something]
        return {name: percent(self.counts[_COUNTERS.index(name)], total) for name in names}

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        return [
            MetricRecord(
                name=f"error/{name}" if name in ERROR_KINDS else name,
                value=float(curve[threshold.level]),
                protocol=self.name,
                threshold=threshold.value,
                threshold_source=threshold.source,
            )
            for name, curve in self.curves().items()
        ]


def localization_errors(
    boxes_L4: np.ndarray, gt_M4: np.ndarray, *, class_right: bool, decoded: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Each box's best IoU with a ground-truth box, (L,) float64, and its kind, (L,) indices of ERROR_KINDS.

    Tested in order: class wrong; right where IoU > 0.5; several instances where more than 30 % of two or more
    ground-truth boxes is covered; a part where more than half of the box lies in the ground-truth box that it
    overlaps best; more where it covers at least 70 % of it; else the wrong place. Source: TS-CAM.
    """
    both = overlap(boxes_L4, gt_M4)
    iou_LM = both.iou_NM if decoded else np.zeros_like(both.iou_NM)
    best_L = iou_LM.argmax(axis=1)
    rows = np.arange(len(boxes_L4))
    of_gt_LM, of_box_LM = both.inter_NM / both.area_gt_M, both.inter_NM / both.area_N[:, None]
    cases = [
        np.full(len(rows), not class_right),
        iou_LM.max(axis=1) > 0.5,
        (of_gt_LM > 0.3).sum(axis=1) > 1,
        of_box_LM[rows, best_L] > 0.5,
        of_gt_LM[rows, best_L] >= 0.7,
    ]
    order = ["classification", "right", "multi_instance", "part", "more"]
    kind_L = np.select(cases, [ERROR_KINDS.index(name) for name in order], ERROR_KINDS.index("wrong_place"))
    return iou_LM.max(axis=1), kind_L
