"""Class folders: root/CLASS/*.jpg or root/SPLIT/CLASS/*.jpg, boxes from a CSV file where there is one.

Boxes are [x0, y0, x1, y1] in pixels of the image from 0, the last pixel included.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol_dist.data.raw.files import (
    extension_of,
    folders_in,
    images_of_class,
    inside,
    need_folder,
    read_image_bytes,
)
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.shards.shard import image_size
from wsol_dist.errors import UserError

SPLITS = ("train", "val", "test")
CSV_COLUMNS = ["image", "x0", "y0", "x1", "y1"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the folders are."""

    root: Path
    """Folder of class folders, or of the folders train, val, test (or some) that hold class folders."""
    boxes: Path | None = None
    """CSV file with the header image,x0,y0,x1,y1: a row a box; image is the path below the root."""


class Source:
    """Class folders; see the module."""

    def __init__(self, options: Options) -> None:
        self.root = need_folder(
            options.root, "class folders (root/CLASS/*.jpg), or train, val, test with class folders"
        )
        names = folders_in(self.root)
        if not names:
            raise UserError(
                f"{self.root}: no class folders in it; expected root/CLASS/*.jpg or root/SPLIT/CLASS/*.jpg"
            )
        self.has_splits = set(names) <= set(SPLITS)
        self.splits = [name for name in SPLITS if name in names] if self.has_splits else ["train"]
        self.classes = tuple(
            sorted({name for split in self.splits for name in folders_in(self._folder(split))})
        )
        if len(self.classes) < 2:
            raise UserError(f"{self.root}: {len(self.classes)} class folders found, at least 2 are needed")
        self.known_counts: dict[str, int] = {}
        self.boxes = None if options.boxes is None else read_boxes(options.boxes, self.root)

    def items(self) -> Iterator[Item]:
        """By split, class and file name; an id is the path below the root."""
        for split in self.splits:
            present = folders_in(self._folder(split))
            missing = [name for name in self.classes if name not in present]
            if missing and split == "train":
                raise UserError(
                    f"{self._folder(split)}: a class without images: no folder {missing[0]!r} in it"
                )
            for name in present:
                for file in images_of_class(self._folder(split) / name):
                    path = f"{split}/{name}/{file}" if self.has_splits else f"{name}/{file}"
                    yield Item(id=path, split=split, labels=(self.classes.index(name),), where=path)

    def read(self, item: Item) -> Sample:
        """The file, with its boxes where the CSV has any."""
        image = read_image_bytes(self.root / str(item.where))
        boxes = None if self.boxes is None else self.boxes.get(item.id)
        frame = image_size(image) if boxes else (0, 0)
        known = frame != (0, 0)  # boxes of an unreadable image mean nothing
        return Sample(
            id=item.id,
            image=image,
            extension=extension_of(str(item.where)),
            labels=item.labels,
            boxes_xyxy=np.array(boxes, dtype=np.float64) if known else None,
            box_frame_wh=frame if known else None,
        )

    def _folder(self, split: str) -> Path:
        return self.root / split if self.has_splits else self.root


def read_boxes(path: Path, root: Path) -> dict[str, list[list[float]]]:
    """Boxes by image id.

    Raises:
        UserError: no such file, another header, no number, an image that is not there.
    """
    boxes: dict[str, list[list[float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot read the boxes: {error}") from error
    if not rows or rows[0] != CSV_COLUMNS:
        given = ",".join(rows[0]) if rows else "an empty file"
        raise UserError(f"{path}: header {given!r} given, {','.join(CSV_COLUMNS)!r} expected")
    for number, row in enumerate(rows[1:], start=2):
        boxes.setdefault(row[0], []).append(_box(row, f"{path}: row {number}"))
        if len(boxes[row[0]]) == 1 and not inside(root, row[0]).is_file():
            raise UserError(f"{path}: row {number}: no image {row[0]!r} below {root}")
    return boxes


def _box(row: list[str], where: str) -> list[float]:
    try:
        box = [float(text) for text in row[1:]]
    except ValueError:
        box = []
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[2] < box[0] or box[3] < box[1]:
        raise UserError(
            f"{where}: {','.join(row)!r} given, image,x0,y0,x1,y1 with x0 <= x1 and y0 <= y1 expected"
        )
    return box
