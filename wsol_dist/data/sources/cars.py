"""Stanford Cars: 196 models with one box each; both layouts of its MATLAB files, folders or archives as they are.

The older layout is car_ims with cars_annos.mat, the newer cars_train and cars_test with the devkit. Splits are the
official ones. The files count from 1; boxes here are [x0, y0, x1, y1] in pixels from 0, the last pixel included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wsol_dist.data.raw.archive import Place, first_place
from wsol_dist.data.raw.files import extension_of, inside, need_folder, read_published_image
from wsol_dist.data.raw.mat_file import as_list, read_mat
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.shards.shard import image_size
from wsol_dist.errors import UserError

KNOWN_COUNTS = {"train": 8144, "test": 8041, "classes": 196}
DEVKIT = ("devkit", "car_devkit/devkit", "car_devkit", "car_devkit.tgz")
LABELLED_TEST = "cars_test_annos_withlabels.mat"
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the data set is."""

    root: Path
    """Folder with cars_annos.mat and car_ims (or car_ims.tgz); or with cars_train, cars_test (or .tgz), devkit (or
    car_devkit.tgz) and cars_test_annos_withlabels.mat."""


class Row(NamedTuple):
    """One annotated image."""

    name: str
    split: str
    label: int
    box: tuple[float, ...]


class Source:
    """Stanford Cars; labels are the order of class_names."""

    def __init__(self, options: Options) -> None:
        self.root = need_folder(options.root, "the folder of Stanford Cars")
        self.known_counts = dict(KNOWN_COUNTS)
        self.places: dict[str, Place] = {}
        rows = self._older() if (self.root / "cars_annos.mat").is_file() else self._newer()
        self.rows = {row.name: row for row in rows}

    def items(self) -> Iterator[Item]:
        """In the order of the files; an id is the path of the image."""
        for row in self.rows.values():
            if not 0 <= row.label < len(self.classes):
                raise UserError(
                    f"{self.root}: {row.name}: class {row.label + 1} given, 1 to {len(self.classes)} expected"
                )
            yield Item(id=row.name, split=row.split, labels=(row.label,), where=row.name)

    def read(self, item: Item) -> Sample:
        """The image with its box."""
        folder, _, name = item.id.partition("/")
        image = read_published_image(inside(self.places[folder], name))
        frame = image_size(image)
        known = frame != (0, 0)  # boxes of an unreadable image mean nothing
        return Sample(
            id=item.id,
            image=image,
            extension=extension_of(name),
            labels=item.labels,
            boxes_xyxy=np.array([self.rows[item.id].box], dtype=np.float64) - 1 if known else None,
            box_frame_wh=frame if known else None,
        )

    def _older(self) -> Iterator[Row]:
        path = self.root / "cars_annos.mat"
        content = read_mat(path, "annotations", "class_names")
        self.classes = tuple(map(str, as_list(content["class_names"])))
        self._open("car_ims")
        for row in _records(content["annotations"], ("relative_im_path", "class", "test", *BOX), path):
            name, label, test, *box = row
            yield Row(str(name), "test" if test else "train", int(label) - 1, tuple(map(float, box)))

    def _newer(self) -> Iterator[Row]:
        devkit = first_place(self.root, *DEVKIT)
        if devkit is None:
            raise UserError(f"{self.root}: neither cars_annos.mat nor {DEVKIT[0]} or {DEVKIT[-1]} in it")
        devkit = devkit / "devkit" if (devkit / "devkit").is_dir() else devkit
        names = read_mat(devkit / "cars_meta.mat", "class_names")["class_names"]
        self.classes = tuple(map(str, as_list(names)))
        labelled = self.root / LABELLED_TEST
        files = {
            "train": devkit / "cars_train_annos.mat",
            "test": labelled if labelled.is_file() else devkit / LABELLED_TEST,
        }
        if not files["test"].is_file():
            raise UserError(f"{labelled}: no such file; it holds the classes of the test images")
        for split, path in files.items():
            self._open(f"cars_{split}")
            annotations = read_mat(path, "annotations")["annotations"]
            for name, label, *box in _records(annotations, ("fname", "class", *BOX), path):
                yield Row(f"cars_{split}/{name}", split, int(label) - 1, tuple(map(float, box)))

    def _open(self, folder: str) -> None:
        place = first_place(self.root, folder, f"{folder}.tgz")
        if place is None:
            raise UserError(f"{self.root}: neither {folder} nor {folder}.tgz in it")
        self.places[folder] = place / folder if (place / folder).is_dir() else place


def _records(array: Any, fields: tuple[str, ...], path: Place) -> Iterator[tuple[Any, ...]]:
    """Rows of a MATLAB struct array; its layouts have their fields in different orders."""
    try:
        columns = [np.atleast_1d(array)[field].tolist() for field in fields]
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path}: annotations with {', '.join(fields)} expected: {error}") from error
    return zip(*columns, strict=True)
