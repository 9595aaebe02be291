"""One batch through the method: probabilities, and the score map of each image's true class."""

from __future__ import annotations

import numpy as np
import torch

from wsol_dist.data.stream import EvaluationBatch
from wsol_dist.data.transforms import normalise
from wsol_dist.methods.base import Method


def localize_true_class(
    method: Method, batch: EvaluationBatch, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (B, C) and the true classes' maps (B, h, w), float32 on the CPU."""
    image_BCHW = normalise(batch.image_BCHW.to(device, non_blocking=True), method.mean, method.std)
    with torch.inference_mode():
        found = method.localize(image_BCHW, batch.label_B.to(device)[:, None])
    return found.prob_BC.float().cpu().numpy(), found.map_BKhw[:, 0].float().cpu().numpy()
