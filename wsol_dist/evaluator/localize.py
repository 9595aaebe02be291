"""One batch through the method: probabilities, and the score maps of each image's true classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wsol_dist.data.images.transforms import normalise
from wsol_dist.data.stream.stream import EvaluationBatch
from wsol_dist.evaluator.refined import Refiner
from wsol_dist.methods.base import Method


@dataclass(frozen=True, kw_only=True, eq=False)
class Localized:
    """A batch's `Localization` in numpy, float32, its maps perhaps refined."""

    prob_BC: np.ndarray
    map_BKhw: np.ndarray
    class_BK: np.ndarray
    segment_BChw: np.ndarray | None
    """Of methods that segment: the background's probabilities and all classes'."""


def localize_true_class(
    method: Method, batch: EvaluationBatch, device: torch.device, *, refiner: Refiner | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (B, C) and the maps of the true classes, of several the first (B, h, w), float32 on the CPU."""
    found = localize_classes(method, batch, batch.label_B[:, None], device, refiner=refiner)
    return found.prob_BC, found.map_BKhw[:, 0]


def localize_every_class(
    method: Method, batch: EvaluationBatch, device: torch.device, *, refiner: Refiner | None = None
) -> Localized:
    """Probabilities and the maps of all classes of each image, on the CPU.

    K is the most that an image of the batch has; behind an image's own classes its first one is repeated.
    """
    labels = [truth.labels for truth in batch.truths]
    most = max(len(label_K) for label_K in labels)
    class_BK = torch.tensor([[*label_K, *label_K[:1] * (most - len(label_K))] for label_K in labels])
    return localize_classes(method, batch, class_BK, device, refiner=refiner)


def localize_classes(
    method: Method,
    batch: EvaluationBatch,
    class_BK: torch.Tensor,
    device: torch.device,
    *,
    refiner: Refiner | None = None,
) -> Localized:
    """Probabilities and the maps of the wanted classes, on the CPU."""
    image_BCHW = normalise(batch.image_BCHW.to(device, non_blocking=True), method.mean, method.std)
    with torch.inference_mode():
        found = method.localize(image_BCHW, class_BK.to(device))
    map_BKhw = found.map_BKhw if refiner is None else refiner(found.map_BKhw, batch.row_B.tolist())
    return Localized(
        prob_BC=found.prob_BC.float().cpu().numpy(),
        map_BKhw=map_BKhw.float().cpu().numpy(),
        class_BK=class_BK.cpu().numpy(),
        segment_BChw=None if found.segment_BChw is None else found.segment_BChw.float().cpu().numpy(),
    )
