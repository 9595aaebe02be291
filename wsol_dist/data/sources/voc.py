"""PASCAL VOC 2012 for segmentation: several labels an image, masks of 20 classes, with SBD as the usual train-aug.

Train is the official segmentation train (1,464), or with SBD train-aug (10,582: SBD's images and VOC's train without
VOC's val). The official val (1,449), which the literature scores, is the split `test`; `val` is held out of train.
Image labels are the objects of the XML files, difficult ones too. Boxes count from 0 here, the last pixel included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol_dist.data.raw.archive import Place, find_place, first_place, holding, open_place
from wsol_dist.data.raw.files import inside, read_lines, read_published_image
from wsol_dist.data.raw.masks import read_indices
from wsol_dist.data.raw.mat_file import read_mat
from wsol_dist.data.raw.xml_file import read_names, read_objects
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.errors import UserError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
NUM_TRAIN, NUM_TRAIN_AUG, NUM_VAL = 1464, 10_582, 1449
ARCHIVE, SBD_ARCHIVE = "VOCtrainval_11-May-2012.tar", "benchmark.tgz"
MARKER = "ImageSets/Segmentation"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """VOCtrainval_11-May-2012.tar, or the folder that holds it, or VOCdevkit or VOCdevkit/VOC2012."""
    sbd: Path | None = None
    """SBD: benchmark.tgz, or its folder benchmark_RELEASE or dataset (with cls, train.txt, val.txt). By default
    benchmark.tgz or SegmentationClassAug is looked for in the root."""
    plain_train: bool = False
    """Take VOC's own train even where SBD is."""


class Source:
    """VOC 2012; labels are the alphabetical order of the names, masks count them from 1."""

    classes = CLASSES

    def __init__(self, options: Options) -> None:
        what = f"{ARCHIVE} or its folder VOC2012"
        self.root = find_place(options.root, MARKER, archives=[ARCHIVE], what=what, depth=2)
        self.aug = first_place(self.root, "SegmentationClassAug")
        self.sbd = None if options.plain_train else _find_sbd(options)
        val = self._list("val")
        train = self._list("train")
        if not options.plain_train:
            train = self._train_aug(train, set(val))
        self.lists = {"train": train, "test": val}
        self.own_masks = set(self._list("train")) | set(val)
        self.known_counts = {
            "train": NUM_TRAIN
            if (self.sbd is None and self.aug is None) or options.plain_train
            else NUM_TRAIN_AUG,
            "test": NUM_VAL,
        }

    def items(self) -> Iterator[Item]:
        """By split, in the order of the lists, those of SBD sorted; an id is the name of the image."""
        for split, names in self.lists.items():
            for name in names:
                path = self._xml(name)
                yield Item(id=name, split=split, labels=_labels(read_names(path), path), where=name)

    def read(self, item: Item) -> Sample:
        """The image with the boxes, their classes and the mask."""
        path = self._xml(item.id)
        objects = read_objects(path)
        return Sample(
            id=item.id,
            image=read_published_image(inside(self.root / "JPEGImages", f"{item.id}.jpg")),
            extension="jpg",
            labels=item.labels,
            boxes_xyxy=objects.boxes_xyxy - 1,
            box_frame_wh=objects.size_wh,
            box_labels=tuple(_label(name, path) for name in objects.names),
            mask=self._mask(item.id),
            semantic=True,
        )

    def _mask(self, name: str) -> np.ndarray:
        if name in self.own_masks:
            return read_indices(self.root / "SegmentationClass" / f"{name}.png")
        if self.sbd is not None:
            path = inside(self.sbd / "cls", f"{name}.mat")
            try:
                return np.asarray(read_mat(path, "GTcls")["GTcls"]["Segmentation"].item(), dtype=np.uint8)
            except (ValueError, IndexError, AttributeError, TypeError) as error:
                raise UserError(f"{path}: GTcls.Segmentation expected: {error}") from error
        assert self.aug is not None
        return read_indices(self.aug / f"{name}.png")

    def _train_aug(self, train: list[str], val: set[str]) -> list[str]:
        if self.sbd is not None:
            found = {name for part in ("train.txt", "val.txt") for name in read_lines(self.sbd / part)}
        elif self.aug is not None:
            found = {
                entry.name.removesuffix(".png") for entry in self.aug.iterdir() if entry.name.endswith(".png")
            }
        else:
            return train
        return train + sorted(found - val - set(train))

    def _list(self, name: str) -> list[str]:
        return read_lines(self.root / MARKER / f"{name}.txt")

    def _xml(self, name: str) -> Place:
        return inside(self.root / "Annotations", f"{name}.xml")


def _labels(names: list[str], path: Place) -> tuple[int, ...]:
    return tuple(sorted({_label(name, path) for name in names}))


def _label(name: str, path: Place) -> int:
    if name not in CLASSES:
        raise UserError(f"{path}: object {name!r} given, one of {', '.join(CLASSES)} expected")
    return CLASSES.index(name)


def _find_sbd(options: Options) -> Place | None:
    root = options.root if options.root.is_dir() else options.root.parent
    place = open_place(options.sbd) if options.sbd is not None else first_place(root, SBD_ARCHIVE)
    if place is None:
        return None
    found = holding(place, "cls", depth=2)
    if found is None:
        raise UserError(
            f"{options.sbd or root / SBD_ARCHIVE}: no folder cls in it; expected SBD's benchmark_RELEASE"
        )
    return found
