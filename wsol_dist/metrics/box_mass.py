"""S of the weight map (Shaharabany and Wolf, equation 6): how much of a thresholded map its one box holds.

No truth is needed for it: the box is the map's own, of the contour with the largest area. It falls when a map breaks
up into parts, which is what the paper stops training by. A map that is 1 everywhere has S = 100 %, and so has any
other constant one: S alone would choose an untrained network. `mean_map` and `box_area` stand beside it for guards.
"""

from __future__ import annotations

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.errors import UserError
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.regions.boxes import level_of

TAU = 0.1
"""Threshold of equation 5, as a part of the map's maximum (or range, by `evaluate.normalise`)."""
UNIT = 1_000_000
"""Shares are counted in millionths: integers add up to the same sum over any ranks."""

_NAMES = ("box_mass", "mean_map", "box_area")


class BoxMass(Metric):
    """Means over all images of S, of the map's mean and of the box's part of the image.

    Only where `evaluate.box_mass` asks for it: a map must be a weight in 0..1. An image that does not decode has 0
    of everything and stays in the denominator.
    """

    name = "box_mass"

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.counts = np.zeros(1 + len(_NAMES), np.int64)
        """Images, then the sums in millionths."""

    def update(self, scored: Scored) -> Row:
        self.counts[0] += 1
        if scored.decoded:
            _check_weights(scored)
            shares = (box_mass(scored), float(np.mean(scored.map_hw, dtype=np.float64)), box_area(scored))
            self.counts[1:] += np.rint(np.array(shares) * UNIT).astype(np.int64)
        return {}

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        images, *sums = self.counts.tolist()
        if images == 0:
            return []
        return [
            MetricRecord(
                name=name,
                value=100.0 * total / (images * UNIT),
                protocol=self.name,
                threshold=None if name == "mean_map" else TAU,
                threshold_source="none" if name == "mean_map" else "fixed",
            )
            for name, total in zip(_NAMES, sums, strict=True)
        ]


def box_mass(scored: Scored) -> float:
    """S of one image, 0..1: the mass inside [y:y+h, x:x+w] over the whole mass of the map above the threshold."""
    kept_hw = np.where(scored.topk_gray > level_of(TAU), scored.topk_map, 0).astype(np.float64)
    total = kept_hw.sum()
    x0, y0, x1, y1 = scored.topk_boxes.largest_L4[level_of(TAU)]
    return float(kept_hw[y0:y1, x0:x1].sum() / total) if total > 0 else 0.0


def box_area(scored: Scored) -> float:
    """The box's part of the image, 0..1."""
    x0, y0, x1, y1 = scored.topk_boxes.largest_L4[level_of(TAU)].astype(np.int64)
    return float((x1 - x0) * (y1 - y0) / scored.size_px**2)


def _check_weights(scored: Scored) -> None:
    low, high = float(scored.map_hw.min()), float(scored.map_hw.max())
    if not (low >= 0 and high <= 1):
        raise UserError(
            f"{scored.id}: evaluate.box_mass counts maps of weights in 0..1, this one goes from {low:g} to {high:g}; "
            "set --evaluate.no-box-mass for this method, or the weights are broken"
        )
