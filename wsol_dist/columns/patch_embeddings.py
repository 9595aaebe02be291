"""A trained localizer's patch embeddings of images that are being clustered."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsol_dist.data.images.transforms import normalise
from wsol_dist.evaluator.identity import Identity
from wsol_dist.evaluator.scoring import load_method
from wsol_dist.evaluator.work import Work
from wsol_dist.processes.ranks import Ranks


class PatchEmbedder:
    """A localizer with its weights; called with a batch of images."""

    def __init__(self, work: Work, ranks: Ranks) -> None:
        self.method, _ = load_method(work, ranks)
        self.device = ranks.device

    def __call__(self, image_BHWC: np.ndarray) -> Tensor:
        """What the localizer sees at each place of its grid: (B, D, h, w) float32.

        Args:
            image_BHWC: (B, S, S, 3) uint8, whole images squashed; brought to the side that the localizer wants.

        Raises:
            UserError: the method has none.
        """
        image_BCHW = torch.from_numpy(np.ascontiguousarray(image_BHWC)).permute(0, 3, 1, 2).to(self.device)
        side = self.method.image_px
        if image_BCHW.shape[2] != side:
            image_BCHW = torch.nn.functional.interpolate(
                image_BCHW.float(), (side, side), mode="bilinear", antialias=True
            )
            image_BCHW = image_BCHW.round().clamp(0, 255).to(torch.uint8)
        with torch.inference_mode():
            return self.method.patch_embeddings(normalise(image_BCHW, self.method.mean, self.method.std))


def embedding_settings(identity: Identity) -> dict[str, Any]:
    """What of a localizer decides its embeddings: a part of a column's settings."""
    settings = {
        name: value for name, value in identity.settings.items() if name in ("method", "seed", "files")
    }
    return {"embeddings": {"weights": identity.weights, **settings}}
