"""Overlap of boxes as the protocols count it: both edge pixels belong to a box, its width is x1 - x0 + 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Overlaps of N boxes with M ground-truth boxes."""

    inter_NM: np.ndarray
    """(N, M) int64, in pixels."""
    area_N: np.ndarray
    area_gt_M: np.ndarray

    @property
    def iou_NM(self) -> np.ndarray:
        """Intersection over union, float64."""
        return self.inter_NM / (self.area_N[:, None] + self.area_gt_M - self.inter_NM)


def overlap(boxes_N4: np.ndarray, gt_M4: np.ndarray) -> Overlap:
    """Overlaps of integer boxes x0, y0, x1, y1 with both ends included; x1 >= x0 and y1 >= y0."""
    boxes, gt = boxes_N4.astype(np.int64), gt_M4.astype(np.int64)
    low = np.maximum(boxes[:, None, :2], gt[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], gt[None, :, 2:])
    inter_NM = np.maximum(high - low + 1, 0).prod(axis=2)
    return Overlap(inter_NM=inter_NM, area_N=_area(boxes), area_gt_M=_area(gt))


def scale_boxes(
    boxes_xyxy: np.ndarray, frame_wh: tuple[int, int], *, size_px: int, clamp: bool = False
) -> np.ndarray:
    """Ground-truth boxes in the square frame of the maps: (M, 4) int64, truncated towards zero.

    Args:
        boxes_xyxy: (M, 4), the data set's own numbers.
        frame_wh: width and height of the image in which they are given.
        size_px: side of the square.
        clamp: move corners outside of the square to its border, 0 and size_px - 1.
    """
    # Multiply first, then divide: another order of rounding changes what int() cuts off.
    scaled = boxes_xyxy.astype(np.float64) * size_px / np.array([*frame_wh, *frame_wh], np.float64)
    boxes = scaled.astype(np.int64)
    return boxes.clip(0, size_px - 1) if clamp else boxes


def _area(boxes_N4: np.ndarray) -> np.ndarray:
    return (boxes_N4[:, 2:] - boxes_N4[:, :2] + 1).prod(axis=1)
