"""What the metrics share: one scored image, one printed number, and the protocol of a metric."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig, Normalise
from wsol_dist.errors import UserError
from wsol_dist.metrics.iou import scale_boxes
from wsol_dist.metrics.threshold import Threshold, ThresholdSource
from wsol_dist.regions.boxes import (
    LevelBoxes,
    boxes_at_levels,
    normalise,
    over_maximum,
    resize_map,
    to_uint8,
)

Row = dict[str, Any]
"""A metric's part of an image's row, the same keys for every image. A numpy array of 255 rows holds a value
for each level, of which the chosen one is kept; anything else is kept as it is."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One image, what the method said of it, and the truth; metrics share the boxes derived from it."""

    id: str
    label: int
    prob_C: np.ndarray
    """(C,) float32 class probabilities; zeros where the image did not decode."""
    map_hw: np.ndarray
    """(h, w) float32 raw score map of the true class, over the whole image."""
    size_px: int
    """Side of the square on which everything is compared."""
    boxes_xyxy: np.ndarray | None = None
    """(M, 4) as in `Sample`; None where the image has none."""
    box_frame_wh: tuple[int, int] | None = None
    mask: np.ndarray | None = None
    """(H, W) uint8 as in `Sample`: 0 background, 1 object or class + 1, 255 ignore."""
    semantic: bool = False
    """Which of the two, as in `Sample`: False one object, True the class of every pixel."""
    map_Khw: np.ndarray | None = None
    """(K, h, w) float32 raw score maps of all classes of the image, for multi-label sets; None: not made."""
    label_K: tuple[int, ...] = ()
    """Their classes, ascending."""
    segment_Chw: np.ndarray | None = None
    """(1 + C, h, w) float32 probabilities of the background and of every class, of methods that segment."""
    normalise: Normalise = "min_max"
    """What the fixed-threshold protocol's thresholds are a part of."""
    decoded: bool = True
    """False: there was no image to score. It counts as a miss and stays in every denominator."""

    @cached_property
    def top5(self) -> np.ndarray:
        """The five most probable classes in descending order, the lower number first of equals; empty where
        the image did not decode."""
        return np.argsort(-self.prob_C, kind="stable")[:5] if self.decoded else np.zeros(0, np.int64)

    @property
    def has_boxes(self) -> bool:
        return self.boxes_xyxy is not None and len(self.boxes_xyxy) > 0

    def gt_boxes(self, *, clamp: bool) -> np.ndarray:
        """The image's ground-truth boxes on the square: (M, 4) int64.

        Raises:
            UserError: nobody knows the frame that the boxes are given in.
        """
        assert self.boxes_xyxy is not None
        if self.box_frame_wh is None:
            raise UserError(
                f"{self.id}: boxes without the size of the image they are given in (box_frame_wh); "
                "`wsol shards verify` lists all such samples; pack again"
            )
        return scale_boxes(self.boxes_xyxy, self.box_frame_wh, size_px=self.size_px, clamp=clamp)

    @cached_property
    def bicubic_map(self) -> np.ndarray:
        """The field's map: bicubic in float64, 0..1; zeros where the image did not decode."""
        if not self.decoded:
            return np.zeros((self.size_px, self.size_px))
        return normalise(resize_map(self.map_hw.astype(np.float64), self.size_px, "bicubic"))

    @cached_property
    def field_boxes(self) -> LevelBoxes:
        """Boxes of the wsolevaluation protocol, which end at the last pixel."""
        gray = to_uint8(self.bicubic_map)
        return boxes_at_levels(gray, clamp=True, no_contour=(0, 0, 0, 0), every=True)

    @cached_property
    def topk_map(self) -> np.ndarray:
        """The map of the TS-CAM protocol: bilinear in float32, 0..1; zeros where the image did not decode."""
        if not self.decoded:
            return np.zeros((self.size_px, self.size_px), np.float32)
        map_hw = resize_map(self.map_hw.astype(np.float32), self.size_px, "bilinear")
        return normalise(map_hw) if self.normalise == "min_max" else over_maximum(map_hw)

    @cached_property
    def topk_gray(self) -> np.ndarray:
        """The same in 8 bits."""
        return to_uint8(self.topk_map)

    @cached_property
    def topk_boxes(self) -> LevelBoxes:
        """Boxes of the TS-CAM protocol, ending behind the last pixel."""
        return boxes_at_levels(self.topk_gray, clamp=False, no_contour=(0, 0, 1, 1))


@dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """One printed number, with the protocol and the threshold it was taken under."""

    name: str
    value: float
    protocol: str
    threshold: float | None = None
    threshold_source: ThresholdSource = "none"
    unit: str = "%"
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Metric:
    """A protocol's counters. Subclasses set `name`, fill `counts` in `update` and read it in `records`.

    The counters are integers of a fixed shape: ranks add theirs once, and every world size gives the same.
    """

    name: ClassVar[str]
    """The protocol's name, printed with each of its numbers."""
    counts: np.ndarray
    """int64, of a shape that depends on the config and the number of classes only."""

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        raise NotImplementedError

    def update(self, scored: Scored) -> Row:
        """Count one image; returns its part of the image's row."""
        raise NotImplementedError

    def curves(self) -> dict[str, np.ndarray]:
        """Percentages by threshold position; empty where nothing was counted or there is no threshold."""
        return {}

    def by_class_values(self, threshold: Threshold) -> dict[str, np.ndarray]:
        """What a number is the mean of, by its name: percentages of the background and of each class (1 + C,), NaN
        where it never occurs; empty for numbers that are no such mean."""
        return {}

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        """The numbers; empty where nothing was counted."""
        raise NotImplementedError


def percent(hits: np.ndarray, total: int) -> np.ndarray:
    """Hits out of a total, float64."""
    return hits * 100.0 / total
