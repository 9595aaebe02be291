"""Scales and flips around any method: its maps of an image at several sizes and mirrored, summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsol_dist.methods.base import Classes, Localization
from wsol_dist.methods.molt.network import resize_square

Localize = Callable[[Tensor, Classes], Localization]


def localize_views(
    localize: Localize,
    image_BCHW: Tensor,
    class_BK: Classes,
    *,
    sides_px: Sequence[int],
    flip: bool,
) -> Localization:
    """The sum over sizes and mirrorings of a method's maps, on the largest grid (bilinear).

    Args:
        localize: of a batch of square images of any of the sizes; gives one map for each wanted class.
        image_BCHW: the batch; its probabilities and, without `class_BK`, its class are those at the first size, not
            mirrored.
        sides_px: sides to which the images are resized, the first the image's own where that is wanted.
        flip: localize each size mirrored too.
    """
    first: Localization | None = None
    maps = []
    for side_px in sides_px:
        view_BCHW = resize_square(image_BCHW, side_px)
        for mirrored in (False, True) if flip else (False,):
            found = localize(view_BCHW.flip(-1) if mirrored else view_BCHW, class_BK)
            first, class_BK = first or found, found.class_BK
            maps.append(found.map_BKhw.flip(-1) if mirrored else found.map_BKhw)
    assert first is not None
    if len(maps) == 1:
        return first
    size = max((tuple(map_BKhw.shape[2:]) for map_BKhw in maps), key=lambda hw: hw[0] * hw[1])
    resized = [F.interpolate(m, size=size, mode="bilinear") if m.shape[2:] != size else m for m in maps]
    total_BKhw = torch.stack(resized).sum(dim=0)
    return Localization(prob_BC=first.prob_BC, class_BK=first.class_BK, map_BKhw=total_BKhw)


def view_sides(image_px: int, *, scales: Sequence[float], stride_px: int) -> list[int]:
    """The scales' sides in pixels, each the nearest multiple of the stride and at least one stride."""
    return [max(1, round(image_px * scale / stride_px)) * stride_px for scale in scales]
