"""The lists of the field's box protocol (wsolevaluation): a folder of text files for each split.

`image_ids.txt` (a path a row), `class_labels.txt` (path,label), `image_sizes.txt` (path,width,height of the original)
and `localization.txt` (path,x0,y0,x1,y1: pixels of the original from 0, the last pixel included; a row a box).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wsol_dist.data.raw.archive import Place
from wsol_dist.data.raw.files import read_lines, read_table, to_int
from wsol_dist.data.shards.sample import Item
from wsol_dist.errors import UserError

SPLITS = ("train", "val", "test")
Boxes = tuple[np.ndarray | None, tuple[int, int] | None]
"""Boxes (n, 4) and width, height of the original image; both None where there are none."""


class ImageList:
    """One split's lists; the boxes are read at once, as they are few."""

    def __init__(self, folder: Place, *, split: str, num_classes: int, has_boxes: bool = True) -> None:
        """`has_boxes` is false where localization.txt names masks."""
        self.folder, self.split, self.num_classes = folder, split, num_classes
        self._boxes = read_list_boxes(folder) if has_boxes else {}

    def items(self) -> Iterator[Item]:
        """In the order of image_ids.txt; id and `where` are its row.

        Raises:
            UserError: a list is missing, or a label is missing or out of range.
        """
        path = self.folder / "class_labels.txt"
        labels = {name: to_int(label, path) for name, label in read_table(path, "image", "label")}
        for name in read_lines(self.folder / "image_ids.txt"):
            label = labels.get(name, -1)
            if not 0 <= label < self.num_classes:
                allowed = f"0 to {self.num_classes - 1} expected"
                raise UserError(f"{path}: {name}: label {label} given, {allowed}")
            yield Item(id=name, split=self.split, labels=(label,), where=name)

    def boxes(self, name: str) -> Boxes:
        """Of the image with this row in image_ids.txt."""
        return self._boxes.get(name, (None, None))


def read_list_boxes(folder: Place) -> dict[str, Boxes]:
    """All boxes of a split by image; empty without a localization.txt.

    Raises:
        UserError: a row that does not parse, or an image whose size is not listed.
    """
    path, sizes_path = folder / "localization.txt", folder / "image_sizes.txt"
    if not path.is_file():
        return {}
    sizes = {
        name: (to_int(width, sizes_path), to_int(height, sizes_path))
        for name, width, height in read_table(sizes_path, "image", "width", "height")
    }
    rows: dict[str, list[list[int]]] = {}
    for name, *numbers in read_table(path, "image", "x0", "y0", "x1", "y1"):
        rows.setdefault(name, []).append([to_int(number, path) for number in numbers])
    for name in rows:
        if name not in sizes:
            raise UserError(f"{sizes_path}: no row for {name}, which has boxes in {path.name}")
    return {name: (np.array(boxes, dtype=np.float64), sizes[name]) for name, boxes in rows.items()}
