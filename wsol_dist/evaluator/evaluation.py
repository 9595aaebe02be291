"""What an evaluation says: numbers, curves, a row an image, and the images that are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsol_dist.evaluator.cases import Case
from wsol_dist.evaluator.row_file import RowFile
from wsol_dist.metrics.base import MetricRecord
from wsol_dist.metrics.threshold import Threshold


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Everything that a scored split says; the same on every rank but for `rows`."""

    split: str
    threshold: Threshold
    """With the level that rows and `topk_loc` were read at."""
    size_px: int
    image_px: int
    classes: tuple[str, ...]
    records: list[MetricRecord]
    curves: dict[str, np.ndarray]
    """Percentages by threshold position."""
    by_class: dict[str, np.ndarray]
    """What some numbers are the mean of: percentages of the background and of each class, NaN where it never occurs."""
    rows: RowFile
    """One an image, in the order of the index; on the first rank only, elsewhere empty. They lie on disk, so
    iterate as often as needed, but hold no list of them."""
    num_images: int
    cases: list[Case]
    broken: list[str]
    """Ids of images that did not decode and were counted as misses."""
    seconds: float

    def value(self, name: str) -> float | None:
        """A printed number by its name; None where the split does not have it."""
        return next((record.value for record in self.records if record.name == name), None)
