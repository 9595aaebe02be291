"""Caltech-101 with its boxes and outlines: folders, caltech-101.zip, or the archives in it.

There is no official split: train.txt and test.txt say which images are which, or the usual protocol does (30 images a
class for training, up to 50 others for testing, chosen by a hash of name and seed). The annotation files count from 1;
boxes here are [x0, y0, x1, y1] in pixels from 0, the last pixel included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from wsol_dist.data.packing import totals
from wsol_dist.data.packing.holdout import hash_fraction
from wsol_dist.data.raw.archive import Place, first_place, open_place
from wsol_dist.data.raw.files import (
    extension_of,
    folders_in,
    images_of_class,
    inside,
    need_folder,
    read_lines,
    read_published_image,
)
from wsol_dist.data.raw.mat_file import read_mat
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.shards.shard import image_size
from wsol_dist.errors import UserError

IMAGES, ANNOTATIONS = "101_ObjectCategories", "Annotations"
ARCHIVE = "caltech-101.zip"
BACKGROUND = "BACKGROUND_Google"
"""A folder of images of anything, which is no class."""
NUM_CLASSES = 101
NUM_IMAGES = 8677
"""Of the classes, BACKGROUND_Google left out."""
SPLITS = ("train", "test")
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
    """caltech-101.zip, or the folder that holds it, or 101_ObjectCategories and Annotations, or their .tar.gz and .tar.
    Lists train.txt, test.txt (rows CLASS/image_0001.jpg) in that folder are the splits."""
    train_per_class: PositiveInt = 30
    """Training images of each class, where there are no lists."""
    test_per_class: PositiveInt = 50
    """At most this many test images of each class, where there are no lists."""
    split_seed: NonNegativeInt = 0
    """Seed of the choice, where there are no lists."""


class Source:
    """Caltech-101; the classes are those of the lists, or of the folders, sorted."""

    def __init__(self, options: Options) -> None:
        self.root = options.root
        places = _open_both(options.root)
        self.images, self.annotations = places[IMAGES], places[ANNOTATIONS]
        self.known_counts: dict[str, int] = {}
        self.found_counts: dict[str, int] = {}
        has_lists = self.root.is_dir() and (self.root / "train.txt").is_file()
        self.lists = {split: self._list(split) for split in SPLITS} if has_lists else self._choose(options)
        self.classes = tuple(
            sorted({line.partition("/")[0] for line in self.lists["train"] + self.lists["test"]})
        )
        without = set(self.classes) - {line.partition("/")[0] for line in self.lists["train"]}
        if without:
            raise UserError(f"{self.root / 'train.txt'}: a class without images: {sorted(without)[0]!r}")
        if not has_lists:  # with lists a part is meant
            train = NUM_CLASSES * options.train_per_class
            self.known_counts = {totals.IMAGES: NUM_IMAGES, "train": train, totals.CLASSES: NUM_CLASSES}

    def items(self) -> Iterator[Item]:
        """In the order of the lists; an id is the line of the list."""
        for split, lines in self.lists.items():
            for line in lines:
                label = self.classes.index(line.partition("/")[0])
                yield Item(id=line, split=split, labels=(label,), where=line)

    def read(self, item: Item) -> Sample:
        """The image with its box and its filled outline."""
        image = read_published_image(inside(self.images, item.id))
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
            inside(self.images, line)
            if line.count("/") != 1:
                raise UserError(f"{path}: {line!r} given, CLASS/image_0001.jpg expected")
        return lines

    def _choose(self, options: Options) -> dict[str, list[str]]:
        """The first images of each class by hash train, the next ones test."""
        lists: dict[str, list[str]] = {split: [] for split in SPLITS}
        num_found = 0
        for name in folders_in(self.images):
            if name == BACKGROUND:
                continue
            lines = [f"{name}/{file}" for file in images_of_class(self.images / name)]
            num_found += len(lines)
            lines.sort(key=lambda line: hash_fraction(line, options.split_seed))
            edge = options.train_per_class
            lists["train"] += sorted(lines[:edge])
            lists["test"] += sorted(lines[edge : edge + options.test_per_class])
        self.found_counts[totals.IMAGES] = num_found
        return lists

    def _annotation(self, line: str) -> Place:
        name, _, file = line.partition("/")
        file = Path(file).stem.replace("image_", "annotation_") + ".mat"
        return self.annotations / ANNOTATION_FOLDERS.get(name, name) / file


def _open_both(root: Path) -> dict[str, Place]:
    """The folders of images and annotations, in the root or in its archives, or in the one archive of both."""
    need = f"the folder that holds {IMAGES} and {ANNOTATIONS}, or {ARCHIVE}"
    base = open_place(root) if root.is_file() else need_folder(root, need)
    both = first_place(base, ARCHIVE) or base
    both = both / "caltech-101" if (both / "caltech-101").is_dir() else both
    found = {}
    for name in (IMAGES, ANNOTATIONS):
        place = first_place(both, name, f"{name}.tar.gz", f"{name}.tar")
        if place is None:
            raise UserError(f"{root}: no {name} in it; expected {need}")
        found[name] = place / name if (place / name).is_dir() else place
    return found


def read_annotation(path: Place) -> tuple[np.ndarray, np.ndarray]:
    """The box (1, 4) and the outline (n, 2) as x, y, both float64 in pixels from 0.

    Raises:
        UserError: not a MATLAB file with `box_coord` and `obj_contour`.
    """
    raw = read_mat(path, "box_coord", "obj_contour")
    try:
        # box_coord is unsigned and y0 y1 x0 x1 from 1; the outline is relative to the box's corner, x then y.
        y0, y1, x0, x1 = np.asarray(raw["box_coord"], dtype=np.float64).reshape(4) - 1
        contour = np.asarray(raw["obj_contour"], dtype=np.float64)
        contour_xy = contour.reshape(2, contour.shape[-1]).T + np.array([x0, y0])
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: box_coord (4 numbers) and obj_contour (2 x n) expected: {error}") from error
    return np.array([[x0, y0, x1, y1]]), contour_xy


def fill(contour_xy: np.ndarray, frame_wh: tuple[int, int]) -> np.ndarray:
    """The filled outline: (H, W) uint8, 1 inside, cut off at the image's edge."""
    width, height = frame_wh
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(contour_xy).astype(np.int32)], 1)
    return mask
