"""Oxford-IIIT Pet: 37 breeds with masks from the trimaps; folders or images.tar.gz, annotations.tar.gz as they are.

The official trainval is the split `train`. The trimap's border is ignore. There are no boxes of whole animals: the XML
files have heads only and are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol_dist.data.raw.archive import Place, first_place
from wsol_dist.data.raw.files import inside, need_folder, read_lines, read_published_image, to_int
from wsol_dist.data.raw.masks import read_indices
from wsol_dist.data.shards.sample import IGNORE, Item, Sample
from wsol_dist.errors import UserError

NUM_CLASSES = 37
KNOWN_COUNTS = {"train": 3680, "test": 3669}
LISTS = {"train": "trainval.txt", "test": "test.txt"}
TRIMAP = np.zeros(256, np.uint8)
"""Value of a trimap -> value of the mask: 1 animal, 2 background, 3 border."""
TRIMAP[1], TRIMAP[3] = 1, IGNORE


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """Folder with images (or images.tar.gz) and annotations (or annotations.tar.gz)."""


class Source:
    """Oxford-IIIT Pet; labels are the class numbers of the lists less 1."""

    def __init__(self, options: Options) -> None:
        self.root = need_folder(options.root, "the folder of Oxford-IIIT Pet")
        self.known_counts = dict(KNOWN_COUNTS)
        self.images = _open(self.root, "images")
        self.annotations = _open(self.root, "annotations")
        self._items = [item for split in LISTS for item in self._read_list(split)]
        names = {item.labels[0]: item.id.rpartition("_")[0] for item in self._items}
        missing = sorted(set(range(NUM_CLASSES)) - set(names))
        if missing:
            raise UserError(f"{self.annotations}: a class without images: number {missing[0] + 1}")
        self.classes = tuple(names[label].replace("_", " ") for label in range(NUM_CLASSES))

    def items(self) -> Iterator[Item]:
        """In the order of trainval.txt and test.txt."""
        return iter(self._items)

    def read(self, item: Item) -> Sample:
        """The image with its mask."""
        trimap = read_indices(inside(self.annotations / "trimaps", f"{item.where}.png"))
        return Sample(
            id=item.id,
            image=read_published_image(inside(self.images, item.id)),
            extension="jpg",
            labels=item.labels,
            mask=TRIMAP[trimap],
        )

    def _read_list(self, split: str) -> Iterator[Item]:
        path = self.annotations / LISTS[split]
        for line in read_lines(path):
            name, *numbers = line.split()
            label = to_int(numbers[0], path) - 1 if len(numbers) == 3 else -1
            if not 0 <= label < NUM_CLASSES:
                raise UserError(
                    f"{path}: {line!r} given, an image, a class from 1 to {NUM_CLASSES}, two numbers expected"
                )
            yield Item(id=f"{name}.jpg", split=split, labels=(label,), where=name)


def _open(root: Path, folder: str) -> Place:
    place = first_place(root, folder, f"{folder}.tar.gz")
    if place is None:
        raise UserError(f"{root}: neither {folder} nor {folder}.tar.gz in it")
    return place / folder if (place / folder).is_dir() else place
