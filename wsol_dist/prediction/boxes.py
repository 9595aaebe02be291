"""A score map -> the boxes that a person gets: those of the scores' protocol (`topk_loc`), at the image's own size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsol_dist.config.evaluate import Normalise
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.iou import overlap
from wsol_dist.prediction.asked import Which
from wsol_dist.prediction.results import Box
from wsol_dist.regions.boxes import NUM_LEVELS, LevelBoxes, boxes_at_levels

AROUND = 25
"""Levels below and above the threshold's that `stability` looks at: 0.1 of the range."""


@dataclass(frozen=True, kw_only=True)
class BoxRule:
    """How a map becomes boxes."""

    level: int
    """0..254 of the 8-bit map; kept is what lies above."""
    size_px: int
    """Side of the square on which the map is thresholded: the one that scores were made on."""
    normalise: Normalise
    which: Which = "largest"
    """largest: the region of the largest contour, as scored. every: one box for each region, too."""
    min_area: float = 0.01
    """every: regions behind the largest must have this share of the image."""


def find_boxes(map_hw: np.ndarray, size_wh: tuple[int, int], rule: BoxRule) -> tuple[Box, ...]:
    """The boxes of a map, the largest region's first; none of a constant map.

    Args:
        map_hw: (h, w) raw scores over the whole image.
        size_wh: of the image that the boxes are for, in pixels.

    Raises:
        NonFiniteMapError: a value is not finite.
    """
    gray_hw = Scored(
        id="", label=0, prob_C=np.zeros(1), map_hw=map_hw, size_px=rule.size_px, normalise=rule.normalise
    ).topk_gray
    if not gray_hw.any():
        return ()
    levels = boxes_at_levels(gray_hw, clamp=False, no_contour=(0, 0, 1, 1), every=True)
    found = [levels.largest_L4[rule.level]]
    if rule.which == "every":
        found += _others(gray_hw, rule)
    scale = np.array([*size_wh, *size_wh]) / rule.size_px
    return tuple(_box(box, scale, stability(box, levels, rule.level)) for box in found)


def stability(box: np.ndarray, levels: LevelBoxes, level: int) -> float:
    """Mean over the levels around (`AROUND`) of the best IoU that a box of that level has with this one."""
    last = np.array([0, 0, 1, 1])  # `overlap` takes the last pixel, here boxes end behind it
    iou_N = overlap(levels.every_N4 - last, (box - last)[None]).iou_NM[:, 0]
    near = slice(max(0, level - AROUND), min(NUM_LEVELS, level + AROUND + 1))
    return float(levels.best_by_level(iou_N)[near].mean())


def _others(gray_hw: np.ndarray, rule: BoxRule) -> list[np.ndarray]:
    """Outer contours at the level but the largest, by area."""
    mask_hw = (gray_hw > rule.level).view(np.uint8)
    contours, _ = cv2.findContours(mask_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    areas = np.array([cv2.contourArea(contour) for contour in contours])
    order = np.argsort(-areas, kind="stable")[1:]
    least = max(rule.min_area * gray_hw.size, 1.0)
    rects = [cv2.boundingRect(contours[at]) for at in order if areas[at] >= least]
    return [np.array([x, y, x + w, y + h]) for x, y, w, h in rects]


def _box(box: np.ndarray, scale: np.ndarray, stable: float) -> Box:
    x0, y0, x1, y1 = (box * scale).tolist()
    return Box(x0=x0, y0=y0, x1=x1, y1=y1, stability=stable)
