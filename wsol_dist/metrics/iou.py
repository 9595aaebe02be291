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
        inter_MN = self.inter_NM.T
        return (inter_MN / (self.area_gt_M[:, None] + self.area_N - inter_MN)).T


def overlap(boxes_N4: np.ndarray, gt_M4: np.ndarray) -> Overlap:
    """Overlaps of integer boxes x0, y0, x1, y1 with both ends included; x1 >= x0 and y1 >= y0."""
    # Boxes along the last axis: there are thousands of them, and few ground-truth boxes.
    boxes_4N, gt_4M = np.ascontiguousarray(boxes_N4.T, np.int64), np.ascontiguousarray(gt_M4.T, np.int64)
    x0, y0, x1, y1 = boxes_4N
    gt_x0, gt_y0, gt_x1, gt_y1 = gt_4M[:, :, None]
    width_MN = np.minimum(x1, gt_x1) - np.maximum(x0, gt_x0) + 1
    height_MN = np.minimum(y1, gt_y1) - np.maximum(y0, gt_y0) + 1
    inter_MN = np.maximum(width_MN, 0) * np.maximum(height_MN, 0)
    return Overlap(inter_NM=inter_MN.T, area_N=_area(boxes_4N), area_gt_M=_area(gt_4M))


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


def _area(boxes_4N: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = boxes_4N
    return (x1 - x0 + 1) * (y1 - y0 + 1)
