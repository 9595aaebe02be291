"""The class folders of `fit` as a source: without what cannot be used, with boxes, and with splits to score on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from wsol_dist.data.packing.holdout import hash_fraction
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.sources import folder
from wsol_dist.errors import UserError
from wsol_dist.fitting.boxes import Boxes

MOST_HELD_OUT = 1 / 3
"""Share of the images with boxes that each of val and test takes at most."""


class FitSource(folder.Source):
    """As `folder.Source`; where boxes are known and no split is a folder, val and test are held out of the images
    that have some: val chooses the threshold, test is scored with it."""

    def __init__(
        self, root: Path, *, left_out: Collection[str], boxes: Boxes | None, fraction: float, seed: int
    ) -> None:
        super().__init__(folder.Options(root=root))
        self.left_out, self.known, self.seed = frozenset(left_out), boxes, seed
        self.share = 0.0
        if boxes is not None and not self.has_splits and fraction > 0:
            listed = [item.id for item in self._usable()]
            num_boxed = sum(path in boxes.boxes_xyxy for path in listed)
            self.share = min(MOST_HELD_OUT, fraction * len(listed) / max(1, num_boxed))

    def items(self) -> Iterator[Item]:
        """Those that can be used.

        Raises:
            UserError: holding out leaves a class without images to train on, or a split without any.
        """
        items = [dataclasses.replace(item, split=self._split(item)) for item in self._usable()]
        if self.share:
            counts = {
                split: {item.labels[0] for item in items if item.split == split} for split in folder.SPLITS
            }
            missing = set(range(len(self.classes))) - counts["train"]
            cure = "give another --seed or --val-fraction, or more images"
            if missing:
                raise UserError(
                    f"--val-fraction: leaves class {self.classes[min(missing)]!r} without images in train; {cure}"
                )
            for split in ("val", "test"):
                if not counts[split]:
                    raise UserError(f"--val-fraction: leaves no image with boxes for {split}; {cure}")
        yield from items

    def read(self, item: Item) -> Sample:
        """The file, with the boxes that are known of it."""
        sample = super().read(item)
        boxes = None if self.known is None else self.known.boxes_xyxy.get(item.id)
        if self.known is None or boxes is None:
            return sample
        frame = self.known.frame_wh.get(item.id) or folder.image_size(sample.image)
        return dataclasses.replace(sample, boxes_xyxy=np.array(boxes, dtype=np.float64), box_frame_wh=frame)

    def _usable(self) -> Iterator[Item]:
        return (item for item in super().items() if item.id not in self.left_out)

    def _split(self, item: Item) -> str:
        if not self.share or self.known is None or item.id not in self.known.boxes_xyxy:
            return item.split
        place = hash_fraction(item.id, self.seed)
        return "val" if place < self.share else "test" if place < 2 * self.share else item.split
