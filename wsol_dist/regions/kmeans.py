"""k-means over the features of each image's own pixels: colour, position, and a localizer's patch embeddings.

On a GPU faiss (its GPU build) finds the nearest centres, of many images in one call: their features get one more
coordinate, the image's place in the block, so far from the others' that a pixel's nearest centre is always one of its
own image. On a CPU that only adds distances to compute, so there a block is one image, and a compiled loop finds the
same centres as faiss in less time (`bench/clustering.py`); faiss does it where numba does not work.

The centres are fitted on a sub-sample of the pixels. faiss's own Clustering is not used, since it refills an empty
cluster from any image of the block, and an image's labels would depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import torch
from skimage.color import rgb2lab

from wsol_dist.regions.cluster import Backend, without_gaps
from wsol_dist.regions.compiled import load
from wsol_dist.regions.config import KMeansConfig

CPU_BLOCK = 1
"""Images searched at once on a CPU; a GPU takes a whole batch."""
LAB_RANGE = 100.0


class KMeans(Backend):
    """Colours are converted in the loader processes; the rest is a few calls of faiss a batch."""

    Config = KMeansConfig
    takes_embeddings = True
    _index: Any | None = None

    def prepare(self, image_HWC: np.ndarray) -> np.ndarray:
        return rgb2lab(image_HWC).astype(np.float32)

    def label(
        self,
        image_BHWC: np.ndarray,
        prepared: Sequence[np.ndarray],
        *,
        seeds: Sequence[int],
        embedding_BDhw: torch.Tensor | None = None,
    ) -> np.ndarray:
        """As `Backend.label`; embeddings are enlarged bilinearly."""
        H, W = image_BHWC.shape[1:3]
        feature_Bnd = self.features(np.stack(prepared), embedding_BDhw)
        label_Bn = self.cluster(feature_Bnd, seeds)
        return np.stack([without_gaps(label_n.reshape(H, W)) for label_n in label_Bn])

    def features(self, lab_BHWC: np.ndarray, embedding_BDhw: torch.Tensor | None = None) -> np.ndarray:
        """(B, H W, d) float32: weighted colour, x, y, embeddings."""
        B, H, W = lab_BHWC.shape[:3]
        y_HW, x_HW = np.meshgrid(np.linspace(0, 1, H), np.linspace(0, 1, W), indexing="ij")
        place_BHW2 = np.broadcast_to(np.stack([x_HW, y_HW], axis=2), (B, H, W, 2))
        parts = [lab_BHWC * (self.config.color / LAB_RANGE), place_BHW2 * self.config.position]
        if embedding_BDhw is not None:
            parts.append(self._embeddings(embedding_BDhw, H, W))
        return np.concatenate(parts, axis=3, dtype=np.float32).reshape(B, H * W, -1)

    def _embeddings(self, embedding_BDhw: torch.Tensor, height: int, width: int) -> np.ndarray:
        """(B, H, W, d) of length `config.embedding`. Projected before they are enlarged: both are linear."""
        generator = torch.Generator().manual_seed(self.config.seed)
        wide = embedding_BDhw.shape[1]
        project_dD = torch.randn(self.config.embedding_dims, wide, generator=generator) / wide**0.5
        small_Bdhw = torch.einsum("dD,BDhw->Bdhw", project_dD, embedding_BDhw.float().cpu())
        large_BdHW = torch.nn.functional.interpolate(small_Bdhw, (height, width), mode="bilinear")
        unit_BdHW = torch.nn.functional.normalize(large_BdHW, dim=1)
        return unit_BdHW.permute(0, 2, 3, 1).numpy() * self.config.embedding

    def cluster(self, feature_Bnd: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """k-means of each image by itself: (B, n) int64 labels in 0 .. clusters - 1."""
        step = CPU_BLOCK if self._gpu is None else len(feature_Bnd)
        return np.concatenate(
            [
                self._cluster_block(feature_Bnd[at : at + step], seeds[at : at + step])
                for at in range(0, len(feature_Bnd), step)
            ]
        )

    def _cluster_block(self, feature_Bnd: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        num_clusters, (B, n, d) = self.config.clusters, feature_Bnd.shape
        # The block's centre is 0: float32 then loses the least where faiss expands squares.
        span = 2 * d * float(feature_Bnd.max() - feature_Bnd.min()) + 1
        place_B = ((np.arange(B) - (B - 1) / 2) * span).astype(np.float32)
        chosen = [self._sample(n, seed) for seed in seeds]
        sample_Bmd = np.stack([feature_nd[at] for feature_nd, at in zip(feature_Bnd, chosen, strict=True)])
        sample_dN = _with_place(sample_Bmd, place_B)
        # In float64 the mean of many equal numbers is that number: the place stays what it is.
        exact_dN = sample_dN.astype(np.float64)
        centre_dK = _with_place(sample_Bmd[:, :num_clusters], place_B)
        for _ in range(self.config.iterations):
            moved_dK = _means(exact_dN, self._nearest(centre_dK, sample_dN), centre_dK)
            if np.array_equal(moved_dK, centre_dK):
                break
            centre_dK = moved_dK
        label_Bn = self._nearest(centre_dK, _with_place(feature_Bnd, place_B)).reshape(B, n)
        return label_Bn - np.arange(B)[:, None] * num_clusters

    def _sample(self, num_pixels: int, seed: int) -> np.ndarray:
        """Pixels to fit on, in random order, so that the first ones can be the first centres."""
        number = min(num_pixels, self.config.clusters * self.config.samples_per_cluster)
        return np.random.default_rng(seed).choice(num_pixels, number, replace=False)

    def _nearest(self, centre_dK: np.ndarray, point_dN: np.ndarray) -> np.ndarray:
        """The nearest centre of each point: (N,) int64."""
        ours = None if self._gpu is not None else load("wsol_dist.regions.nearest")
        if ours is not None:
            label_N = np.empty(point_dN.shape[1], np.int64)
            ours.nearest(point_dN, centre_dK, label_N)
            return label_N
        if self._index is None or self._index.d != len(centre_dK):
            self._index = self._new_index(len(centre_dK))
        self._index.reset()
        self._index.add(np.ascontiguousarray(centre_dK.T))
        return self._index.search(np.ascontiguousarray(point_dN.T), 1)[1][:, 0]

    def _new_index(self, dims: int) -> Any:
        if self._gpu is None:
            return faiss.IndexFlatL2(dims)
        return faiss.GpuIndexFlatL2(self._gpu, dims)

    @cached_property
    def _gpu(self) -> Any | None:
        """faiss's memory on the GPU; None without one, or with the CPU build."""
        has_one = self.device.type == "cuda" and faiss.get_num_gpus() > 0
        return faiss.StandardGpuResources() if has_one else None


def _with_place(feature_Bnd: np.ndarray, place_B: np.ndarray) -> np.ndarray:
    """(d + 1, B n): every point with its image's place; of one image (d, n), without."""
    B, n, d = feature_Bnd.shape
    placed_dBn = np.empty((d + (B > 1), B, n), np.float32)
    placed_dBn[:d] = feature_Bnd.transpose(2, 0, 1)
    placed_dBn[d:] = place_B[:, None]
    return placed_dBn.reshape(-1, B * n)


def _means(point_dN: np.ndarray, label_N: np.ndarray, centre_dK: np.ndarray) -> np.ndarray:
    """The mean of each centre's points; a centre without any stays where it is."""
    K = centre_dK.shape[1]
    count_K = np.bincount(label_N, minlength=K)
    total_dK = np.stack([np.bincount(label_N, weights=x_N, minlength=K) for x_N in point_dN])
    return np.where(count_K > 0, total_dK / np.maximum(count_K, 1), centre_dK).astype(np.float32)
