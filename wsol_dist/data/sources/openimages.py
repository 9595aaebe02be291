"""OpenImages in the cut for localization (wsolevaluation): 100 classes, masks with ignore regions in val and test.

The layout is dataset/OpenImages with metadata/OpenImages, or OpenImages_images.zip and OpenImages_annotations.zip in
dataset. The mask is the union of the objects; what only the ignore mask covers is 255.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsol_dist.data.raw.archive import Place, first_place
from wsol_dist.data.raw.files import (
    extension_of,
    folders_in,
    inside,
    need_folder,
    read_lines,
    read_published_image,
    read_table,
)
from wsol_dist.data.raw.lists import SPLITS, ImageList
from wsol_dist.data.raw.masks import read_indices
from wsol_dist.data.shards.sample import IGNORE, Item, Sample
from wsol_dist.errors import UserError

NUM_CLASSES = 100
KNOWN_COUNTS = {"train": 29_819, "val": 2500, "test": 5000}
DESCRIPTIONS = "*class-descriptions*.csv"
"""The official names, of any release: rows like /m/0bt_c3,Book."""
IMAGES_ARCHIVE, MASKS_ARCHIVE = "OpenImages_images.zip", "OpenImages_annotations.zip"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """Folder with dataset/OpenImages (or dataset/OpenImages_images.zip and OpenImages_annotations.zip) and
    metadata/OpenImages. An official class-descriptions.csv in it names the classes in words."""


class Source:
    """OpenImages for localization; a class is named by its code, e.g. 0bt_c3, where no list names it in words."""

    def __init__(self, options: Options) -> None:
        self.root = need_folder(options.root, "the folder with dataset and metadata")
        metadata = need_folder(self.root / "metadata" / "OpenImages", "the lists in metadata/OpenImages")
        dataset = need_folder(self.root / "dataset", "images in dataset/OpenImages")
        self.known_counts = dict(KNOWN_COUNTS)
        self.images = _need(dataset, "OpenImages", IMAGES_ARCHIVE)
        self.masks = _need(dataset, "OpenImages", MASKS_ARCHIVE)
        present = [split for split in SPLITS if split in folders_in(metadata)]
        if not present:
            raise UserError(f"{metadata}: none of the folders train, val, test in it")
        self._items: list[Item] = []
        self.mask_names: dict[str, tuple[list[str], str]] = {}
        for split in present:
            one = ImageList(metadata / split, split=split, num_classes=NUM_CLASSES, has_boxes=False)
            self._items += one.items()
            if (metadata / split / "localization.txt").is_file():
                self.mask_names |= _mask_names(metadata / split / "localization.txt")
        codes = {item.labels[0]: Path(item.id).parent.name for item in self._items}
        words = _class_names(self.root, set(codes.values()))
        in_order = [codes.get(label, str(label)) for label in range(NUM_CLASSES)]
        self.classes = tuple(words.get(code, code) for code in in_order)

    def items(self) -> Iterator[Item]:
        """By split, in the order of image_ids.txt."""
        return iter(self._items)

    def read(self, item: Item) -> Sample:
        """The image with its mask where it has one."""
        return Sample(
            id=item.id,
            image=read_published_image(inside(self.images, item.id)),
            extension=extension_of(item.id),
            labels=item.labels,
            mask=self._mask(*self.mask_names[item.id]) if item.id in self.mask_names else None,
        )

    def _mask(self, objects: list[str], ignored: str) -> np.ndarray:
        found = [read_indices(inside(self.masks, name)) > 0 for name in objects]
        largest = max(found, key=lambda one: one.size).shape
        inside_object = np.zeros(largest, bool)
        for one in found:
            inside_object |= _enlarge(one, largest)
        mask = inside_object.astype(np.uint8)
        if ignored:
            ignore = _enlarge(read_indices(inside(self.masks, ignored)) > 0, largest)
            mask[ignore & ~inside_object] = IGNORE
        return mask


def _enlarge(mask: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Masks of one image may differ in size; nearest pixels, as the protocol's own resize."""
    if mask.shape == size_hw:
        return mask
    return cv2.resize(mask.astype(np.uint8), size_hw[::-1], interpolation=cv2.INTER_NEAREST) > 0


def _mask_names(path: Place) -> dict[str, tuple[list[str], str]]:
    """Image -> its objects' masks and its ignore mask (or nothing), which the first row of an image names."""
    names: dict[str, tuple[list[str], str]] = {}
    for image, mask, ignore in read_table(path, "image", "mask", "ignore mask"):
        objects, known = names.get(image, ([], ""))
        names[image] = ([*objects, mask], known or ignore)
    return names


def _class_names(root: Path, codes: set[str]) -> dict[str, str]:
    """Code -> words, of the official list in a folder; two classes of one name keep their codes."""
    path = next(iter(sorted(root.glob(DESCRIPTIONS))), None)
    if path is None:
        return {}
    rows = [row for row in csv.reader(read_lines(path)) if len(row) == 2]
    words = {code.rpartition("/")[2]: name.strip() for code, name in rows}
    words = {code: words[code] for code in codes if words.get(code)}
    often = Counter(words.values())
    return {code: name for code, name in words.items() if often[name] == 1}


def _need(dataset: Path, folder: str, archive: str) -> Place:
    place = first_place(dataset, folder, archive)
    if place is None:
        raise UserError(f"{dataset}: neither {folder} nor {archive} in it")
    return place
