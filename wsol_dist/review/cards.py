"""What there is to review: a card for each predicted box, in the order of the predictions."""

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
    """The boxes of some predictions. A card is known by its number."""

    predictions: Predictions
    sha256: str
    """Of the table of predictions: numbers mean nothing for another one."""
    row: np.ndarray
    """(n,) int64: the table's row of each card."""
    image: list[str]
    """Id of the image of each card."""
    size_wh: np.ndarray
    """(n, 2) int32."""
    box_xyxy: np.ndarray
    """(n, 4) float32: pixels of the upright image, x1 and y1 behind the last pixel."""
    label: np.ndarray
    """(n,) int32."""
    classes: tuple[str, ...]
    score: np.ndarray
    """(n,) float32."""
    doubt: np.ndarray
    """(n,) float32 in [0, 1]: 1 - score x stability; 1 where the given class is another one."""
    given: list[str | None]
    """Class that the image was given, where that is known."""
    num_images: int
    num_without: int
    """Images without any box: broken, or of no class with enough score."""

    def __len__(self) -> int:
        return len(self.row)

    def to_json(self) -> dict[str, Any]:
        """For the page: columns, so that many cards stay small."""
        images = list(dict.fromkeys(self.image))
        number = {image: at for at, image in enumerate(images)}
        return {
            "sha256": self.sha256,
            "classes": list(self.classes),
            "images": images,
            "image": [number[image] for image in self.image],
            "size": self.size_wh.tolist(),
            "box": np.round(self.box_xyxy.astype(np.float64), 2).tolist(),
            "label": self.label.tolist(),
            "score": np.round(self.score.astype(np.float64), 4).tolist(),
            "doubt": shown_doubt(self.doubt).tolist(),
            "given": self.given,
            "num_images": self.num_images,
            "num_without": self.num_without,
        }


def open_cards(folder: Path) -> Cards:
    """The cards of an output folder of `wsol predict`.

    Raises:
        UserError: no finished predictions are in it, or no box.
    """
    predictions = Predictions.open(folder)
    table = predictions.table()
    images = table["image"].to_pylist()
    row = np.flatnonzero(pc.is_valid(table["x0"]).to_numpy())
    num_images = len(set(images))
    if len(row) == 0:
        raise UserError(f"{folder}: no box in {num_images} images; predict with a lower --min-score")
    kept = table.take(pa.array(row))
    named = [images[at] for at in row.tolist()]
    return Cards(
        predictions=predictions,
        sha256=hashlib.sha256((folder / PREDICTIONS).read_bytes()).hexdigest(),
        row=row,
        image=named,
        size_wh=np.stack([kept["width"].to_numpy(), kept["height"].to_numpy()], axis=1),
        box_xyxy=np.stack([kept[name].to_numpy() for name in CORNERS], axis=1),
        label=kept["label"].to_numpy(),
        classes=tuple(predictions.about["classes"]),
        score=kept["score"].fill_null(1.0).to_numpy(),
        doubt=doubt_of(kept),
        given=kept["given_class"].to_pylist(),
        num_images=num_images,
        num_without=num_images - len(set(named)),
    )
