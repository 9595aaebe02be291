"""The score of one constant box in the middle of every image: what any method must beat."""

from __future__ import annotations

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored, percent
from wsol_dist.metrics.iou import overlap
from wsol_dist.metrics.threshold import Threshold

FRACTIONS = tuple(step / 20 for step in range(1, 21))
"""Tried widths and heights, as parts of the square's side."""


class CentreBox(Metric):
    """GT-known of the best constant centred box, chosen on the scored split (`oracle`): the hardest rival.

    Needs no image, so images that do not decode count like any other. Same IoU and same ground-truth boxes as
    `topk_loc`.
    """

    name = "centre_box"

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.strict_gt_known = config.strict_gt_known
        self.boxes_N4 = centred_boxes(config.size_px)
        self.counts = np.zeros(1 + len(self.boxes_N4), np.int64)
        """Images, then the hits of each box."""

    def update(self, scored: Scored) -> Row:
        if scored.has_boxes:
            iou_N = overlap(self.boxes_N4, scored.gt_boxes(clamp=True)).iou_NM.max(axis=1)
            self.counts[0] += 1
            self.counts[1:] += iou_N > 0.5 if self.strict_gt_known else iou_N >= 0.5
        return {}

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        total, hits = int(self.counts[0]), self.counts[1:]
        if total == 0:
            return []
        best = int(hits.argmax())
        width, height = FRACTIONS[best // len(FRACTIONS)], FRACTIONS[best % len(FRACTIONS)]
        return [
            MetricRecord(
                name=self.name,
                value=float(percent(hits, total)[best]),
                protocol=self.name,
                threshold_source="oracle",
                note=f"the best constant box: {width:.0%} of the width, {height:.0%} of the height",
            )
        ]


def centred_boxes(size_px: int) -> np.ndarray:
    """All centred boxes, widths outermost: (400, 4) int64 x0, y0, x1, y1 with both ends included."""
    side = np.maximum(np.round(np.array(FRACTIONS) * size_px).astype(np.int64), 1)
    start = (size_px - side) // 2
    width, height = np.repeat(np.arange(len(side)), len(side)), np.tile(np.arange(len(side)), len(side))
    low = np.stack([start[width], start[height]], axis=1)
    return np.concatenate([low, low + np.stack([side[width], side[height]], axis=1) - 1], axis=1)
