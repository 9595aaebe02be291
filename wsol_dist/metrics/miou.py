"""mIoU of multi-label score maps against the class of every pixel, at every background threshold."""

from __future__ import annotations

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored
from wsol_dist.metrics.threshold import Threshold, ThresholdSource, best_position
from wsol_dist.regions.boxes import normalise, resize_map

NUM_THRESHOLDS = 60
THRESHOLDS = (np.arange(NUM_THRESHOLDS) / 100).astype(np.float32)
"""Background scores 0, 0.01, ... 0.59, as public code of class-specific tokens (MCTformer+) tries them; all of them,
where that stops at the first that gains nothing."""

IGNORE = 255
RIGHT, PREDICTED, TRUTH = range(3)
"""What is counted of each class."""


class MIoU(Metric):
    """Pixels of each class by background threshold, over the whole split: right, predicted, true.

    A class's map is enlarged to the mask's size (bilinear, float32) and scaled to 0..1 by its own range. A pixel is
    of the class with the highest score, the lower number of equals, and of the background unless that is above the
    threshold. Only the image's own classes take part. mIoU is the mean over the background and all classes that
    occur, in the truth or in a prediction.

    Counts where `Scored.map_Khw` holds a map for each class of the image and `mask` is `semantic`: 0 background,
    class + 1, 255 not counted. An image that does not decode is background everywhere.
    """

    name = "miou"

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.counts = np.zeros((3, NUM_THRESHOLDS, num_classes + 1), np.int64)

    def update(self, scored: Scored) -> Row:
        if scored.mask is None or not scored.semantic or scored.map_Khw is None:
            return {}
        maps, label_K = (scored.map_Khw, scored.label_K) if scored.decoded else (scored.map_Khw[:0], ())
        self.counts += pixel_counts(maps, label_K, scored.mask, num_classes=self.counts.shape[2] - 1)
        return {}

    def curves(self) -> dict[str, np.ndarray]:
        """mIoU in percent by background threshold 0, 0.01, ... 0.59."""
        if not self.counts.any():
            return {}
        return {self.name: np.nanmean(self.by_class(), axis=1)}

    def by_class(self) -> np.ndarray:
        """IoU in percent by threshold and class, the background first: (60, C + 1), NaN where a class never occurs."""
        return class_iou(self.counts)

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        curve = self.curves().get(self.name)
        if curve is None:
            return []
        records = [self._record(f"max_{self.name}", curve, best_position(curve), "oracle")]
        position = self._position(threshold)
        if position is not None:
            records.append(self._record(self.name, curve, position, threshold.source))
        return records

    def by_class_values(self, threshold: Threshold) -> dict[str, np.ndarray]:
        curve = self.curves().get(self.name)
        if curve is None:
            return {}
        position = self._position(threshold)
        if position is not None:
            return {self.name: self.by_class()[position]}
        return {f"max_{self.name}": self.by_class()[best_position(curve)]}

    def _position(self, threshold: Threshold) -> int | None:
        """Where the threshold lies on the curve; None for an oracle, and where it has no place there."""
        # A threshold of 0.29 is not to become 28.
        position = threshold.position(self.name, fixed=int(threshold.value * 100 + 1e-9))
        return position if position is not None and position < NUM_THRESHOLDS else None

    def _record(self, name: str, curve: np.ndarray, position: int, source: ThresholdSource) -> MetricRecord:
        present = int((~np.isnan(self.by_class()[position])).sum())
        return MetricRecord(
            name=name,
            value=float(curve[position]),
            protocol=self.name,
            threshold=position / 100,
            threshold_source=source,
            note=f"the mean over {present} of {self.counts.shape[2]} classes, the background among them",
        )


def class_iou(counts: np.ndarray) -> np.ndarray:
    """IoU in percent of counts (right, predicted, true), (3, ..., C + 1) int64; NaN where a class never occurs."""
    union = counts[PREDICTED] + counts[TRUTH] - counts[RIGHT]
    return np.where(union > 0, 100.0 * counts[RIGHT] / np.maximum(union, 1), np.nan)


def pixel_counts(
    map_Khw: np.ndarray, label_K: tuple[int, ...], mask_HW: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Right, predicted and true pixels of one image: (3, 60, C + 1) int64, by threshold and class, background first.

    Args:
        map_Khw: (K, h, w) raw scores of the image's classes; K may be 0.
        label_K: those classes, ascending.
        mask_HW: uint8: 0 background, class + 1, 255 not counted.

    Raises:
        NonFiniteMapError: a map holds NaN or infinite values.
    """
    assert len(map_Khw) == len(label_K)
    counts = np.zeros((3, NUM_THRESHOLDS, num_classes + 1), np.int64)
    counted = mask_HW != IGNORE
    truth_N = mask_HW[counted].astype(np.int64)
    counts[TRUTH] = np.bincount(truth_N, minlength=num_classes + 1)
    counts[PREDICTED, :, 0], counts[RIGHT, :, 0] = len(truth_N), counts[TRUTH, :, 0]
    if len(label_K) == 0:
        return counts
    height, width = mask_HW.shape
    score_KN = np.stack([_scaled(map_hw, (height, width))[counted] for map_hw in map_Khw])
    place_N, label_N = score_KN.argmax(axis=0), np.array(label_K) + 1
    # Of a class from threshold 0 up to the last one below the score.
    below_N = np.searchsorted(THRESHOLDS, score_KN.max(axis=0), side="left")
    # What it truly is, as seen from the class: another one, this one, background.
    kind_N = (truth_N == label_N[place_N]) + 2 * (truth_N == 0)
    code_N = (place_N * 3 + kind_N) * (NUM_THRESHOLDS + 1) + below_N
    shape = (len(label_K), 3, NUM_THRESHOLDS + 1)
    seen = np.bincount(code_N, minlength=int(np.prod(shape))).reshape(shape)
    claimed = seen[:, :, ::-1].cumsum(axis=2)[:, :, ::-1][:, :, 1:]
    counts[RIGHT][:, label_N], counts[PREDICTED][:, label_N] = claimed[:, 1].T, claimed.sum(axis=1).T
    counts[PREDICTED, :, 0] -= claimed.sum(axis=(0, 1))
    counts[RIGHT, :, 0] -= claimed[:, 2].sum(axis=0)
    return counts


def _scaled(map_hw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return normalise(resize_map(map_hw.astype(np.float32), size, "bilinear"))
