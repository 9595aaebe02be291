"""What a localizer says of an image: classes, and of each the boxes, the mask and the heat map.

Boxes are pixels of the image as a person sees it (after its EXIF orientation), from 0 at the left and upper edge;
x1 and y1 end behind the last pixel, so that x1 - x0 is the width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wsol_dist.config.evaluate import Normalise
from wsol_dist.regions.boxes import normalise, over_maximum, resize_map, to_uint8


@dataclass(frozen=True, kw_only=True)
class Box:
    """One box of one class; see the module for its frame."""

    x0: float
    y0: float
    x1: float
    y1: float
    stability: float
    """0..1: mean IoU with the best box of the thresholds up to 0.1 lower and higher. Low: it hangs on the threshold."""

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalizedClass:
    """One class of an image."""

    label: int
    name: str
    score: float
    """Class probability, 0..1."""
    boxes: tuple[Box, ...]
    """The largest region's first; none where the map is constant."""
    map_hw: np.ndarray
    """(h, w) float32: raw signed scores over the whole image, on the method's own grid."""
    size_wh: tuple[int, int]
    level: int
    """0..254: the threshold, of the heat map in 8 bits; what lies above it is the region."""
    normalise: Normalise

    @cached_property
    def heat_map(self) -> np.ndarray:
        """(H, W) float32 in 0..1 at the image's own size: enlarged bilinearly, then normalised."""
        width, height = self.size_wh
        map_HW = resize_map(self.map_hw.astype(np.float32), (height, width), "bilinear")
        return normalise(map_HW) if self.normalise == "min_max" else over_maximum(map_HW)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool at the image's own size: where the heat map lies above the threshold."""
        return to_uint8(self.heat_map) > self.level


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalizedImage:
    """One image."""

    size_wh: tuple[int, int]
    """Of the image as a person sees it, in pixels."""
    prob_C: np.ndarray
    """(C,) float32: the probability of every class of the model."""
    classes: tuple[LocalizedClass, ...]
    """The localized classes, the most probable first; may be none where a least score was asked for."""

    @property
    def width(self) -> int:
        return self.size_wh[0]

    @property
    def height(self) -> int:
        return self.size_wh[1]

    def top(self, k: int) -> np.ndarray:
        """The numbers of the k most probable classes, the lower number first of equals."""
        return np.argsort(-self.prob_C, kind="stable")[:k]

    def class_mask(self) -> np.ndarray:
        """(H, W) int32: 0 background, else 1 + the class with the highest heat above its threshold."""
        found = np.zeros((self.height, self.width), np.int32)
        best = np.zeros((self.height, self.width), np.float32)
        for one in self.classes:
            wins = one.mask & (one.heat_map > best)
            found[wins], best[wins] = one.label + 1, one.heat_map[wins]
        return found
