"""MaxBoxAcc and MaxBoxAccV2, the box protocol of the field (wsolevaluation).

Both are the best over thresholds of the scored split itself, so their source is always `oracle`. `box_acc`
and `box_acc_v2` are the same counts read at a threshold from elsewhere.
"""

from __future__ import annotations

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored, percent
from wsol_dist.metrics.iou import overlap
from wsol_dist.metrics.threshold import Threshold, best_position
from wsol_dist.regions.boxes import NUM_LEVELS, threshold_of

DELTAS = (0.3, 0.5, 0.7)
"""IoUs that V2 averages over; MaxBoxAcc takes 0.5."""

_V1, _V2 = "max_box_acc", "max_box_acc_v2"
_V2_AT = tuple(f"{_V2}@{delta}" for delta in DELTAS)


class MaxBoxAcc(Metric):
    """Hits by level: of the largest contour's box at IoU >= 0.5, of any contour's box at each of DELTAS."""

    name = _V1

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.counts = np.zeros((2 + len(DELTAS), NUM_LEVELS), np.int64)

    def update(self, scored: Scored) -> Row:
        if not scored.has_boxes:
            return {"max_box_iou": None}
        self.counts[0] += 1
        if not scored.decoded:
            return {"max_box_iou": 0.0}
        gt = scored.gt_boxes(clamp=False)
        largest_L = overlap(scored.field_boxes.largest_L4, gt).iou_NM.max(axis=1)
        any_L = scored.field_boxes.best_by_level(overlap(scored.field_boxes.every_N4, gt).iou_NM.max(axis=1))
        self.counts[1] += largest_L >= 0.5
        self.counts[2:] += any_L >= np.array(DELTAS)[:, None]
        return {"max_box_iou": float(largest_L.max())}

    def curves(self) -> dict[str, np.ndarray]:
        total = int(self.counts[0, 0])
        if total == 0:
            return {}
        return {
            name: percent(hits, total) for name, hits in zip((_V1, *_V2_AT), self.counts[1:], strict=True)
        }

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        curves = self.curves()
        if not curves:
            return []
        best = {name: best_position(curve) for name, curve in curves.items()}
        records = [
            MetricRecord(
                name=name,
                value=float(curves[name][level]),
                protocol=_V1 if name == _V1 else _V2,
                threshold=threshold_of(level),
                threshold_source="oracle",
            )
            for name, level in best.items()
        ]
        mean = float(np.mean([curves[name][best[name]] for name in _V2_AT]))
        note = "the mean of three, each at its own best threshold"
        records.insert(
            1, MetricRecord(name=_V2, value=mean, protocol=_V2, threshold_source="oracle", note=note)
        )
        return records + self._at(threshold, curves)

    def _at(self, threshold: Threshold, curves: dict[str, np.ndarray]) -> list[MetricRecord]:
        """The same at a threshold from elsewhere; a held-out split chooses one for each curve."""
        positions = {name: threshold.position(name, fixed=threshold.level) for name in curves}
        values = {name: float(curves[name][at]) for name, at in positions.items() if at is not None}
        if len(values) < len(curves):
            return []
        source = threshold.source
        value = threshold.value if source == "fixed" else threshold_of(threshold.levels[_V1])
        v1 = MetricRecord(
            name="box_acc", value=values[_V1], protocol=_V1, threshold=value, threshold_source=source
        )
        mean = float(np.mean([values[name] for name in _V2_AT]))
        fixed_value = value if source == "fixed" else None
        v2 = MetricRecord(
            name="box_acc_v2", value=mean, protocol=_V2, threshold=fixed_value, threshold_source=source
        )
        return [v1, v2]
