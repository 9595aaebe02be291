"""Your own images with a COCO-format JSON file for each split: labels, boxes, masks.

Where every image has objects of one class only, the set has single labels and masks of one object; else it has several
labels an image and masks that say the class of every pixel. Images without objects are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol_dist.data.raw.archive import open_place
from wsol_dist.data.raw.coco_file import CocoFile
from wsol_dist.data.raw.files import extension_of, inside, read_image_bytes
from wsol_dist.data.shards.sample import IGNORE, Item, Sample
from wsol_dist.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where images and annotations are."""

    root: Path
    """Folder or archive below which the images' file_name are."""
    train: Path | None = None
    """JSON file of the training images."""
    val: Path | None = None
    """JSON file of the validation images; without one val is held out of train."""
    test: Path | None = None
    """JSON file of the test images."""


class Source:
    """Images with JSON files; labels are the order of the category ids, which must be the same in all files."""

    def __init__(self, options: Options) -> None:
        given = {"train": options.train, "val": options.val, "test": options.test}
        self.files = {split: CocoFile(path) for split, path in given.items() if path is not None}
        if not self.files:
            raise UserError("coco-json: no annotations given; give one or more of --train, --val, --test")
        self.root = open_place(options.root)
        first = next(iter(self.files.values()))
        for file in self.files.values():
            if file.classes != first.classes:
                raise UserError(f"{file.path}: other categories than {first.path}; all files need the same")
        self.classes = first.classes
        self.known_counts: dict[str, int] = {}
        labels = [file.image_labels(number) for file in self.files.values() for number in file.images]
        self.single_label = all(len(some) <= 1 for some in labels)

    def items(self) -> Iterator[Item]:
        """By split, in the order of the files; an id is the image's file_name."""
        for split, file in self.files.items():
            for number, image in file.images.items():
                yield Item(
                    id=image.file_name,
                    split=split,
                    labels=file.image_labels(number),
                    where=f"{split}/{number}",
                )

    def read(self, item: Item) -> Sample:
        """The image with the boxes, their classes and the mask."""
        split, _, number_text = str(item.where).partition("/")
        file, number = self.files[split], int(number_text)
        boxes, box_labels = file.boxes(number)
        mask = file.semantic_mask(number) if file.has_masks(number) else None
        if mask is not None and self.single_label:
            mask = np.where(mask == IGNORE, IGNORE, mask > 0).astype(np.uint8)
        return Sample(
            id=item.id,
            image=read_image_bytes(inside(self.root, item.id)),
            extension=extension_of(item.id),
            labels=item.labels,
            boxes_xyxy=boxes,
            box_frame_wh=None if boxes is None else file.images[number].size_wh,
            box_labels=None if self.single_label else box_labels,
            mask=mask,
            semantic=mask is not None and not self.single_label,
        )
