"""Caltech-101 with its boxes and outlines: 101_ObjectCategories, Annotations, train.txt and test.txt.

The annotation files count from 1; boxes here are [x0, y0, x1, y1] in pixels from 0, the last pixel included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsol_dist.data.files import extension_of, inside, need_folder, read_image_bytes, read_lines
from wsol_dist.data.sample import Item, Sample
from wsol_dist.data.shard import image_size
from wsol_dist.errors import UserError

IMAGES, ANNOTATIONS = "101_ObjectCategories", "Annotations"
ANNOTATION_FOLDERS = {
    "airplanes": "Airplanes_Side_2",
    "Faces": "Faces_2",
    "Faces_easy": "Faces_3",
    "Motorbikes": "Motorbikes_16",
}
"""Class -> its folder below Annotations, where the data set names it differently."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """Folder that holds 101_ObjectCategories, Annotations, and train.txt, test.txt (CLASS/image_0001.jpg)."""


class Source:
    """Caltech-101; the classes are those of the lists, sorted. There is no official val split."""

    def __init__(self, options: Options) -> None:
        self.root = need_folder(
            options.root, f"the folder that holds {IMAGES}, {ANNOTATIONS}, train.txt, test.txt"
        )
        for name in (IMAGES, ANNOTATIONS):
            need_folder(self.root / name, f"{IMAGES} and {ANNOTATIONS} below the root")
        self.lists = {split: self._list(split) for split in ("train", "test")}
        self.classes = tuple(
            sorted({line.partition("/")[0] for line in self.lists["train"] + self.lists["test"]})
        )
        without = set(self.classes) - {line.partition("/")[0] for line in self.lists["train"]}
        if without:
            raise UserError(f"{self.root / 'train.txt'}: a class without images: {sorted(without)[0]!r}")

    def items(self) -> Iterator[Item]:
        """In the order of the lists; an id is the line of the list."""
        for split, lines in self.lists.items():
            for line in lines:
                label = self.classes.index(line.partition("/")[0])
                yield Item(id=line, split=split, labels=(label,), where=f"{IMAGES}/{line}")

    def read(self, item: Item) -> Sample:
        """The image with its box and its filled outline."""
        image = read_image_bytes(inside(self.root, str(item.where)))
        frame = image_size(image)
        path = self._annotation(item.id)
        boxes = mask = None
        if path.is_file() and frame != (0, 0):
            boxes, contour_xy = read_annotation(path)
            mask = fill(contour_xy, frame)
        return Sample(
            id=item.id,
            image=image,
            extension=extension_of(item.id),
            labels=item.labels,
            boxes_xyxy=boxes,
            box_frame_wh=frame if boxes is not None else None,
            mask=mask,
        )

    def _list(self, split: str) -> list[str]:
        path = self.root / f"{split}.txt"
        lines = read_lines(path)
        for line in lines:
            inside(self.root, line)
            if line.count("/") != 1:
                raise UserError(f"{path}: {line!r} given, CLASS/image_0001.jpg expected")
        return lines

    def _annotation(self, line: str) -> Path:
        name, _, file = line.partition("/")
        file = Path(file).stem.replace("image_", "annotation_") + ".mat"
        return self.root / ANNOTATIONS / ANNOTATION_FOLDERS.get(name, name) / file


def read_annotation(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The box (1, 4) and the outline (n, 2) as x, y, both float64 in pixels from 0.

    Raises:
        UserError: not a MATLAB file with `box_coord` and `obj_contour`.
    """
    import scipy.io

    try:
        raw = scipy.io.loadmat(path, variable_names=["box_coord", "obj_contour"])
        # box_coord is unsigned and y0 y1 x0 x1 from 1; the outline is relative to the box's corner, x then y.
        y0, y1, x0, x1 = np.asarray(raw["box_coord"], dtype=np.float64).reshape(4) - 1
        contour = np.asarray(raw["obj_contour"], dtype=np.float64)
        contour_xy = contour.reshape(2, contour.shape[-1]).T + np.array([x0, y0])
    except Exception as error:  # loadmat raises many kinds on damaged files
        raise UserError(f"{path}: box_coord (4 numbers) and obj_contour (2 x n) expected: {error}") from error
    return np.array([[x0, y0, x1, y1]]), contour_xy


def fill(contour_xy: np.ndarray, frame_wh: tuple[int, int]) -> np.ndarray:
    """The filled outline: (H, W) uint8, 1 inside, cut off at the image's edge."""
    width, height = frame_wh
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(contour_xy).astype(np.int32)], 1)
    return mask
