"""ImageNet-1k (ILSVRC2012): folders, the official tars as they are, or the lists of the wsolevaluation layout.

The official validation set is the split `test`, as in the literature of localization; ImageNetV2 becomes `val` where it
is given. Boxes are [x0, y0, x1, y1] as the annotations have them: pixels of the original image, the last included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wsol_dist.data.raw.archive import Place, first_place, holding, open_place
from wsol_dist.data.raw.files import (
    extension_of,
    folders_in,
    images_in,
    images_of_class,
    inside,
    need_folder,
    read_lines,
    read_published_image,
    read_rows,
)
from wsol_dist.data.raw.lists import SPLITS, Boxes, ImageList
from wsol_dist.data.raw.xml_file import read_names, read_objects
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.errors import UserError

NUM_CLASSES = 1000
NAME_FILES = ("synset_words.txt", "LOC_synset_mapping.txt")
KNOWN_COUNTS = {"train": 1_281_167, "test": 50_000}
NUM_VAL = 10_000
TRAIN_ARCHIVE, VAL_ARCHIVE = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
TRAIN_BOXES = "ILSVRC2012_bbox_train_v2.tar.gz"
VAL_BOXES = ("ILSVRC2012_bbox_val_v3.tgz", "ILSVRC2012_bbox_val_v3.tar.gz")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """Folder that holds train and val (or ILSVRC/Data/CLS-LOC) with Annotations, or ILSVRC2012_img_train.tar,
    ILSVRC2012_img_val.tar, ILSVRC2012_bbox_val_v3.tgz, or dataset and metadata."""
    imagenetv2: Path | None = None
    """imagenetv2-threshold0.7.tar.gz or its folder: the split val. Needs --imagenetv2-lists."""
    imagenetv2_lists: Path | None = None
    """The folder metadata/ILSVRC/val of wsolevaluation: labels, sizes and boxes of ImageNetV2."""


class Layout(Protocol):
    """One way to keep images on disk."""

    def items(self) -> Iterator[Item]: ...

    def image(self, item: Item) -> Place: ...

    def boxes(self, item: Item) -> Boxes: ...


class Source:
    """ImageNet; labels are the order of the sorted wnids, always 1000 classes."""

    def __init__(self, options: Options) -> None:
        if (options.imagenetv2 is None) != (options.imagenetv2_lists is None):
            raise UserError("--imagenetv2 and --imagenetv2-lists: one given, both are needed")
        self.root = need_folder(options.root, "the folder of ImageNet")
        self.known_counts = dict(KNOWN_COUNTS)
        names = _class_names(self.root)
        self.layouts: dict[str, Layout] = {}
        if (self.root / "metadata" / "ILSVRC").is_dir():
            self.layouts["main"] = Lists(self.root)
            names = names or [str(label) for label in range(NUM_CLASSES)]
        else:
            folders = Folders(self.root, [name.partition(" ")[0] for name in names])
            self.layouts["main"] = folders
            names = names or folders.wnids
        if options.imagenetv2 is not None and options.imagenetv2_lists is not None:
            self.layouts["v2"] = ImageNetV2(options.imagenetv2, options.imagenetv2_lists)
            self.known_counts["val"] = NUM_VAL
        self.classes = tuple(names)

    def items(self) -> Iterator[Item]:
        """By split, then in the order of the lists or of the names."""
        for layout in self.layouts.values():
            yield from layout.items()

    def read(self, item: Item) -> Sample:
        """The file, with its boxes where it has any."""
        layout = self.layouts["v2" if item.where == ImageNetV2.MARK else "main"]
        boxes, frame = layout.boxes(item)
        return Sample(
            id=item.id,
            image=read_published_image(layout.image(item)),
            extension=extension_of(item.id),
            labels=item.labels,
            boxes_xyxy=boxes,
            box_frame_wh=frame,
        )


class Lists:
    """dataset/ILSVRC/val/*.JPEG with metadata/ILSVRC/test/*.txt (and train, val if they are there)."""

    def __init__(self, root: Path) -> None:
        metadata = root / "metadata" / "ILSVRC"
        self.images = need_folder(
            root / "dataset" / "ILSVRC", "images in dataset/ILSVRC beside metadata/ILSVRC"
        )
        found = folders_in(metadata)
        self.lists = [
            ImageList(metadata / split, split=split, num_classes=NUM_CLASSES)
            for split in SPLITS
            if split in found
        ]
        if not self.lists:
            raise UserError(f"{metadata}: none of the folders train, val, test in it")

    def items(self) -> Iterator[Item]:
        """In the order of image_ids.txt."""
        for one in self.lists:
            yield from one.items()

    def image(self, item: Item) -> Place:
        return inside(self.images, item.id)

    def boxes(self, item: Item) -> Boxes:
        found = (one.boxes(item.id) for one in self.lists)
        return next((boxes for boxes in found if boxes[0] is not None), (None, None))


class ImageNetV2:
    """Ten images of each class with boxes; `where` of its items is `MARK`, since a held-out split may be val too."""

    MARK = "imagenetv2"
    PREFIX = "val2/"
    """Before every name in the lists."""

    def __init__(self, images: Path, lists: Path) -> None:
        self.list = ImageList(open_place(lists), split="val", num_classes=NUM_CLASSES)
        found = holding(open_place(images), "0")
        if found is None:
            raise UserError(f"{images}: no folder '0' in it; expected ImageNetV2's folders 0 to 999")
        self.images = found
        self.renamed: dict[str, str] = {}
        if (
            open_place(lists) / "mapping.txt"
        ).is_file():  # a later release of the images has other file names
            rows = read_rows(open_place(lists) / "mapping.txt", "listed", "released", separator=", ")
            self.renamed = {listed: released for listed, released in rows}

    def items(self) -> Iterator[Item]:
        for item in self.list.items():
            yield Item(id=item.id, split="val", labels=item.labels, where=self.MARK)

    def image(self, item: Item) -> Place:
        name = item.id.removeprefix(self.PREFIX)
        path = inside(self.images, name)
        return path if path.is_file() else inside(self.images, self.renamed.get(name, name))

    def boxes(self, item: Item) -> Boxes:
        return self.list.boxes(item.id)


class Folders:
    """train/WNID/*.JPEG; val/*.JPEG with Annotations/CLS-LOC/val/*.xml, or val/WNID/*.JPEG; or the tars of these."""

    def __init__(self, root: Path, wnids: list[str]) -> None:
        deep = root / "ILSVRC" / "Data" / "CLS-LOC"
        images, base = (deep, root / "ILSVRC") if deep.is_dir() else (root, root)
        self.places = {
            "train": _folder_or_tar(images / "train", root / TRAIN_ARCHIVE, nested=True),
            "val": _folder_or_tar(images / "val", root / VAL_ARCHIVE),
        }
        if not any(self.places.values()):
            raise UserError(
                f"{root}: not the layout of ImageNet; expected train/WNID/*.JPEG and val/*.JPEG below it or below "
                f"ILSVRC/Data/CLS-LOC, {TRAIN_ARCHIVE} and {VAL_ARCHIVE}, or dataset/ILSVRC and metadata/ILSVRC"
            )
        train = self.places["train"]
        self.wnids = wnids or (folders_in(train) if train else [])
        if len(self.wnids) != NUM_CLASSES:
            raise UserError(
                f"{root}: {len(self.wnids)} classes found, {NUM_CLASSES} expected; put {NAME_FILES[0]} there "
                "or pack a part of ImageNet with the source 'folder'"
            )
        self.labels = {wnid: label for label, wnid in enumerate(self.wnids)}
        annotations = base / "Annotations" / "CLS-LOC"
        self.annotations = {
            "train": _annotations(
                first_place(annotations, "train") or first_place(root, TRAIN_BOXES), self.wnids
            ),
            "val": first_place(annotations, "val") or _below(first_place(root, *VAL_BOXES), "val"),
        }

    def items(self) -> Iterator[Item]:
        """Train by wnid and name, then the official validation images as `test`."""
        train, val = self.places["train"], self.places["val"]
        if train is not None:
            for wnid in self.wnids:
                folder = need_folder(train / wnid, f"one folder for each of {NUM_CLASSES} wnids")
                for name in images_of_class(folder):
                    yield self._item(f"train/{wnid}/{name}", "train", wnid)
        if val is not None:
            yield from self._val_items(val)

    def _val_items(self, val: Place) -> Iterator[Item]:
        for wnid in folders_in(val):
            for name in images_of_class(val / wnid):
                yield self._item(f"val/{wnid}/{name}", "test", wnid)
        flat = images_in(val)
        if flat and self.annotations["val"] is None:
            raise UserError(
                f"{val}: images without folders: their labels are in XML files; expected {VAL_BOXES[0]} "
                "or Annotations/CLS-LOC/val beside them"
            )
        for name in flat:
            path = self._xml(f"val/{name}")
            assert path is not None
            names = set(read_names(path))
            if len(names) != 1:
                raise UserError(f"{path}: objects of one class expected, found {sorted(names)}")
            yield self._item(f"val/{name}", "test", names.pop())

    def image(self, item: Item) -> Place:
        folder, _, name = item.id.partition("/")
        place = self.places[folder]
        assert place is not None
        return inside(place, name)

    def boxes(self, item: Item) -> Boxes:
        path = self._xml(item.id)
        if path is None or not path.is_file():
            return None, None
        objects = read_objects(path)
        return (objects.boxes_xyxy, objects.size_wh) if objects.names else (None, None)

    def _item(self, name: str, split: str, wnid: str) -> Item:
        if wnid not in self.labels:
            raise UserError(f"{name}: class {wnid!r} is none of the {NUM_CLASSES} wnids")
        return Item(id=name, split=split, labels=(self.labels[wnid],), where=name)

    def _xml(self, name: str) -> Place | None:
        folder, _, rest = name.partition("/")
        place = self.annotations[folder]
        below = rest if folder == "train" else rest.rpartition("/")[2]
        return None if place is None else place / f"{below.rpartition('.')[0]}.xml"


def _folder_or_tar(folder: Path, tar: Path, *, nested: bool = False) -> Place | None:
    if folder.is_dir():
        return folder
    return open_place(tar, nested=nested) if tar.is_file() else None


def _annotations(place: Place | None, wnids: list[str]) -> Place | None:
    """The folder of the wnids' folders, which archives may have one level down; not every class has boxes."""
    found = (holding(place, wnid) for wnid in wnids) if place is not None else iter(())
    return next((one for one in found if one is not None), None)


def _below(place: Place | None, name: str) -> Place | None:
    return place / name if place is not None and (place / name).is_dir() else place


def _class_names(root: Path) -> list[str]:
    """Lines `n01440764 tench, Tinca tinca` by wnid, or nothing; the wnid keeps equal names apart."""
    for name in NAME_FILES:
        if (root / name).is_file():
            lines = sorted(read_lines(root / name))
            if len(lines) != NUM_CLASSES or len({line.partition(" ")[0] for line in lines}) != NUM_CLASSES:
                raise UserError(
                    f"{root / name}: {len(lines)} lines given, {NUM_CLASSES} different wnids expected"
                )
            return lines
    return []
