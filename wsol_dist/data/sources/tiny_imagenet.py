"""Tiny-ImageNet-200: 64x64 images of 200 classes with one box each; the folder or tiny-imagenet-200.zip as it is.

The official validation images are the split `test`, as in the literature of localization; the official test images
have no labels and are left out. Boxes are [x0, y0, x1, y1] in pixels from 0, the last pixel included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol_dist.data.raw.archive import Place, find_place
from wsol_dist.data.raw.files import extension_of, inside, read_lines, read_published_image, read_rows, to_int
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.errors import UserError

ARCHIVE = "tiny-imagenet-200.zip"
NUM_CLASSES, NUM_TRAIN, NUM_VAL = 200, 500, 50
"""Classes, and images of each in train and in the official val."""
FRAME_WH = (64, 64)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is, and how much of it."""

    root: Path
    """tiny-imagenet-200.zip, or the folder that holds it, or the unpacked folder with wnids.txt."""
    classes: int | None = None
    """Only this many classes, evenly over the sorted wnids; default all."""
    per_class: int | None = None
    """Only the first images of each training class, by number; default all."""


class Source:
    """Tiny-ImageNet; labels are the order of the sorted wnids that were chosen."""

    def __init__(self, options: Options) -> None:
        self.root: Place = find_place(
            options.root, "wnids.txt", archives=[ARCHIVE], what=f"{ARCHIVE} or its contents"
        )
        wnids = sorted(read_lines(self.root / "wnids.txt"))
        count = len(wnids) if options.classes is None else options.classes
        if not 1 <= count <= len(wnids):
            raise UserError(f"--classes: {count} given; 1 to {len(wnids)} allowed")
        if options.per_class is not None and options.per_class < 1:
            raise UserError(f"--per-class: {options.per_class} given; 1 or more allowed")
        self.wnids = [wnids[number * len(wnids) // count] for number in range(count)]
        self.per_class = options.per_class
        words = dict(read_rows(self.root / "words.txt", "wnid", "names"))
        self.classes = tuple(f"{wnid} {words.get(wnid, '')}".strip() for wnid in self.wnids)
        known = NUM_CLASSES if options.classes is None else count
        self.known_counts = {
            "train": known * min(options.per_class or NUM_TRAIN, NUM_TRAIN),
            "test": known * NUM_VAL,
            "classes": known,
        }
        self._boxes: dict[str, list[int]] = {}
        self._items = [*self._train(options.per_class), *self._test()]

    def items(self) -> Iterator[Item]:
        """Train by wnid and number, then the official val in its list's order as `test`."""
        return iter(self._items)

    def read(self, item: Item) -> Sample:
        """The file with its box."""
        return Sample(
            id=item.id,
            image=read_published_image(inside(self.root, item.id)),
            extension=extension_of(item.id),
            labels=item.labels,
            boxes_xyxy=np.array([self._boxes[item.id]], dtype=np.float64),
            box_frame_wh=FRAME_WH,
        )

    def _train(self, per_class: int | None) -> Iterator[Item]:
        for label, wnid in enumerate(self.wnids):
            path = self.root / f"train/{wnid}/{wnid}_boxes.txt"
            rows = read_rows(path, "image", "x0", "y0", "x1", "y1")
            if not rows:
                raise UserError(f"{path}: a class without images")
            for name, *box in rows[:per_class]:
                yield self._item(f"train/{wnid}/images/{name}", "train", label, box, path)

    def _test(self) -> Iterator[Item]:
        labels = {wnid: label for label, wnid in enumerate(self.wnids)}
        path = self.root / "val/val_annotations.txt"
        for name, wnid, *box in read_rows(path, "image", "wnid", "x0", "y0", "x1", "y1"):
            if wnid in labels:
                yield self._item(f"val/images/{name}", "test", labels[wnid], box, path)

    def _item(self, name: str, split: str, label: int, box: list[str], path: Place) -> Item:
        self._boxes[name] = [to_int(number, path) for number in box]
        return Item(id=name, split=split, labels=(label,), where=name)
