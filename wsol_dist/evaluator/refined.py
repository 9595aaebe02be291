"""Pixel clusters joined to the score maps of a split: the refinement as an option of the evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsol_dist.config.evaluate import Normalise, RefineConfig
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.metrics.base import Scored
from wsol_dist.regions.cluster import COLUMN_NAME
from wsol_dist.regions.refine import refine
from wsol_dist.regions.slic import superpixels

SHOWN_SEGMENTS, SHOWN_COMPACTNESS = 300, 10.0
"""Superpixels of pictures of clusters that were not made by superpixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Unrefined:
    """What a refined map was made of, for pictures."""

    map_hw: np.ndarray
    """float32: the map before."""
    label_HW: np.ndarray
    """uint8 clusters."""
    segment_HW: np.ndarray
    """Superpixels."""
    normalise: Normalise
    """What thresholds of the map are a part of."""

    def box_at(self, level: int, *, size_px: int) -> np.ndarray:
        """The box that `topk_loc` reads from the map as it was: (4,) xyxy on the square."""
        scored = Scored(
            id="", label=0, prob_C=np.zeros(0), map_hw=self.map_hw, size_px=size_px, normalise=self.normalise
        )
        return scored.topk_boxes.largest_L4[level]


class Refiner:
    """Refines maps of a split's rows by the label maps of a column."""

    def __init__(self, column: Column, split: str, *, alpha: float) -> None:
        self.column, self.split, self.alpha = column, split, alpha
        self.size_px = int(column.about.settings["size_px"])

    def __call__(self, map_BKhw: Tensor, rows: Sequence[int]) -> Tensor:
        """(B, K, h, w) maps of these rows -> (B, K, S, S) float32; S is the side of the label maps.

        Raises:
            UserError: a label map of another size, or a damaged one.
        """
        labels = [self.label(row) for row in rows]
        known_B = torch.tensor([float(label is not None) for label in labels], dtype=torch.float64)
        nothing = np.zeros((self.size_px, self.size_px), np.uint8)
        label_BHW = torch.from_numpy(np.stack([nothing if label is None else label for label in labels]))
        return refine(
            map_BKhw,
            label_BHW.to(map_BKhw.device),
            # An image that did not decode has no clusters.
            alpha_B=(self.alpha * known_B).to(map_BKhw.device),
        )

    def refine_one(self, map_hw: np.ndarray, row: int) -> np.ndarray:
        """The same for one (h, w) map: (S, S) float32."""
        return self(torch.from_numpy(map_hw)[None, None], [row])[0, 0].numpy()

    def unrefined(
        self, map_hw: np.ndarray, row: int, image_HWC: np.ndarray, *, normalise: Normalise
    ) -> Unrefined | None:
        """What there is to show of a row beside its refined map; None without clusters."""
        label_HW = self.label(row)
        if label_HW is None:
            return None
        segment_HW = shown_superpixels(image_HWC, self.column.about.settings)
        return Unrefined(map_hw=map_hw, label_HW=label_HW, segment_HW=segment_HW, normalise=normalise)

    def label(self, row: int) -> np.ndarray | None:
        """The label map of a row, (S, S) uint8; None where the image did not decode when they were made."""
        try:
            label_HW = self.column.value(self.split, row)
        except ValueError as error:
            raise UserError(
                f"{self.column.folder}: label map {row} of {self.split}: {error}; make the column again"
            ) from error
        if label_HW is not None and label_HW.shape != (self.size_px, self.size_px):
            height, width = label_HW.shape
            raise UserError(
                f"{self.column.folder}: label map {row} of {self.split} is {width} x {height}, the column says "
                f"{self.size_px} x {self.size_px}; make the column again"
            )
        return label_HW


def shown_superpixels(image_HWC: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Superpixels for pictures: as the clusters' own settings say, if they do."""
    return superpixels(
        image_HWC,
        segments=settings.get("segments", SHOWN_SEGMENTS),
        compactness=settings.get("compactness", SHOWN_COMPACTNESS),
    )


def open_labels(folder: str | Path, index: Index, splits: Sequence[str]) -> Column:
    """The column of label maps, which must be of these shards and cover these splits.

    Raises:
        UserError: it is another column, unfinished, of other shards, or lacks a split.
    """
    column = Column.open(Path(folder), index)
    if column.about.name != COLUMN_NAME:
        raise UserError(
            f"{folder}: a column of {column.about.name!r}, not of label maps ({COLUMN_NAME!r}); "
            "make some with wsol cluster"
        )
    for split in splits:
        if split not in column.about.splits:
            raise UserError(
                f"{folder}: label maps of {', '.join(column.about.splits)}, not of {split!r}; make them with "
                f"wsol cluster --split {split}"
            )
    return column


def open_refiner(config: RefineConfig | None, index: Index, split: str) -> Refiner | None:
    """The refinement that a configuration asks for; None where it asks for none."""
    if config is None or config.labels is None or config.alpha == 0:
        return None
    return Refiner(open_labels(config.labels, index, (split,)), split, alpha=config.alpha)


def check_refine(config: RefineConfig, index: Index, splits: Sequence[str]) -> None:
    """Refuse before anything is scored what `open_refiner` would refuse.

    Raises:
        UserError: the first of it.
    """
    if config.labels is not None:
        try:
            open_labels(config.labels, index, splits)
        except UserError as error:
            raise UserError(f"refine.labels: {error}") from error


def refine_settings(config: RefineConfig, index_dir: str) -> dict[str, Any]:
    """What of the refinement shapes the maps: a part of the scoring's identity, empty without one."""
    if config.labels is None or config.alpha == 0:
        return {}
    column = Column.open(Path(config.labels), Index.load(index_dir, check_files=False))
    return {"refine": {"alpha": config.alpha, "labels": column.about.settings}}
