"""Pixel clusters of images: one interface for all ways to make them, and their names.

A backend labels a batch of square images: (B, S, S, 3) uint8 -> (B, S, S) uint8 labels from 0 without gaps. What it
does with each image alone (`prepare`) runs in loader processes, beside the fitting of the batch before.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.regions.config import MAX_LABELS, ClusterConfig

if TYPE_CHECKING:
    import torch

COLUMN_NAME = "clusters"
"""Of the derived column that holds label maps."""
BACKENDS = {
    "dic": ("dic:DIC", "config:DICConfig"),
    "faiss": ("kmeans:KMeans", "config:KMeansConfig"),
    "slic": ("slic:SLIC", "config:SLICConfig"),
}
"""Class and knobs, as `module:name` in this room. Adding a backend: one file here, its knobs, and one line."""


class Backend:
    """A way to cluster pixels. Built as `Class(config, device)`; picklable before its first `label`."""

    Config: ClassVar[type[ClusterConfig]] = ClusterConfig
    takes_embeddings: ClassVar[bool] = False
    """Whether `label` has a use for patch embeddings."""

    def __init__(self, config: Any, device: torch.device | None = None) -> None:
        import torch  # not by `wsol cluster` until it clusters

        self.config = config
        self.device = device or torch.device("cpu")

    def prepare(self, image_HWC: np.ndarray) -> np.ndarray:
        """What one image alone needs, in a loader process.

        Args:
            image_HWC: (S, S, 3) uint8 RGB.
        """
        return np.zeros(0, np.uint8)

    def label(
        self,
        image_BHWC: np.ndarray,
        prepared: Sequence[np.ndarray],
        *,
        seeds: Sequence[int],
        embedding_BDhw: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Label maps of a batch: (B, S, S) uint8, labels from 0 without gaps.

        Args:
            image_BHWC: (B, S, S, 3) uint8 RGB.
            prepared: of each image, from `prepare`.
            seeds: of each image, from `image_seed`.
            embedding_BDhw: patch embeddings of the images on a grid that spans them; only for backends that take
                them.
        """
        raise NotImplementedError

    def __call__(self, image_BHWC: np.ndarray, *, seeds: Sequence[int]) -> np.ndarray:
        """Prepare and label a batch."""
        return self.label(image_BHWC, [self.prepare(image_HWC) for image_HWC in image_BHWC], seeds=seeds)


def backend_class(name: str) -> type[Backend]:
    """The class of a backend by its name.

    Raises:
        UserError: no such backend.
    """
    return _named(name, 0)


def backend_config(name: str) -> type[ClusterConfig]:
    """The dataclass of a backend's knobs, without what the backend itself imports.

    Raises:
        UserError: no such backend.
    """
    return _named(name, 1)


def _named(name: str, what: int) -> Any:
    if name not in BACKENDS:
        raise UserError(f"--backend: unknown backend {name!r}; {did_you_mean(name, sorted(BACKENDS))}")
    module, _, member = BACKENDS[name][what].partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), member)


def image_seed(seed: int, image_id: str) -> int:
    """A seed that depends on nothing but the run's and the image's id: 0 .. 2^31 - 1."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{image_id}".encode()).digest()[:4], "big") >> 1


def without_gaps(label_HW: np.ndarray) -> np.ndarray:
    """Labels renumbered 0, 1, 2, ... in ascending order, as uint8."""
    found, label_n = np.unique(label_HW, return_inverse=True)
    assert len(found) <= MAX_LABELS, len(found)
    return label_n.reshape(label_HW.shape).astype(np.uint8)
