"""Label maps as a derived column: the class of every pixel as some method guesses it, to learn from or to score.

A map is a square of the column's `size_px` over the whole image, however oblong that is: 0 background, class + 1,
255 nobody knows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import IGNORE
from wsol_dist.errors import UserError

NAME = "labels"
"""Of the column."""
MOST_CLASSES = 254


class LabelMaps:
    """The label maps of a split, checked as they are read."""

    def __init__(self, column: Column, split: str, index: Index) -> None:
        self.column, self.split = column, split
        self.size_px = int(column.about.settings["size_px"])
        self.num_classes = len(index.classes)
        self.ids = index.rows(split).ids

    @classmethod
    def open(cls, folder: str | Path, index: Index, split: str) -> LabelMaps:
        """The column of label maps in a folder.

        Raises:
            UserError: there is none, it is unfinished, of other shards, of something else, or lacks the split.
        """
        column = Column.open(Path(folder), index)
        if column.about.name != NAME:
            raise UserError(
                f"{folder}: a column of {column.about.name!r}, not of label maps ({NAME!r}); make some with "
                "wsol pseudo-label"
            )
        if split not in column.about.splits:
            raise UserError(
                f"{folder}: label maps of {', '.join(column.about.splits)}, not of {split!r}; make them with "
                f"wsol pseudo-label --split {split}"
            )
        return cls(column, split, index)

    @property
    def made_by(self) -> str:
        """In words what made them."""
        return str(self.column.about.settings.get("made_by", self.column.about.command))

    def read(self, row: int) -> np.ndarray:
        """The label map of a row: (size_px, size_px) uint8; of an image that did not decode all 255.

        Raises:
            UserError: damaged, of another size, or with a class that there is not.
        """
        try:
            label_HW = self.column.value(self.split, row)
        except ValueError as error:
            raise UserError(f"{self._where(row)}: {error}; make the column again") from error
        if label_HW is None:
            return np.full((self.size_px, self.size_px), IGNORE, np.uint8)
        if label_HW.shape != (self.size_px, self.size_px):
            height, width = label_HW.shape
            raise UserError(
                f"{self._where(row)} is {width} x {height}, the column says {self.size_px} x {self.size_px}; "
                "make the column again"
            )
        known = label_HW[label_HW != IGNORE]
        if known.size and known.max() > self.num_classes:
            raise UserError(
                f"{self._where(row)} holds label {known.max()}; allowed are 0 for background, 1 to "
                f"{self.num_classes} for the classes and {IGNORE} for unknown; make the column again"
            )
        return label_HW

    def _where(self, row: int) -> str:
        return f"{self.column.folder}: the label map of {self.ids[row].as_py()}"
