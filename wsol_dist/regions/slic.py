"""SLIC superpixels (Achanta et al., TPAMI 2012) by scikit-image: a backend, and what DIC votes in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.segmentation import slic
from torch import Tensor

from wsol_dist.regions.cluster import Backend, without_gaps
from wsol_dist.regions.config import MAX_LABELS, SLICConfig


class SLIC(Backend):
    """All the work is in `prepare`, so in the loader processes."""

    Config = SLICConfig

    def prepare(self, image_HWC: np.ndarray) -> np.ndarray:
        segments = self.config.segments
        label_HW = superpixels(image_HWC, segments=segments, compactness=self.config.compactness)
        while label_HW.max() >= MAX_LABELS:  # scikit-image may give more than it was asked for
            segments = segments * 3 // 4
            label_HW = superpixels(image_HWC, segments=segments, compactness=self.config.compactness)
        return without_gaps(label_HW)

    def label(
        self,
        image_BHWC: np.ndarray,
        prepared: Sequence[np.ndarray],
        *,
        seeds: Sequence[int],
        embedding_BDhw: Tensor | None = None,
    ) -> np.ndarray:
        assert embedding_BDhw is None
        return np.stack(prepared)


def superpixels(image_HWC: np.ndarray, *, segments: int, compactness: float) -> np.ndarray:
    """(H, W) int64 superpixel of each pixel, from 0 without gaps; each is connected."""
    return slic(image_HWC, n_segments=segments, compactness=compactness, start_label=0, channel_axis=-1)
