"""Score maps pulled towards the mean of each pixel cluster (MOLT's refinement), after any method."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_LABELS = 256
"""Label maps are uint8."""


def refine(map_BKhw: Tensor, label_BHW: Tensor, *, alpha_B: Tensor | float) -> Tensor:
    """R(p) = (1 - a) M(p) + a mu(label(p)), mu(c) the mean of M over the pixels labelled c.

    Labels are ids: pixels of one label belong together wherever they lie.

    Args:
        map_BKhw: score maps of any range on any grid that spans the whole image; brought bilinearly to the label
            maps' size first.
        label_BHW: uint8, or another integer type with values from 0 to 255.
        alpha_B: a, from 0 to 1, for all images or for each.

    Returns:
        (B, K, H, W) float32.
    """
    (B, K), (H, W) = map_BKhw.shape[:2], label_BHW.shape[1:]
    map_BKn = enlarge(map_BKhw.double(), H, W).flatten(2)
    label_B1n = label_BHW.reshape(B, 1, H * W).long()
    label_BKn = label_B1n.expand(B, K, H * W)
    # float64: the sums then do not depend on the order of a GPU's atomic additions, as far as float32 shows.
    total_BKc = map_BKn.new_zeros(B, K, NUM_LABELS).scatter_add_(2, label_BKn, map_BKn)
    count_B1c = map_BKn.new_zeros(B, 1, NUM_LABELS).scatter_add_(
        2, label_B1n, map_BKn.new_ones(1).expand_as(label_B1n)
    )
    mean_BKn = (total_BKc / count_B1c.clamp(min=1)).gather(2, label_BKn)
    alpha_B11 = torch.as_tensor(alpha_B, dtype=torch.float64, device=map_BKn.device).reshape(-1, 1, 1)
    return torch.lerp(map_BKn, mean_BKn, alpha_B11).reshape(B, K, H, W).float()


def enlarge(map_BKhw: Tensor, height: int, width: int) -> Tensor:
    """Bilinear; a constant map stays exactly constant, where rounding would make a pattern of it."""
    large_BKHW = F.interpolate(map_BKhw, (height, width), mode="bilinear", align_corners=False)
    low_BK, high_BK = map_BKhw.flatten(2).aminmax(dim=2)
    return torch.where((low_BK == high_BK)[..., None, None], low_BK[..., None, None], large_BKHW)
