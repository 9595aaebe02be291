"""The mIoU of one constant box in the middle of every image: what maps of several classes must beat."""

from __future__ import annotations

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored
from wsol_dist.metrics.miou import IGNORE, PREDICTED, RIGHT, TRUTH, class_iou
from wsol_dist.metrics.threshold import Threshold

FRACTIONS = tuple(step / 20 for step in range(21))
"""Tried sides, as parts of the image's: from background everywhere to no background at all."""


class CentreMIoU(Metric):
    """mIoU where every image is background but for a centred box, cut in columns of equal width for the image's own
    classes in their order. The best box of the scored split (`oracle`); needs no image. Counted like `miou`.
    """

    name = "centre_miou"

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.counts = np.zeros((3, len(FRACTIONS), num_classes + 1), np.int64)

    def update(self, scored: Scored) -> Row:
        if scored.mask is None or not scored.semantic or scored.map_Khw is None:
            return {}
        bins = self.counts.shape[2]
        counted = scored.mask != IGNORE
        truth_N = scored.mask[counted].astype(np.int64)
        for place, fraction in enumerate(FRACTIONS):
            guess_N = columns_in_box(scored.mask.shape, scored.label_K, fraction)[counted]
            self.counts[PREDICTED, place] += np.bincount(guess_N, minlength=bins)
            self.counts[TRUTH, place] += np.bincount(truth_N, minlength=bins)
            self.counts[RIGHT, place] += np.bincount(truth_N[guess_N == truth_N], minlength=bins)
        return {}

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        if not self.counts.any():
            return []
        curve = np.nanmean(class_iou(self.counts), axis=1)
        best = int(curve.argmax())
        note = (
            f"the best constant box: {FRACTIONS[best]:.0%} of either side, in columns of the image's classes"
        )
        return [
            MetricRecord(
                name=self.name,
                value=float(curve[best]),
                protocol=self.name,
                threshold_source="oracle",
                note=note,
            )
        ]


def columns_in_box(shape_hw: tuple[int, ...], label_K: tuple[int, ...], fraction: float) -> np.ndarray:
    """The constant prediction of an image: (H, W) int64, 0 background, class + 1."""
    height, width = shape_hw
    guess_HW = np.zeros((height, width), np.int64)
    box_h, box_w = round(height * fraction), round(width * fraction)
    top, left = (height - box_h) // 2, (width - box_w) // 2
    if label_K:
        column_W = np.array(label_K)[np.arange(box_w) * len(label_K) // max(box_w, 1)] + 1
        guess_HW[top : top + box_h, left : left + box_w] = column_W
    return guess_HW
