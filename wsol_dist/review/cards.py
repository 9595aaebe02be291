"""What there is to review: a card for each predicted box, and behind those one for each image without any."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wsol_dist.errors import UserError
from wsol_dist.prediction.doubt import doubt_of, shown_doubt
from wsol_dist.prediction.record import Predictions

PREDICTIONS = "predictions.parquet"
CORNERS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, kw_only=True)
class Cards:
    """The boxes of some predictions, then the images on which none was found. A card is known by its number."""

    predictions: Predictions
    sha256: str
    """Of the table of predictions: numbers mean nothing for another one."""
    num_boxes: int
    """Cards from this number on are images without a box."""
    row: np.ndarray
    """(n,) int64: the table's row of each card, of an image without a box its first."""
    image: list[str]
    """Id of the image of each card."""
    size_wh: np.ndarray
    """(n, 2) int32."""
    box_xyxy: np.ndarray
    """(n, 4) float32: pixels of the upright image, x1 and y1 behind the last pixel; nan where none was found."""
    label: np.ndarray
    """(n,) int32: predicted; where no class was probable enough the one that the image was given, else the most
    probable one."""
    classes: tuple[str, ...]
    score: np.ndarray
    """(n,) float32: probability of the label, 1 where it is not known."""
    doubt: np.ndarray
    """(n,) float32 in [0, 1]: 1 - score x stability; 1 where the given class is another one, or no box was found."""
    given: list[str | None]
    """Class that the image was given, where that is known."""
    num_images: int
    num_broken: int
    """Images that did not decode: they have no card."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def num_without(self) -> int:
        """Images on which no box was found."""
        return len(self) - self.num_boxes

    @property
    def images(self) -> list[str]:
        """Ids of the images that have a card, in the order of the predictions."""
        return list(dict.fromkeys(self.image[card] for card in np.argsort(self.row).tolist()))

    def to_json(self) -> dict[str, Any]:
        """For the page: columns, so that many cards stay small."""
        number = {image: at for at, image in enumerate(self.images)}
        boxes = np.round(self.box_xyxy[: self.num_boxes].astype(np.float64), 2).tolist()
        return {
            "sha256": self.sha256,
            "classes": list(self.classes),
            "images": list(number),
            "image": [number[image] for image in self.image],
            "size": self.size_wh.tolist(),
            "box": boxes + [None] * self.num_without,
            "label": self.label.tolist(),
            "score": np.round(self.score.astype(np.float64), 4).tolist(),
            "doubt": shown_doubt(self.doubt).tolist(),
            "given": self.given,
        }


def open_cards(folder: Path) -> Cards:
    """The cards of an output folder of `wsol predict`.

    Raises:
        UserError: no finished predictions are in it, or no image that decoded.
    """
    predictions = Predictions.open(folder)
    table = predictions.table()
    boxed = np.flatnonzero(pc.is_valid(table["x0"]).to_numpy())
    without, broken = _without_box(table)
    row = np.concatenate([boxed, np.array(without, dtype=np.int64)])
    images = table["image"].to_pylist()
    num_images = len(set(images))
    if len(row) == 0:
        raise UserError(f"{folder}: nothing to review: none of its {num_images} images decoded")
    kept = table.take(pa.array(row))
    label, score = (kept[name].to_pylist() for name in ("label", "score"))
    for at in range(len(boxed), len(row)):
        label[at], score[at] = _most_probable(kept.slice(at, 1).to_pylist()[0])
    doubt = np.ones(len(row), dtype=np.float32)
    doubt[: len(boxed)] = doubt_of(kept.slice(0, len(boxed)))
    return Cards(
        predictions=predictions,
        sha256=hashlib.sha256((folder / PREDICTIONS).read_bytes()).hexdigest(),
        num_boxes=len(boxed),
        row=row,
        image=[images[at] for at in row.tolist()],
        size_wh=np.stack([kept["width"].to_numpy(), kept["height"].to_numpy()], axis=1),
        box_xyxy=np.stack([kept[name].to_numpy() for name in CORNERS], axis=1),
        label=np.array(label, dtype=np.int32),
        classes=tuple(predictions.about["classes"]),
        score=np.array([1.0 if one is None else one for one in score], dtype=np.float32),
        doubt=doubt,
        given=kept["given_class"].to_pylist(),
        num_images=num_images,
        num_broken=broken,
    )


def _without_box(table: pa.Table) -> tuple[list[int], int]:
    """The first row of each image on which no box was found, and how many images did not decode."""
    rows: dict[str, int] = {}
    boxed, broken = set(), set()
    columns = (table[name].to_pylist() for name in ("image", "x0", "error"))
    for at, (image, x0, error) in enumerate(zip(*columns, strict=True)):
        rows.setdefault(image, at)
        if error is not None:
            broken.add(image)
        elif x0 is not None:
            boxed.add(image)
    return [at for image, at in rows.items() if image not in boxed | broken], len(broken)


def _most_probable(row: dict[str, Any]) -> tuple[int, float | None]:
    """The class of an image without a box, and its probability if that is known."""
    if row["label"] is not None:
        return row["label"], row["score"]
    probable = dict(zip(row["top5_label"] or [], row["top5_score"] or [], strict=True))
    known = [label for label in (row["given_label"], *probable) if label is not None]
    if not known:
        raise UserError(f"{row['image']}: its row names no class; predict again")
    return known[0], probable.get(known[0])
