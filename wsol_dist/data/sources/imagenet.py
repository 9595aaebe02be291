"""ImageNet-1k (ILSVRC2012): its own folders and XML boxes, or the lists of the wsolevaluation layout.

The official validation set is the split `test`, as in the literature of localization. Boxes are
[x0, y0, x1, y1] as the annotations have them: pixels of the original image, the last pixel included.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from wsol_dist.data.files import (
    extension_of,
    folders_in,
    images_in,
    images_of_class,
    inside,
    need_folder,
    read_image_bytes,
    read_lines,
    read_table,
    to_int,
)
from wsol_dist.data.sample import Item, Sample
from wsol_dist.errors import UserError

NUM_CLASSES = 1000
NAME_FILES = ("synset_words.txt", "LOC_synset_mapping.txt")
Boxes = tuple[np.ndarray | None, tuple[int, int] | None]
"""Boxes (n, 4) and width, height of the original image."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """Folder that holds train and val (or ILSVRC/Data/CLS-LOC) with Annotations, or dataset and metadata."""


class Layout(Protocol):
    """One way to keep the data set on disk."""

    def items(self) -> Iterator[Item]: ...

    def boxes(self, item: Item) -> Boxes: ...


class Source:
    """ImageNet; labels are the order of the sorted wnids, always 1000 classes."""

    def __init__(self, options: Options) -> None:
        self.root = need_folder(options.root, "the folder of ImageNet")
        names = _class_names(self.root)
        self.layout: Layout
        if (self.root / "metadata" / "ILSVRC").is_dir():
            self.layout = Lists(self.root)
            names = names or [str(label) for label in range(NUM_CLASSES)]
        else:
            self.layout = Folders(self.root, [name.partition(" ")[0] for name in names])
            names = names or self.layout.wnids
        self.classes = tuple(names)

    def items(self) -> Iterator[Item]:
        """By split, then in the order of the lists or of the names."""
        return self.layout.items()

    def read(self, item: Item) -> Sample:
        """The file, with its boxes where it has any."""
        boxes, frame = self.layout.boxes(item)
        return Sample(
            id=item.id,
            image=read_image_bytes(inside(self.root, str(item.where))),
            extension=extension_of(str(item.where)),
            labels=item.labels,
            boxes_xyxy=boxes,
            box_frame_wh=frame,
        )


class Lists:
    """dataset/ILSVRC/val/*.JPEG with metadata/ILSVRC/test/*.txt (and train, val if they are there)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        need_folder(root / "dataset" / "ILSVRC", "images in dataset/ILSVRC beside metadata/ILSVRC")
        found = folders_in(root / "metadata" / "ILSVRC")
        self.splits = [split for split in ("train", "val", "test") if split in found]
        if not self.splits:
            raise UserError(f"{root / 'metadata' / 'ILSVRC'}: none of the folders train, val, test in it")
        self._boxes: dict[str, Boxes] = {}
        for split in self.splits:
            self._read_boxes(root / "metadata" / "ILSVRC" / split)

    def items(self) -> Iterator[Item]:
        """In the order of image_ids.txt."""
        for split in self.splits:
            folder = self.root / "metadata" / "ILSVRC" / split
            path = folder / "class_labels.txt"
            labels = {name: to_int(label, path) for name, label in read_table(path, "image", "label")}
            for name in read_lines(folder / "image_ids.txt"):
                label = labels.get(name, -1)
                if not 0 <= label < NUM_CLASSES:
                    raise UserError(f"{path}: {name}: label {label} given, 0 to {NUM_CLASSES - 1} expected")
                yield Item(id=name, split=split, labels=(label,), where=f"dataset/ILSVRC/{name}")

    def boxes(self, item: Item) -> Boxes:
        return self._boxes.get(item.id, (None, None))

    def _read_boxes(self, folder: Path) -> None:
        path, sizes_path = folder / "localization.txt", folder / "image_sizes.txt"
        if not path.is_file():
            return
        sizes = {
            name: (to_int(width, sizes_path), to_int(height, sizes_path))
            for name, width, height in read_table(sizes_path, "image", "width", "height")
        }
        rows: dict[str, list[list[int]]] = {}
        for name, *numbers in read_table(path, "image", "x0", "y0", "x1", "y1"):
            rows.setdefault(name, []).append([to_int(number, path) for number in numbers])
        for name, boxes in rows.items():
            if name not in sizes:
                raise UserError(f"{sizes_path}: no row for {name}, which has boxes in {path.name}")
            self._boxes[name] = (np.array(boxes, dtype=np.float64), sizes[name])


class Folders:
    """train/WNID/*.JPEG; val/*.JPEG with Annotations/CLS-LOC/val/*.xml, or val/WNID/*.JPEG."""

    def __init__(self, root: Path, wnids: list[str]) -> None:
        self.root = root
        deep = root / "ILSVRC" / "Data" / "CLS-LOC"
        self.images = deep if deep.is_dir() else root
        base = root / "ILSVRC" if deep.is_dir() else root
        self.annotations = base / "Annotations" / "CLS-LOC"
        self.has = {split: (self.images / split).is_dir() for split in ("train", "val")}
        if not any(self.has.values()):
            raise UserError(
                f"{root}: not the layout of ImageNet; expected train/WNID/*.JPEG and val/*.JPEG below it, "
                "below ILSVRC/Data/CLS-LOC, or the folders dataset/ILSVRC and metadata/ILSVRC"
            )
        self.wnids = wnids or (folders_in(self.images / "train") if self.has["train"] else [])
        if len(self.wnids) != NUM_CLASSES:
            raise UserError(
                f"{root}: {len(self.wnids)} classes found, {NUM_CLASSES} expected; put {NAME_FILES[0]} there "
                "or pack a part of ImageNet with the source 'folder'"
            )
        self.labels = {wnid: label for label, wnid in enumerate(self.wnids)}

    def items(self) -> Iterator[Item]:
        """Train by wnid and name, then the official validation images as `test`."""
        if self.has["train"]:
            for wnid in self.wnids:
                folder = need_folder(
                    self.images / "train" / wnid, f"one folder for each of {NUM_CLASSES} wnids"
                )
                for name in images_of_class(folder):
                    yield self._item(f"train/{wnid}/{name}", "train", wnid)
        if self.has["val"]:
            yield from self._val_items()

    def _val_items(self) -> Iterator[Item]:
        for wnid in folders_in(self.images / "val"):
            for name in images_of_class(self.images / "val" / wnid):
                yield self._item(f"val/{wnid}/{name}", "test", wnid)
        flat = images_in(self.images / "val")
        if flat:
            need_folder(self.annotations / "val", "the XML files that hold the labels of the images in val")
        for name in flat:
            path = self._xml_path(name)
            names = {thing.findtext("name", "") for thing in read_xml(path).iter("object")}
            if len(names) != 1:
                raise UserError(f"{path}: objects of one class expected, found {sorted(names)}")
            yield self._item(f"val/{name}", "test", names.pop())

    def boxes(self, item: Item) -> Boxes:
        path = self._xml_path(item.id.rpartition("/")[2])
        if item.split != "test" or not path.is_file():
            return None, None
        return xml_boxes(read_xml(path), path)

    def _item(self, name: str, split: str, wnid: str) -> Item:
        if wnid not in self.labels:
            raise UserError(f"{self.images / name}: class {wnid!r} is none of the {NUM_CLASSES} wnids")
        where = (self.images / name).relative_to(self.root).as_posix()
        return Item(id=name, split=split, labels=(self.labels[wnid],), where=where)

    def _xml_path(self, image_name: str) -> Path:
        return self.annotations / "val" / (Path(image_name).stem + ".xml")


def read_xml(path: Path) -> ET.Element:
    """The root element of a small XML file.

    Raises:
        UserError: missing, not XML, or with a document type, which could expand without bound.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise UserError(f"{path}: refused: an annotation with a document type declaration")
        return ET.fromstring(text)
    except (OSError, ValueError, ET.ParseError) as error:
        raise UserError(f"{path}: cannot read this annotation: {error}") from error


def xml_boxes(annotation: ET.Element, path: Path) -> Boxes:
    """All boxes of an annotation and the size of the original image.

    Raises:
        UserError: a number is missing.
    """
    try:
        corners = [
            [float(thing.findtext(f"bndbox/{corner}", "")) for corner in ("xmin", "ymin", "xmax", "ymax")]
            for thing in annotation.iter("object")
        ]
        frame = (int(annotation.findtext("size/width", "")), int(annotation.findtext("size/height", "")))
    except ValueError as error:
        raise UserError(f"{path}: size and bndbox with xmin, ymin, xmax, ymax expected: {error}") from error
    return (np.array(corners, dtype=np.float64), frame) if corners else (None, None)


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
