"""mIoU of label maps: of methods that say the class of every pixel themselves, without a threshold or a label."""

from __future__ import annotations

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored
from wsol_dist.metrics.miou import IGNORE, PREDICTED, RIGHT, TRUTH, class_iou
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.regions.boxes import resize_map


class SegMIoU(Metric):
    """The field's segmentation mIoU: the highest of the background's and all classes' probabilities at each pixel.

    Probabilities are enlarged to the mask's size (bilinear, float32); of equals the lower number wins, the background
    first. Nobody says which classes an image has. Counted over the whole split like `miou`; an image that does not
    decode is background everywhere. Counts where `Scored.segment_Chw` is there and the mask is `semantic`.
    """

    name = "seg_miou"

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.counts = np.zeros((3, num_classes + 1), np.int64)

    def update(self, scored: Scored) -> Row:
        if scored.mask is None or not scored.semantic or scored.segment_Chw is None:
            return {}
        if scored.decoded:
            label_HW = argmax_at(scored.segment_Chw, scored.mask.shape)
        else:
            label_HW = np.zeros(scored.mask.shape, np.uint8)
        self.counts += confusion(label_HW, scored.mask, num_classes=self.counts.shape[1] - 1)
        return {}

    def by_class_values(self, threshold: Threshold) -> dict[str, np.ndarray]:
        return {self.name: class_iou(self.counts)} if self.counts.any() else {}

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        return [miou_record(self.name, self.counts)] if self.counts.any() else []


def miou_record(name: str, counts: np.ndarray, *, note: str = "") -> MetricRecord:
    """The mean IoU of counts of `confusion`, and how many classes it is over."""
    iou_C = class_iou(counts)
    over = f"the mean over {int((~np.isnan(iou_C)).sum())} of {len(iou_C)} classes, the background among them"
    return MetricRecord(
        name=name,
        value=float(np.nanmean(iou_C)),
        protocol=SegMIoU.name,
        note=f"argmax over all classes; {over}{note}",
    )


def confusion(label_HW: np.ndarray, mask_HW: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Right, predicted and true pixels by class, background first: (3, C + 1) int64.

    Args:
        label_HW: what was said: 0 background, class + 1; 255 nothing, which is not counted.
        mask_HW: the truth: the same, 255 not counted.
    """
    counted = (mask_HW != IGNORE) & (label_HW != IGNORE)
    said_N, truth_N = label_HW[counted].astype(np.int64), mask_HW[counted].astype(np.int64)
    counts = np.zeros((3, num_classes + 1), np.int64)
    counts[PREDICTED] = np.bincount(said_N, minlength=num_classes + 1)
    counts[TRUTH] = np.bincount(truth_N, minlength=num_classes + 1)
    counts[RIGHT] = np.bincount(truth_N[said_N == truth_N], minlength=num_classes + 1)
    return counts


def argmax_at(prob_Chw: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """The number of the highest map at each pixel of a size, the lowest of equals: (H, W) int64."""
    size = (size_hw[0], size_hw[1])
    best_HW = resize_map(prob_Chw[0], size, "bilinear")
    label_HW = np.zeros(size, np.int64)
    for number, map_hw in enumerate(
        prob_Chw[1:], start=1
    ):  # one at a time: all of COCO would be 100 MB an image
        map_HW = resize_map(map_hw, size, "bilinear")
        above = map_HW > best_HW
        best_HW[above], label_HW[above] = map_HW[above], number
    return label_HW
