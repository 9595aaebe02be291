"""Oxford Flowers-102: 102 kinds, masks from the segmentations; folders or 102flowers.tgz as it is.

Splits train, val and test are the official ones (1,020, 1,020 and 6,149 images). There are no boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol_dist.data.raw.archive import Place, first_place
from wsol_dist.data.raw.files import need_folder, read_published_image
from wsol_dist.data.raw.masks import read_colours
from wsol_dist.data.raw.mat_file import as_list, read_mat
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.errors import UserError

NUM_CLASSES = 102
KNOWN_COUNTS = {"train": 1020, "val": 1020, "test": 6149}
SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}
BACKGROUND_RGB = (0, 0, 254)
"""Of the segmentations, which are JPEGs: near it, not exactly it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """Folder with imagelabels.mat, setid.mat and jpg (or 102flowers.tgz), and segmim (or 102segmentations.tgz) if there
    shall be masks."""
    background_distance: int = 64
    """A pixel of a segmentation is background if no colour differs from its blue by more than this, 0 to 255."""


class Source:
    """Oxford Flowers; labels are the numbers of imagelabels.mat less 1."""

    def __init__(self, options: Options) -> None:
        from torchvision.datasets import Flowers102

        if not 0 <= options.background_distance <= 255:
            raise UserError(f"--background-distance: {options.background_distance} given; 0 to 255 allowed")
        self.root = need_folder(options.root, "the folder of Flowers-102")
        self.distance = options.background_distance
        self.classes = tuple(Flowers102.classes)
        assert len(self.classes) == NUM_CLASSES
        self.known_counts = dict(KNOWN_COUNTS)
        images = _open(self.root, "jpg", "102flowers.tgz")
        if images is None:
            raise UserError(f"{self.root}: neither jpg nor 102flowers.tgz in it")
        self.images: Place = images
        self.masks = _open(self.root, "segmim", "102segmentations.tgz")
        self.labels = as_list(read_mat(self.root / "imagelabels.mat", "labels")["labels"])
        self.numbers = read_mat(self.root / "setid.mat", *SPLITS.values())

    def items(self) -> Iterator[Item]:
        """By split, in the order of setid.mat."""
        for split, name in SPLITS.items():
            for number in map(int, as_list(self.numbers[name])):
                label = int(self.labels[number - 1]) if 1 <= number <= len(self.labels) else 0
                if not 1 <= label <= NUM_CLASSES:
                    raise UserError(
                        f"{self.root}: image {number} of setid.mat: a class from 1 to {NUM_CLASSES} expected "
                        f"in imagelabels.mat, which has {len(self.labels)} labels"
                    )
                yield Item(id=f"image_{number:05d}.jpg", split=split, labels=(label - 1,), where=number)

    def read(self, item: Item) -> Sample:
        """The image with its mask."""
        return Sample(
            id=item.id,
            image=read_published_image(self.images / item.id),
            extension="jpg",
            labels=item.labels,
            mask=None if self.masks is None else self._mask(self.masks / f"segmim_{int(item.where):05d}.jpg"),
        )

    def _mask(self, path: Place) -> np.ndarray:
        difference = np.abs(read_colours(path).astype(np.int16) - np.array(BACKGROUND_RGB, np.int16))
        return (difference.max(axis=2) > self.distance).astype(np.uint8)


def _open(root: Path, folder: str, archive: str) -> Place | None:
    place = first_place(root, folder, archive)
    return place / folder if place is not None and (place / folder).is_dir() else place
