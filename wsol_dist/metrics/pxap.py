"""PxAP and pIoU: how well scores separate object pixels from background, over all pixels of a split."""

from __future__ import annotations

import cv2
import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored
from wsol_dist.metrics.threshold import Threshold, ThresholdSource, best_position

EDGES = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
"""Bin edges, as wsolevaluation has them: a score of exactly 1 gets a bin of its own."""

_NUM_BINS = len(EDGES) - 1
_NUM_THRESHOLDS = 1000

_PART = np.full(256, 2 * _NUM_BINS, np.int32)
_PART[1], _PART[0] = 0, _NUM_BINS
"""Where a mask value's histogram begins: object, background, and what is left out."""


class PxAP(Metric):
    """Histograms of the scores at positive and at negative pixels, where the mask is of one object. An image that
    does not decode has score 0 everywhere: its object pixels are found only where everything is called object."""

    name = "pxap"

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.counts = np.zeros((2, _NUM_BINS), np.int64)

    def update(self, scored: Scored) -> Row:
        if scored.mask is None or scored.semantic:
            return {}
        size = (scored.size_px, scored.size_px)
        mask = cv2.resize(scored.mask, size, interpolation=cv2.INTER_NEAREST)
        self.counts += score_histograms(scored.bicubic_map, mask)
        return {}

    def curves(self) -> dict[str, np.ndarray]:
        """pIoU by threshold 0, 0.001, ... 0.999: those that a split may hand on, all below 1."""
        positives, negatives = self.counts
        return {"piou": pixel_iou(positives, negatives)[:_NUM_THRESHOLDS]} if positives.sum() > 0 else {}

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        if self.counts[0].sum() == 0:
            return []
        ap = MetricRecord(name="pxap", value=average_precision(*self.counts), protocol=self.name)
        # The best of all bins: that of the scores of exactly 1 too, which no threshold below 1 selects alone.
        piou = pixel_iou(*self.counts)
        best = best_position(piou)
        records = [ap, _piou("max_piou", value=piou[best], position=best, source="oracle")]
        position = threshold.position("piou", fixed=int(threshold.value * _NUM_THRESHOLDS))
        if position is not None:
            records.append(_piou("piou", value=piou[position], position=position, source=threshold.source))
        return records


def score_histograms(score_hw: np.ndarray, mask_hw: np.ndarray) -> np.ndarray:
    """Numbers of positive and of negative pixels by score bin: (2, 1002) int64.

    Args:
        score_hw: float64 in 0..1.
        mask_hw: uint8 of the same size: 0 background, 1 object; anything else is left out.
    """
    # The bin of the product is the right one or, by its rounding, one beside it: far faster than a search. Edges
    # are written as np.arange makes them; no score lies above 1.
    score_N = score_hw.ravel()
    bin_N = (score_N * _NUM_THRESHOLDS).astype(np.int32)
    bin_N -= score_N < bin_N * 0.001
    bin_N += score_N >= (bin_N + 1) * 0.001
    bin_N += _PART.take(mask_hw.ravel())
    return np.bincount(bin_N, minlength=3 * _NUM_BINS).reshape(3, _NUM_BINS)[:2]


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Area under precision over recall, in percent: the sum of precision times the gain in recall, from the
    highest bin down. The highest bin itself adds nothing; no score reaches it."""
    true, false = positives[::-1].cumsum(), negatives[::-1].cumsum()
    precision = true / np.maximum(true + false, 1)
    recall = true / true[-1]
    return float((precision[1:] * np.diff(recall)).sum() * 100)


def pixel_iou(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Intersection over union of the object and the pixels at or above each bin's left edge, in percent."""
    true, false = positives[::-1].cumsum()[::-1], negatives[::-1].cumsum()[::-1]
    return true * 100.0 / (positives.sum() + false)


def _piou(name: str, *, value: float, position: int, source: ThresholdSource) -> MetricRecord:
    return MetricRecord(
        name=name,
        value=float(value),
        protocol=PxAP.name,
        threshold=position / _NUM_THRESHOLDS,
        threshold_source=source,
    )
