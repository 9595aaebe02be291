"""A score map -> its boxes at every threshold level.

A map becomes 8 bits before it is thresholded, so of all thresholds t in [0, 1) only 255 differ: level
L = int(255 t) keeps the pixels above L. Every box the protocols could ask for is computed once per level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

NUM_LEVELS = 255
"""Distinct thresholds of an 8-bit map: levels 0..254, kept are the pixels above the level."""

Interpolation = Literal["bilinear", "bicubic"]
_CV2_MODE = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


class NonFiniteMapError(ValueError):
    """A score map that cannot be thresholded: the weights are broken, not the code that counts."""


@dataclass(frozen=True, kw_only=True)
class LevelBoxes:
    """Boxes of one map, [x, y, x + w, y + h] in pixels of the resized map."""

    largest_L4: np.ndarray
    """(255, 4) int16: the box of the contour with the largest area, by level."""
    every_N4: np.ndarray
    """(N, 4) int16: the boxes of all contours, holes too, of all distinct masks; empty if not asked for."""
    mask_of_box_N: np.ndarray
    """(N,) int64: the distinct mask each of them belongs to."""
    mask_of_level_L: np.ndarray
    """(255,) int64: the distinct mask of each level; levels without a pixel of their value share one."""

    def best_by_level(self, score_N: np.ndarray) -> np.ndarray:
        """The highest score (float, one a box, at least 0) of each level's boxes: (255,) float64."""
        best = np.zeros(int(self.mask_of_level_L[-1]) + 1)
        np.maximum.at(best, self.mask_of_box_N, score_N)
        return best[self.mask_of_level_L]


def level_of(threshold: float) -> int:
    """The level of a threshold in [0, 1)."""
    return int(threshold * 255)


def threshold_of(level: int) -> float:
    """The lowest threshold on the field's grid of 0.001 that has this level."""
    return -(-level * 1000 // 255) / 1000


def resize_map(map_hw: np.ndarray, size_px: int, mode: Interpolation) -> np.ndarray:
    """The map on a square grid, in the dtype given (float32 or float64).

    OpenCV resizes here because the reference evaluators do. `torch.nn.functional.interpolate` gives the same
    8-bit map in float64 from a 14 x 14 grid to 224, but not at every ratio: OpenCV's weights are float32.
    A constant map stays exactly constant, where rounding would make a pattern of it.
    """
    if map_hw.min() == map_hw.max():
        return np.full((size_px, size_px), map_hw.flat[0], map_hw.dtype)
    return cv2.resize(np.ascontiguousarray(map_hw), (size_px, size_px), interpolation=_CV2_MODE[mode])


def normalise(map_hw: np.ndarray) -> np.ndarray:
    """Min-max to 0..1 in the dtype given; a constant map becomes zeros.

    Raises:
        NonFiniteMapError: a value or the range of values is not finite.
    """
    low, high = map_hw.min(), map_hw.max()
    with np.errstate(over="ignore", invalid="ignore"):
        span = high - low
    if not np.isfinite(span):
        raise NonFiniteMapError("the score map holds NaN or infinite values")
    return np.zeros_like(map_hw) if span == 0 else (map_hw - low) / span


def to_uint8(unit_map_hw: np.ndarray) -> np.ndarray:
    """A map in 0..1 -> 0..255, truncated."""
    return (unit_map_hw * 255).astype(np.uint8)


def boxes_at_levels(
    gray_hw: np.ndarray, *, clamp: bool, no_contour: tuple[int, int, int, int], every: bool = False
) -> LevelBoxes:
    """The boxes of an 8-bit map at every level.

    Args:
        gray_hw: (h, w) uint8 whose maximum is 255, or all zeros.
        clamp: end boxes at the last pixel, w - 1 and h - 1, instead of behind it.
        no_contour: the box where nothing is above the level (only in a map of zeros).
        every: the boxes of all contours too, not only of the largest.
    """
    assert gray_hw.dtype == np.uint8
    assert gray_hw.max() in (0, 255)
    mask_of_level_L, levels = _distinct_levels(gray_hw)
    # The extent of what is above a level follows from the maxima of rows and columns; tracing only that part
    # changes neither the contours nor their order.
    row_max, column_max = gray_hw.max(axis=1), gray_hw.max(axis=0)
    largest, every_box, owner = [], [], []
    for number, level in enumerate(levels):
        rows, columns = np.flatnonzero(row_max > level), np.flatnonzero(column_max > level)
        if len(rows) == 0:
            boxes, best = np.array([no_contour]), 0
        else:
            part = gray_hw[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            boxes, best = _trace(part > level, every=every)
            boxes = boxes + np.array([columns[0], rows[0], columns[0], rows[0]])
        largest.append(boxes[best])
        if every:
            every_box.append(boxes)
            owner.append(np.full(len(boxes), number))
    height, width = gray_hw.shape
    limit = np.array([width - 1, height - 1]) if clamp else np.array([width, height])
    return LevelBoxes(
        largest_L4=_end_at(np.stack(largest), limit)[mask_of_level_L],
        every_N4=_end_at(np.concatenate(every_box), limit) if every else np.zeros((0, 4), np.int16),
        mask_of_box_N=np.concatenate(owner) if every else np.zeros(0, np.int64),
        mask_of_level_L=mask_of_level_L,
    )


def _distinct_levels(gray_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(255,) the distinct mask's number by level, and the first level of each: where no pixel has the level's
    value, the same pixels lie above it as above the level below."""
    changes = np.bincount(gray_hw.ravel(), minlength=NUM_LEVELS + 1)[:NUM_LEVELS] > 0
    changes[0] = True
    return np.cumsum(changes) - 1, np.flatnonzero(changes)


def _trace(mask_hw: np.ndarray, *, every: bool) -> tuple[np.ndarray, int]:
    """The boxes (n, 4) of the contours of a mask that is not empty, and which of them is the largest by area.

    With `every` false only the largest is returned. On equal areas OpenCV's first wins, as in the reference.
    """
    contours, _ = cv2.findContours(mask_hw.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    best = 0
    if len(contours) > 1:
        best = int(np.argmax([cv2.contourArea(contour) for contour in contours]))
    if not every:
        contours, best = (contours[best],), 0
    boxes = np.array([cv2.boundingRect(contour) for contour in contours])
    boxes[:, 2:] += boxes[:, :2]
    return boxes, best


def _end_at(boxes_N4: np.ndarray, limit_xy: np.ndarray) -> np.ndarray:
    boxes_N4[:, 2:] = np.minimum(boxes_N4[:, 2:], limit_xy)
    return boxes_N4.astype(np.int16)
