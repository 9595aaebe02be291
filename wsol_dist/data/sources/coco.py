"""COCO 2014 or 2017: several of 80 labels an image, boxes, masks; folders or the official zips as they are.

The official val, which the literature scores, is the split `test`; `val` is held out of train. Images without any
object are left out. Masks are drawn of the instances, or of the panoptic segmentation, where pixels of no segment are
255; crowds are 255. Boxes are [x, y, x + width, y + height] of the single objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from wsol_dist.data.raw.archive import Place, first_place
from wsol_dist.data.raw.coco_file import CocoFile, read_json
from wsol_dist.data.raw.files import extension_of, inside, need_folder, read_published_image
from wsol_dist.data.raw.masks import read_colours
from wsol_dist.data.shards.sample import IGNORE, Item, Sample
from wsol_dist.errors import UserError

PARTS = {"train": "train", "val": "test"}
"""Part of COCO -> our split."""
KNOWN_COUNTS = {
    2014: {"train": 82_081, "test": 40_137, "classes": 80},
    2017: {"train": 117_266, "test": 4952, "classes": 80},
}
"""Images with at least one object."""
ANNOTATIONS = "annotations"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """Folder with annotations (or annotations_trainval2017.zip) and train2017, val2017 (or .zip), or those of 2014."""
    year: Literal[2014, 2017] = 2017
    """Which of COCO's two divisions."""
    masks: Literal["instances", "panoptic"] = "instances"
    """What masks are drawn of; panoptic needs panoptic_annotations_trainval2017.zip, or of it
    annotations/panoptic_val2017.json and panoptic_val2017/*.png (or .zip) beside it."""


class Source:
    """COCO; labels are the order of the category ids, masks count them from 1."""

    def __init__(self, options: Options) -> None:
        self.root = need_folder(options.root, "the folder of COCO")
        self.year, self.masks = options.year, options.masks
        annotations = self._open(ANNOTATIONS, f"annotations_trainval{self.year}.zip")
        self.files: dict[str, list[CocoFile]] = {}
        self.images: dict[str, Place] = {}
        self.panoptic: dict[str, Panoptic] = {}
        for part in PARTS:
            self._read_part(annotations, part)
        if not self.files:
            raise UserError(
                f"{self.root}: neither instances_train{self.year}.json nor instances_val{self.year}.json in it"
            )
        first = next(iter(self.files.values()))[0]
        self.classes = first.classes
        self.known_counts = dict(KNOWN_COUNTS[options.year])

    def items(self) -> Iterator[Item]:
        """Train, then val as `test`, each by image number; an id is the path of the image."""
        for part, files in self.files.items():
            for number in sorted({number for file in files for number in file.images}):
                file = next(file for file in files if number in file.images)
                yield Item(
                    id=f"{part}{self.year}/{file.images[number].file_name}",
                    split=PARTS[part],
                    labels=file.image_labels(number),
                    where=number,
                )

    def read(self, item: Item) -> Sample:
        """The image with the boxes, their classes and the mask."""
        folder, _, name = item.id.partition("/")
        part, number = folder.removesuffix(str(self.year)), int(item.where)
        file = next(file for file in self.files[part] if number in file.images)
        boxes, box_labels = file.boxes(number)
        mask = self._mask(part, number, file)
        return Sample(
            id=item.id,
            image=read_published_image(inside(self.images[part], name)),
            extension=extension_of(name),
            labels=item.labels,
            boxes_xyxy=boxes,
            box_frame_wh=None if boxes is None else file.images[number].size_wh,
            box_labels=box_labels,
            mask=mask,
            semantic=mask is not None,
        )

    def _mask(self, part: str, number: int, file: CocoFile) -> np.ndarray | None:
        if self.masks == "panoptic":
            return self.panoptic[part].mask(number)
        return file.semantic_mask(number) if file.has_masks(number) else None

    def _read_part(self, annotations: Place, part: str) -> None:
        # A cut of COCO may have boxes for more images than masks: the file with masks comes first.
        names = [f"{kind}_{part}{self.year}" for kind in ("instances", "boxes")]
        files = [
            CocoFile(annotations / f"{name}.json")
            for name in names
            if (annotations / f"{name}.json").is_file()
        ]
        if not files:
            return
        if any(file.classes != files[0].classes for file in files):
            raise UserError(f"{files[-1].path}: other categories than {files[0].path}")
        self.files[part] = files
        self.images[part] = self._open(f"{part}{self.year}", f"{part}{self.year}.zip")
        if self.masks == "panoptic":
            name = f"panoptic_{part}{self.year}"
            self.panoptic[part] = Panoptic(self._holding_panoptic(annotations, name), name, files[0])

    def _holding_panoptic(self, annotations: Place, name: str) -> Place:
        """The folder of the panoptic segmentations: that of the instances, or one in an archive of their own."""
        if (annotations / f"{name}.json").is_file():
            return annotations
        archive = f"panoptic_annotations_trainval{self.year}.zip"
        place = first_place(self.root, archive)
        if place is None:
            raise UserError(f"{self.root}: neither {ANNOTATIONS}/{name}.json nor {archive} in it")
        return place / ANNOTATIONS if (place / ANNOTATIONS).is_dir() else place

    def _open(self, folder: str, archive: str) -> Place:
        place = first_place(self.root, folder, archive)
        if place is None:
            raise UserError(f"{self.root}: neither {folder} nor {archive} in it")
        return place / folder if (place / folder).is_dir() else place


class Panoptic:
    """Panoptic segmentations: a PNG an image whose colours are numbers of segments."""

    def __init__(self, annotations: Place, name: str, file: CocoFile) -> None:
        self.path = annotations / f"{name}.json"
        self.folder = first_place(annotations, name, f"{name}.zip") or annotations / name
        if (self.folder / name).is_dir():
            self.folder = self.folder / name
        self.labels = file.labels
        self.segments: dict[int, tuple[str, list[tuple[int, int, bool]]]] = {}
        try:
            for one in read_json(self.path)["annotations"]:
                segments = [
                    (int(part["id"]), int(part["category_id"]), bool(part.get("iscrowd")))
                    for part in one["segments_info"]
                ]
                self.segments[int(one["image_id"])] = (str(one["file_name"]), segments)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: not a file of panoptic segmentations: {error!r}") from error

    def mask(self, number: int) -> np.ndarray | None:
        """(H, W) uint8: class + 1 of things, 0 of stuff, 255 in crowds and where nobody said anything."""
        if number not in self.segments:
            return None
        name, segments = self.segments[number]
        colours = read_colours(inside(self.folder, name)).astype(np.uint32)
        ids = colours[..., 0] + 256 * colours[..., 1] + 65_536 * colours[..., 2]
        mask = np.full(ids.shape, IGNORE, np.uint8)
        for segment, category, crowd in segments:
            value = self.labels[category] + 1 if category in self.labels else 0
            mask[ids == segment] = IGNORE if crowd and value else value
        return mask
