"""Plain classification accuracy, by class."""

from __future__ import annotations

import numpy as np

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric, MetricRecord, Row, Scored
from wsol_dist.metrics.threshold import Threshold


class Classification(Metric):
    """Top-1 and Top-5 accuracy. An image that does not decode is a miss; of one with several labels any is a hit."""

    name = "classification"

    def __init__(self, config: EvaluateConfig, *, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, 3), np.int64)
        """By true class: images, Top-1 hits, Top-5 hits."""

    def update(self, scored: Scored) -> Row:
        own = scored.label_K or (scored.label,)
        top1, top5 = (bool(np.isin(own, scored.top5[:most]).any()) for most in (1, 5))
        self.counts[scored.label] += (1, top1, top5)
        return {
            "predicted": [int(number) for number in scored.top5],
            "predicted_prob": [float(scored.prob_C[number]) for number in scored.top5],
            "cls_top1": top1,
            "cls_top5": top5,
        }

    def records(self, threshold: Threshold) -> list[MetricRecord]:
        images, top1, top5 = (int(number) for number in self.counts.sum(axis=0))
        if images == 0:
            return []
        hits = {"cls_top1": top1}
        if len(self.counts) > 5:
            hits["cls_top5"] = top5
        return [
            MetricRecord(name=name, value=100.0 * number / images, protocol=self.name)
            for name, number in hits.items()
        ]
