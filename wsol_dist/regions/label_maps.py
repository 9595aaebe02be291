"""Score maps of an image's classes -> one label map, by a background threshold, perhaps through a CRF."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsol_dist.regions.config import CRFConfig
from wsol_dist.regions.crf import mean_field
from wsol_dist.regions.refine import enlarge

IGNORE = 255


def label_maps(
    map_BKhw: Tensor,
    class_BK: Tensor,
    image_BCHW: Tensor,
    *,
    num_own: Sequence[int],
    thresholds: tuple[float, float],
    crf: CRFConfig,
    from_zero: bool = False,
) -> Tensor:
    """The class of every pixel: (B, H, W) uint8, 0 background, class + 1, 255 unknown.

    A class's map is enlarged to the image's size and scaled to 0..1 by its own range. A pixel is of the class with the
    highest score where that is above the higher threshold, background where it is not above the lower one, else
    unknown. With a CRF the background's score is the threshold, scores over their sum are the probabilities, and it is
    run once for each threshold.

    Args:
        map_BKhw: raw scores on any grid.
        class_BK: whose maps they are.
        image_BCHW: uint8, of the size that the label maps get.
        num_own: how many of the K are the image's own; those behind are not looked at.
        thresholds: the lower and the higher, in [0, 1); equal for a map without unknown pixels.
        from_zero: scale by the maximum alone, what is below 0 cut off.
    """
    height, width = image_BCHW.shape[2:]
    score_BKHW = _scaled(enlarge(map_BKhw.float(), height, width), from_zero=from_zero)
    own_BK = torch.arange(class_BK.shape[1])[None] < torch.tensor(num_own)[:, None]
    score_BKHW = score_BKHW * own_BK.to(score_BKHW.device)[:, :, None, None]
    low_BHW, high_BHW = (_labels(score_BKHW, class_BK, image_BCHW, t, crf) for t in thresholds)
    unknown_BHW = torch.where(low_BHW == 0, 0, IGNORE)
    return torch.where(high_BHW > 0, high_BHW, unknown_BHW).to(torch.uint8)


def _labels(
    score_BKHW: Tensor, class_BK: Tensor, image_BCHW: Tensor, threshold: float, crf: CRFConfig
) -> Tensor:
    background_B1HW = torch.full_like(score_BKHW[:, :1], threshold)
    score_BLHW = torch.cat([background_B1HW, score_BKHW], dim=1)
    if crf.iterations:
        prob_BLHW = score_BLHW / score_BLHW.sum(dim=1, keepdim=True).clamp_min(1e-6)
        score_BLHW = mean_field(prob_BLHW, image_BCHW, crf)
    best_BHW, place_BHW = score_BLHW[:, 1:].max(dim=1)
    label_BHW = (class_BK[:, :, None, None].expand_as(score_BKHW) + 1).gather(1, place_BHW[:, None])[:, 0]
    return torch.where(best_BHW > score_BLHW[:, 0], label_BHW, 0)


def _scaled(map_BKHW: Tensor, *, from_zero: bool) -> Tensor:
    low, high = (bound[..., None, None] for bound in map_BKHW.flatten(2).aminmax(dim=2))
    low = torch.zeros_like(low) if from_zero else low
    span = high - low
    return torch.where(span > 0, (map_BKHW - low) / span.clamp_min(1e-30), 0.0).clamp_min(0)
