"""CUB-200-2011: birds with boxes, and masks where the segmentations are; the folder or CUB_200_2011.tgz as it is.

Splits train and test are the official ones. CUBV2 (five more images of each class, with boxes) becomes the split `val`
where it is given. Boxes are [x, y, x + width, y + height] as the data set's own numbers give them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from wsol_dist.data.raw.archive import Place, find_place, first_place, holding, open_place
from wsol_dist.data.raw.files import (
    extension_of,
    inside,
    read_published_image,
    read_rows,
    to_float,
)
from wsol_dist.data.raw.lists import ImageList
from wsol_dist.data.raw.masks import read_colours
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.shards.shard import image_size
from wsol_dist.errors import UserError

ARCHIVE, MASK_ARCHIVE = "CUB_200_2011.tgz", "segmentations.tgz"
KNOWN_COUNTS = {"train": 5994, "test": 5794, "classes": 200}
NUM_VAL = 1000
NUM_ANNOTATORS = 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """CUB_200_2011.tgz, or the folder that holds it, or the unpacked folder with images.txt."""
    segmentations: Path | None = None
    """segmentations.tgz or its folder; by default looked for in the root."""
    mask_votes: Annotated[int, Field(ge=1, le=NUM_ANNOTATORS)] = 3
    """A pixel is object where at least this many of the 5 annotators say so."""
    cubv2: Path | None = None
    """CUBV2.tar or its folder (CLASS/NUMBER.jpg): the split val. Needs --cubv2-lists."""
    cubv2_lists: Path | None = None
    """The folder metadata/CUB/val of wsolevaluation: labels, sizes and boxes of CUBV2."""


class Source:
    """CUB; labels are the order of classes.txt."""

    def __init__(self, options: Options) -> None:
        if (options.cubv2 is None) != (options.cubv2_lists is None):
            raise UserError("--cubv2 and --cubv2-lists: one given, both are needed")
        what = f"{ARCHIVE} or its contents"
        self.root: Place = find_place(options.root, "images.txt", archives=[ARCHIVE], what=what)
        self.min_grey = round(options.mask_votes * 255 / NUM_ANNOTATORS)
        numbers, self.classes = zip(*self._read("classes.txt", "number", "name"), strict=True)
        self.labels = {number: label for label, number in enumerate(numbers)}
        self.boxes = self._read_boxes()
        self.masks = _find_masks(options.segmentations, options.root, self.root)
        self.known_counts = dict(KNOWN_COUNTS)
        self.val: ImageList | None = None
        if options.cubv2 is not None and options.cubv2_lists is not None:
            self.val_root = _find_images(options.cubv2, self.classes)
            self.val = ImageList(open_place(options.cubv2_lists), split="val", num_classes=len(self.classes))
            self.known_counts["val"] = NUM_VAL

    def items(self) -> Iterator[Item]:
        """In the order of images.txt, then CUBV2; an id is CLASS/FILE."""
        splits = {number: split for number, split in self._read("train_test_split.txt", "image", "is train")}
        labels = dict(self._read("image_class_labels.txt", "image", "class"))
        for number, name in self._read("images.txt", "image", "path"):
            split = {"1": "train", "0": "test"}.get(splits.get(number, ""))
            label = self.labels.get(labels.get(number, ""))
            if split is None or label is None:
                raise UserError(
                    f"{self.root}: image {number} ({name}): a class of classes.txt expected in "
                    "image_class_labels.txt, 1 (train) or 0 (test) in train_test_split.txt"
                )
            if number not in self.boxes:
                raise UserError(f"{self.root / 'bounding_boxes.txt'}: no row for image {number} ({name})")
            yield Item(id=name, split=split, labels=(label,), where=number)
        if self.val is not None:
            yield from self.val.items()

    def read(self, item: Item) -> Sample:
        """The image with its box and its mask."""
        if item.split == "val" and item.where not in self.boxes:
            return self._read_val(item)
        image = read_published_image(inside(self.root / "images", item.id))
        frame = image_size(image)
        known = frame != (0, 0)  # boxes of an unreadable image mean nothing
        return Sample(
            id=item.id,
            image=image,
            extension=extension_of(item.id),
            labels=item.labels,
            boxes_xyxy=np.array([self.boxes[str(item.where)]], dtype=np.float64) if known else None,
            box_frame_wh=frame if known else None,
            mask=self._mask(item.id),
        )

    def _read_val(self, item: Item) -> Sample:
        assert self.val is not None
        boxes, frame = self.val.boxes(item.id)
        return Sample(
            id=item.id,
            image=read_published_image(inside(self.val_root, item.id)),
            extension=extension_of(item.id),
            labels=item.labels,
            boxes_xyxy=boxes,
            box_frame_wh=frame,
        )

    def _mask(self, name: str) -> np.ndarray | None:
        if self.masks is None:
            return None
        path = inside(self.masks, name.rpartition(".")[0] + ".png")
        return (read_colours(path).max(axis=2) >= self.min_grey).astype(np.uint8)

    def _read(self, name: str, *columns: str) -> list[list[str]]:
        return read_rows(self.root / name, *columns, separator=None)

    def _read_boxes(self) -> dict[str, list[float]]:
        boxes = {}
        path = self.root / "bounding_boxes.txt"
        for number, *fields in self._read("bounding_boxes.txt", "image", "x", "y", "width", "height"):
            x, y, width, height = (to_float(field, path) for field in fields)
            boxes[number] = [x, y, x + width, y + height]
        return boxes


def _find_masks(given: Path | None, root: Path, found: Place) -> Place | None:
    """The folder of the segmentations' class folders, or None where there are none."""
    place = open_place(given) if given is not None else first_place(found, "segmentations")
    if place is None and root.is_dir():
        place = first_place(root, "segmentations", MASK_ARCHIVE)
    if place is not None and (place / "segmentations").is_dir():
        return place / "segmentations"
    return place


def _find_images(path: Path, classes: tuple[str, ...]) -> Place:
    """The folder of CUBV2's class folders: the root itself or a folder in it."""
    found = holding(open_place(path), classes[0])
    if found is None:
        raise UserError(
            f"{path}: no folder {classes[0]!r} in it; expected CUBV2's images as CLASS/NUMBER.jpg"
        )
    return found
