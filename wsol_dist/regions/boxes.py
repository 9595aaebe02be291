"""A score map -> its boxes at every threshold level.

A map becomes 8 bits before it is thresholded, so of all thresholds t in [0, 1) only 255 differ: level
L = int(255 t) keeps the pixels above L. Every box the protocols could ask for is computed once for all levels:
by `wsol_dist.regions.components` where numba works, else by `wsol_dist.regions.contours`, with the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from wsol_dist.regions.compiled import load
from wsol_dist.regions.contours import NUM_LEVELS, boxes_by_tracing

Interpolation = Literal["bilinear", "bicubic"]
_POWER = np.array([0] + [length.bit_length() - 1 for length in range(1, NUM_LEVELS + 1)])
"""The largest power of 2 in a number of levels."""
_CV2_MODE = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


class NonFiniteMapError(ValueError):
    """A score map that cannot be thresholded: the weights are broken, not the code that counts."""


@dataclass(frozen=True, kw_only=True)
class LevelBoxes:
    """Boxes of one map, [x, y, x + w, y + h] in pixels of the resized map."""

    largest_L4: np.ndarray
    """(255, 4) int16: the box of the contour with the largest area, by level."""
    every_N4: np.ndarray
    """(N, 4) int16: the boxes of the contours of all levels, holes too; empty if not asked for."""
    first_N: np.ndarray
    """(N,) int64: the first level on which each of them is there."""
    last_N: np.ndarray
    """(N,) int64: the last."""

    def best_by_level(self, score_N: np.ndarray) -> np.ndarray:
        """The highest score (one a box, at least 0) of each level's boxes: (255,) float64."""
        # best[k, l]: of the boxes noted for levels l .. l + 2^k - 1. Two such runs make any length.
        longest = NUM_LEVELS.bit_length() - 1
        best = np.zeros((longest + 1, NUM_LEVELS))
        power_N = _POWER[self.last_N - self.first_N + 1]
        for start_N in (self.first_N, self.last_N - (1 << power_N) + 1):
            np.maximum.at(best.ravel(), power_N * NUM_LEVELS + start_N, score_N)
        for power in range(longest, 0, -1):
            half = 1 << (power - 1)
            np.maximum(best[power - 1], best[power], out=best[power - 1])
            np.maximum(best[power - 1, half:], best[power, :-half], out=best[power - 1, half:])
        return best[0]


def level_of(threshold: float) -> int:
    """The level of a threshold in [0, 1)."""
    return int(threshold * 255)


def threshold_of(level: int) -> float:
    """The lowest threshold on the field's grid of 0.001 that has this level."""
    return -(-level * 1000 // 255) / 1000


def resize_map(map_hw: np.ndarray, size_px: int | tuple[int, int], mode: Interpolation) -> np.ndarray:
    """The map on a square grid, or one of a height and width, in the dtype given (float32 or float64).

    OpenCV resizes here because the reference evaluators do. `torch.nn.functional.interpolate` gives the same
    8-bit map in float64 from a 14 x 14 grid to 224, but not at every ratio: OpenCV's weights are float32.
    A constant map stays exactly constant, where rounding would make a pattern of it.
    """
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if map_hw.min() == map_hw.max():
        return np.full((height, width), map_hw.flat[0], map_hw.dtype)
    return cv2.resize(np.ascontiguousarray(map_hw), (width, height), interpolation=_CV2_MODE[mode])


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


def over_maximum(map_hw: np.ndarray) -> np.ndarray:
    """A map over its maximum, what is below 0 cut off, in the dtype given; one without positive values is zeros.

    Raises:
        NonFiniteMapError: a value is not finite.
    """
    high = map_hw.max()
    if not np.isfinite(map_hw).all():
        raise NonFiniteMapError("the score map holds NaN or infinite values")
    return np.zeros_like(map_hw) if high <= 0 else (map_hw / high).clip(min=0)


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
    highest = gray_hw.max()
    assert highest in (0, 255)
    if highest == 0:
        return _no_contour(no_contour, every=every)
    components = load("wsol_dist.regions.components")
    boxes_of = components.boxes_by_growing if components else boxes_by_tracing
    largest_L4, every_N4, first_N, last_N = boxes_of(gray_hw, every=every)
    if clamp:
        height, width = gray_hw.shape
        for boxes in (largest_L4, every_N4):
            np.minimum(boxes[:, 2], width - 1, out=boxes[:, 2])
            np.minimum(boxes[:, 3], height - 1, out=boxes[:, 3])
    return LevelBoxes(largest_L4=largest_L4, every_N4=every_N4, first_N=first_N, last_N=last_N)


def _no_contour(box: tuple[int, int, int, int], *, every: bool) -> LevelBoxes:
    largest_L4 = np.full((NUM_LEVELS, 4), box, np.int16)
    ends = np.array([[0], [NUM_LEVELS - 1]])[:, : int(every)]
    return LevelBoxes(
        largest_L4=largest_L4, every_N4=largest_L4[: int(every)], first_N=ends[0], last_N=ends[1]
    )
