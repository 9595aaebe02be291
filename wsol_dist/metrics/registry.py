"""The protocols that every evaluation runs, all in one pass. Adding one: its file and its line here."""

from __future__ import annotations

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Metric
from wsol_dist.metrics.box_mass import BoxMass
from wsol_dist.metrics.centre_box import CentreBox
from wsol_dist.metrics.centre_miou import CentreMIoU
from wsol_dist.metrics.classification import Classification
from wsol_dist.metrics.max_box_acc import MaxBoxAcc
from wsol_dist.metrics.miou import MIoU
from wsol_dist.metrics.pxap import PxAP
from wsol_dist.metrics.seg_miou import SegMIoU
from wsol_dist.metrics.topk_loc import TopKLoc

METRICS: tuple[type[Metric], ...] = (
    TopKLoc,
    CentreBox,
    Classification,
    MaxBoxAcc,
    PxAP,
    MIoU,
    CentreMIoU,
    SegMIoU,
)
"""Of every method; `BoxMass` counts only maps that are weights, so a recipe asks for it."""


def make_metrics(config: EvaluateConfig, *, num_classes: int) -> list[Metric]:
    """Every protocol with empty counters. One that finds nothing to count gives no numbers."""
    wanted = (*METRICS, BoxMass) if config.box_mass else METRICS
    return [metric(config, num_classes=num_classes) for metric in wanted]
