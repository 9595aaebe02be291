"""True boxes of predicted images: from a CSV or COCO JSON file, or from shards; in the frame of the predictions.

That frame is `prediction.record.SCHEMA`'s: pixels of the upright image, x1 and y1 behind the last pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsol_dist.data.images.decode import DecodeError
from wsol_dist.data.raw.coco_file import CocoFile
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError
from wsol_dist.fitting.boxes import open_boxes, places
from wsol_dist.fitting.look import spelling

ANY = -1
"""Class of a true box that a box of any class may meet: the file names no class, and the image has none given."""
LAST_PIXEL = "the last pixel of a true box belongs to it"
BEHIND = np.array([0.0, 0.0, 1.0, 1.0])
"""What leads from the last pixel to behind it."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A predicted image, as far as its true boxes need it."""

    size_wh: tuple[int, int]
    """(0, 0) where it did not decode."""
    given: int
    """Number of its class, `ANY` where that is not known."""


@dataclass(frozen=True, kw_only=True)
class TrueBoxes:
    """Of one image; there may be none where a file says so."""

    xyxy: np.ndarray
    """(n, 4) float64."""
    label: np.ndarray
    """(n,) int64: numbers of the model's classes, or `ANY`."""
    crowd_xyxy: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    """Regions of many objects in one (COCO's `iscrowd`): a box in one is neither right nor wrong."""
    crowd_label: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The true boxes of some of the predicted images."""

    source: str
    """Where they are from, as it was given."""
    frame: str
    """How their numbers are read."""
    boxes: dict[str, TrueBoxes]
    """By image id. An image that is not in it says nothing: it is left out of every count."""
    splits: dict[str, int]
    """Of shards: how many of the images are in which split."""
    num_other_class: int = 0
    """True boxes of classes that the model does not have; left out."""
    num_turned: int = 0
    """Images whose boxes are for the turned picture (width and height swapped); left out."""


def from_file(
    path: Path, seen: Mapping[str, Seen], *, root: Path | None, classes: Sequence[str], folder: Path
) -> Truth:
    """True boxes of a CSV file (`image,x0,y0,x1,y1`, of the image's own class) or of a COCO JSON file.

    Args:
        root: folder that the ids of the images are below; None for shards.
        classes: of the model.
        folder: the predictions', for messages.

    Raises:
        UserError: no such file, it does not parse, or it is of other images.
    """
    if not path.is_file():
        raise UserError(f"--boxes: there is no file {path}; give a CSV or COCO JSON file")
    if path.suffix.lower() == ".json":
        return _from_coco(path, seen, classes=classes, folder=folder)
    if root is None:
        raise UserError(
            f"--boxes {path}: rows of a CSV file name images by their path, and {folder} was predicted from shards; "
            "give a COCO JSON file, or --index"
        )
    found = open_boxes(path, root, list(seen)).boxes_xyxy
    boxes = {
        id_: TrueBoxes(
            xyxy=np.array(found[id_], np.float64) + BEHIND,
            label=np.full(len(found[id_]), one.given),
        )
        for id_, one in seen.items()
        if id_ in found
    }
    return Truth(source=str(path), frame=LAST_PIXEL, boxes=boxes, splits={})


def from_shards(
    shards: Sequence[tuple[str, str | None]],
    seen: Mapping[str, Seen],
    *,
    classes: Sequence[str],
    folder: Path,
) -> Truth:
    """True boxes of shards, by image id, else by a file name that stands once on both sides.

    Args:
        shards: (folder of an index, split or None for all of them).

    Raises:
        UserError: no shards, no such split, no boxes in them, or those of other images.
    """
    boxes: dict[str, TrueBoxes] = {}
    splits: Counter[str] = Counter()
    num_other, num_with_boxes, example = 0, 0, ""
    for place, split in shards:
        index = Index.load(place)
        index.check_splits([] if split is None else [split])
        of_model = _numbers(index.classes, classes)
        names = places(index.table()["id"].to_pylist(), list(seen))
        for one in [split] if split is not None else index.splits:
            for id_, xyxy, label in _stored(ShardReader(index, one), names, seen):
                num_with_boxes, example = num_with_boxes + 1, example or id_
                if id_ not in names:
                    continue
                number = np.array([of_model.get(at, ANY - 1) for at in label], np.int64)
                known = number != ANY - 1
                num_other += int((~known).sum())
                boxes[names[id_]] = TrueBoxes(xyxy=xyxy[known], label=number[known])
                splits[one] += 1
    where = ", ".join(place for place, _ in shards)
    if num_with_boxes == 0:
        raise UserError(
            f"{where}: no boxes in these shards; give others with --index, or a file with --boxes"
        )
    if not boxes:
        raise _other_images(where, example, seen, folder)
    return Truth(source=where, frame=LAST_PIXEL, boxes=boxes, splits=dict(splits), num_other_class=num_other)


def _stored(
    reader: ShardReader, names: Mapping[str, str], seen: Mapping[str, Seen]
) -> Iterator[tuple[str, np.ndarray, list[int]]]:
    """Id, boxes in the frame of the predictions and classes of the samples with boxes; of others the id alone."""
    none = np.zeros((0, 4))
    for row in np.flatnonzero(reader.rows.num_boxes > 0).tolist():
        id_ = reader.id(row)
        if id_ not in names:
            yield id_, none, []
            continue
        try:
            sample = reader.truth(row)
        except DecodeError as error:
            raise UserError(f"{error}; run wsol shards verify") from error
        assert sample.boxes_xyxy is not None
        assert sample.box_frame_wh is not None
        width, height = seen[names[id_]].size_wh
        frame_w, frame_h = sample.box_frame_wh
        scale = (width / frame_w, height / frame_h) if width else (1.0, 1.0)
        xyxy = (sample.boxes_xyxy + BEHIND) * np.array([*scale, *scale])
        yield id_, xyxy, list(sample.box_labels or sample.labels[:1] * len(xyxy))


def _from_coco(path: Path, seen: Mapping[str, Seen], *, classes: Sequence[str], folder: Path) -> Truth:
    """Every image that the file lists counts: one without annotations has nothing on it."""
    file = CocoFile(path)
    of_model = _numbers(file.classes, classes)
    names = places([one.file_name for one in file.images.values()], list(seen))
    boxes: dict[str, TrueBoxes] = {}
    num_other = num_turned = 0
    for number, image in file.images.items():
        id_ = names.get(image.file_name)
        if id_ is None:
            continue
        width, height = seen[id_].size_wh
        frame_w, frame_h = image.size_wh
        if (width, height) == (frame_h, frame_w) != (frame_w, frame_h):
            num_turned += 1
            continue
        scale = np.array([width / max(1, frame_w), height / max(1, frame_h)] * 2) if width else np.ones(4)
        single, crowd = file.boxes(number), file.boxes(number, crowd=True)
        (xyxy, label, other), (crowd_xyxy, crowd_label, _) = (
            _of_classes(found, of_model, given=seen[id_].given) for found in (single, crowd)
        )
        num_other += other
        boxes[id_] = TrueBoxes(
            xyxy=xyxy * scale, label=label, crowd_xyxy=crowd_xyxy * scale, crowd_label=crowd_label
        )
    if not boxes:
        example = next(iter(file.images.values()), None)
        if num_turned:
            raise UserError(
                f"{path}: its images have width and height swapped: the boxes are for pictures that are not upright; "
                "give boxes of the pictures as a person sees them"
            )
        raise _other_images(str(path), example.file_name if example else "no image", seen, folder)
    return Truth(
        source=str(path),
        frame="boxes are x, y, width, height",
        boxes=boxes,
        splits={},
        num_other_class=num_other,
        num_turned=num_turned,
    )


def _of_classes(
    found: tuple[np.ndarray | None, tuple[int, ...] | None], of_model: Mapping[int, int], *, given: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Boxes and the model's numbers of their classes, and how many boxes are of no class of the model.

    Where no category is a class of the model (say `object`), a box is of the image's own class.
    """
    xyxy, label = found
    if xyxy is None or label is None:
        return np.zeros((0, 4)), np.zeros(0, np.int64), 0
    if not of_model:
        return xyxy, np.full(len(xyxy), given), 0
    known = np.array([at in of_model for at in label], bool)
    return (
        xyxy[known],
        np.array([of_model[at] for at in label if at in of_model], np.int64),
        int((~known).sum()),
    )


def _numbers(theirs: Sequence[str], classes: Sequence[str]) -> dict[int, int]:
    """Their number of a class -> the model's, by name; those that the model does not have are not in it."""
    exact = {name: number for number, name in enumerate(classes)}
    alike = {spelling(name): number for number, name in enumerate(classes)}
    found = ((at, exact.get(name, alike.get(spelling(name)))) for at, name in enumerate(theirs))
    return {at: number for at, number in found if number is not None}


def _other_images(source: str, example: str, seen: Mapping[str, Seen], folder: Path) -> UserError:
    return UserError(
        f"{source}: has boxes of other images (say {example}) than {folder} (say {next(iter(seen), 'none')}); "
        "give boxes of predicted images, named by the same paths, or by file names that stand once"
    )
