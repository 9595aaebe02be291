"""Formats of predictions, one file each. A table format is made of the record, at the end or from a reviewed table; a
picture format is written for each image while its map is at hand. `prediction` and `review` import it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.prediction.results import LocalizedImage

TABLE_FORMATS = {
    "coco": "wsol_dist.prediction.writers.coco",
    "voc": "wsol_dist.prediction.writers.voc",
    "yolo": "wsol_dist.prediction.writers.yolo",
}
"""Name -> module with `write(out, labels)`."""
PICTURE_FORMATS = {
    "heatmaps": "wsol_dist.prediction.writers.heatmaps",
    "masks": "wsol_dist.prediction.writers.masks",
    "overlays": "wsol_dist.prediction.writers.overlays",
}
"""Name -> module with `draw(out, stem, rgb_HWC, found, classes)`, which writes one image's file."""
RECORD = "parquet"
"""The record itself, which is always written."""
FORMATS = (RECORD, *sorted(TABLE_FORMATS | PICTURE_FORMATS))


@dataclass(frozen=True, kw_only=True)
class LabelledBox:
    """One box; its frame is that of `record.SCHEMA`."""

    label: int
    score: float
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image that decoded, with its boxes, of which there may be none."""

    id: str
    width: int
    height: int
    boxes: tuple[LabelledBox, ...]

    @property
    def stem(self) -> str:
        return stem_of(self.id)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a table format is made of."""

    table: pa.Table
    """With the columns of `record.SCHEMA`, rows of an image one after another."""
    classes: tuple[str, ...]
    root: Path | None
    """Where the images are, if they are files."""
    about: str
    """A line on what made them."""

    def images(self) -> Iterator[LabelledImage]:
        """In the order of the table; those that did not decode are left out."""
        wanted = ("image", "width", "height", "label", "score", "x0", "y0", "x1", "y1", "error")
        columns = [self.table[name].to_pylist() for name in wanted]
        last: tuple[str, int, int] | None = None
        boxes: list[LabelledBox] = []
        for id_, width, height, label, score, x0, y0, x1, y1, error in zip(*columns, strict=True):
            if error is not None:
                continue
            if last is not None and last[0] != id_:
                yield _image(last, boxes)
                boxes = []
            last = (id_, width, height)
            if x0 is not None:
                boxes.append(LabelledBox(label=label, score=score, xyxy=(x0, y0, x1, y1)))
        if last is not None:
            yield _image(last, boxes)


def _image(about: tuple[str, int, int], boxes: list[LabelledBox]) -> LabelledImage:
    id_, width, height = about
    return LabelledImage(id=id_, width=width, height=height, boxes=tuple(boxes))


def stem_of(id_: str) -> str:
    """An id without its extension: what the files of an image are called."""
    return str(PurePosixPath(id_).with_suffix(""))


def check_formats(names: Sequence[str]) -> None:
    """Refuse formats that there are not.

    Raises:
        UserError: the first of them.
    """
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--formats: no format {name!r}; {did_you_mean(name, list(FORMATS))}")


def check_stems(ids: Iterable[str]) -> None:
    """Refuse images whose files would have one name.

    Raises:
        UserError: the first two.
    """
    of_stem: dict[str, str] = {}
    for id_ in ids:
        other = of_stem.setdefault(stem_of(id_), id_)
        if other != id_:
            raise UserError(
                f"{other} and {id_} differ in their extension only, and formats with a file for each image have one "
                "name for both; rename one of them, or ask for --formats coco,parquet"
            )


def write_formats(out: Path, table: pa.Table, *, about: dict[str, Any], formats: Sequence[str]) -> None:
    """Write the table formats among `formats` below `out`.

    Args:
        table: with the columns of `record.SCHEMA`, e.g. a reviewed one.
        about: `predictions.json`.
    """
    root = about["root"]
    model = about["model"]
    labels = Labels(
        table=table,
        classes=tuple(about["classes"]),
        root=None if root is None else Path(root),
        about=f"boxes by {model['method']} (weights sha256 {model['weights_sha256'][:12]}), "
        f"threshold {about['threshold']['value']:.3f} ({about['threshold']['source']})",
    )
    for name in formats:
        if name in TABLE_FORMATS:
            importlib.import_module(TABLE_FORMATS[name]).write(out, labels)


def draw_formats(
    out: Path,
    id_: str,
    rgb_HWC: Any,
    found: LocalizedImage,
    *,
    classes: tuple[str, ...],
    formats: Sequence[str],
) -> None:
    """Write the picture formats among `formats` for one image.

    Args:
        rgb_HWC: its pixels, uint8, upright.
    """
    for name in formats:
        if name in PICTURE_FORMATS:
            importlib.import_module(PICTURE_FORMATS[name]).draw(
                out / name, stem_of(id_), rgb_HWC, found, classes
            )
