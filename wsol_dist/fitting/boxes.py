"""Boxes that lie beside a person's class folders: a CSV file, or a COCO JSON file whose names are made to fit."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsol_dist.data.raw.coco_file import CocoFile
from wsol_dist.data.sources.folder import CSV_COLUMNS, read_boxes
from wsol_dist.errors import UserError
from wsol_dist.fitting.look import spelling

COCO_KEYS = {"images", "annotations", "categories"}
NONE = "none"
"""What `--boxes` says where a file in the folder is not to be used."""


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Of some images, by their path below the root."""

    path: Path
    boxes_xyxy: dict[str, list[list[float]]]
    frame_wh: dict[str, tuple[int, int]]
    """Size of the image that the boxes are given in, where the file says it."""
    num_unknown: int = 0
    """Images of the file that are not in the folder."""


def find_boxes(root: Path, given: str | None) -> Path | None:
    """The file of boxes: the given one, or the only one that lies in the folder itself.

    Raises:
        UserError: the given one is not there, or there are several.
    """
    if given is not None:
        if given == NONE:
            return None
        if not Path(given).is_file():
            raise UserError(f"--boxes: there is no file {given}; give a CSV or COCO JSON file, or {NONE}")
        return Path(given)
    found = [path for path in sorted(root.iterdir()) if path.is_file() and _holds_boxes(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(
            f"{root}: several files of boxes ({names}); say which with --boxes FILE, or --boxes {NONE}"
        )
    return found[0] if found else None


def open_boxes(path: Path, root: Path, images: list[str]) -> Boxes:
    """Read a file of boxes.

    Args:
        images: paths below the root, of which the first folder but a split's is the class.

    Raises:
        UserError: it does not parse, or names none of the images.
    """
    if path.suffix.lower() == ".json":
        return _of_coco(CocoFile(path), path, images)
    boxes = read_boxes(path, root)
    known = set(images)
    if not known & boxes.keys():
        raise UserError(
            f"{path}: no row names an image that is used, say {images[0]}; write paths below {root}"
        )
    return Boxes(path=path, boxes_xyxy=boxes, frame_wh={}, num_unknown=len(boxes.keys() - known))


def places(names: Sequence[str], images: Sequence[str]) -> dict[str, str]:
    """The images that names mean: by their path, else by a file name that stands once on both sides.

    Args:
        names: paths as a file of boxes has them.
        images: paths of the images.
    """
    by_path = set(images)
    of_name, of_image = (Counter(PurePosixPath(one).name for one in side) for side in (names, images))
    by_name = {PurePosixPath(image).name: image for image in images}
    found: dict[str, str] = {}
    for one in names:
        name = PurePosixPath(one).name
        if one in by_path:
            found[one] = one
        elif of_name[name] == of_image[name] == 1:
            found[one] = by_name[name]
    return found


def _of_coco(file: CocoFile, path: Path, images: list[str]) -> Boxes:
    """Only an image's own class counts where the categories are classes, every box where none is (say `object`)."""
    place = places([one.file_name for one in file.images.values()], images)
    own = {spelling(PurePosixPath(image).parent.name) for image in images}
    category = [spelling(name) for name in file.classes]
    by_class = bool(own & set(category))
    boxes: dict[str, list[list[float]]] = {}
    frames: dict[str, tuple[int, int]] = {}
    num_unknown = 0
    for number, one in file.images.items():
        image = place.get(one.file_name)
        if image is None:
            num_unknown += 1
            continue
        found, labels = file.boxes(number)
        if found is None or labels is None:
            continue
        wanted = spelling(PurePosixPath(image).parent.name)
        kept = [
            box
            for box, label in zip(found.tolist(), labels, strict=True)
            if not by_class or category[label] == wanted
        ]
        if kept:
            boxes[image], frames[image] = kept, one.size_wh
    if not boxes:
        raise UserError(
            f"{path}: has no box of an image that is used, say {images[0]}; file_name must be the path below the "
            "folder, or a file name that only one image has"
        )
    return Boxes(path=path, boxes_xyxy=boxes, frame_wh=frames, num_unknown=num_unknown)


def _holds_boxes(path: Path) -> bool:
    """By its first row, or its keys."""
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                return next(csv.reader(file), None) == CSV_COLUMNS
        if path.suffix.lower() == ".json":
            content = json.loads(path.read_bytes())
            return isinstance(content, dict) and content.keys() >= COCO_KEYS
    except (OSError, ValueError, csv.Error):
        return False
    return False
