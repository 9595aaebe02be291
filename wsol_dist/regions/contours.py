"""The boxes of every level by OpenCV's contours, one level at a time: plain, and the slower way."""

from __future__ import annotations

import cv2
import numpy as np

NUM_LEVELS = 255
"""Distinct thresholds of an 8-bit map: levels 0..254, kept are the pixels above the level."""


def boxes_by_tracing(
    gray_hw: np.ndarray, *, every: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `wsol_dist.regions.components.boxes_by_growing` gives, from contours."""
    levels = _distinct_levels(gray_hw)
    last = np.append(levels[1:], NUM_LEVELS) - 1
    # The extent of what is above a level follows from the maxima of rows and columns; tracing only that part
    # changes neither the contours nor their order.
    row_max, column_max = gray_hw.max(axis=1), gray_hw.max(axis=0)
    largest, every_box = [], []
    for level in levels:
        rows, columns = np.flatnonzero(row_max > level), np.flatnonzero(column_max > level)
        part = gray_hw[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        boxes, best = _trace(part > level, every=every)
        boxes = boxes + np.array([columns[0], rows[0], columns[0], rows[0]])
        largest.append(boxes[best])
        every_box.append(boxes if every else boxes[:0])
    counts = [len(boxes) for boxes in every_box]
    return (
        np.repeat(np.stack(largest), last - levels + 1, axis=0).astype(np.int16),
        np.concatenate(every_box).astype(np.int16),
        np.repeat(levels, counts),
        np.repeat(last, counts),
    )


def _distinct_levels(gray_hw: np.ndarray) -> np.ndarray:
    """The first level of each distinct mask: where no pixel has the level's value, the same pixels lie above it
    as above the level below."""
    changes = np.bincount(gray_hw.ravel(), minlength=NUM_LEVELS + 1)[:NUM_LEVELS] > 0
    changes[0] = True
    return np.flatnonzero(changes)


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
