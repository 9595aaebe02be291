"""The quality of predicted labels where true boxes are known: everything that is said of it, in one object."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsol_dist.errors import UserError
from wsol_dist.options import names_of
from wsol_dist.prediction.record import Predictions
from wsol_dist.quality.matching import Judged, average_precision, judge
from wsol_dist.quality.measure import (
    Bin,
    Kept,
    Reached,
    Reviewed,
    calibration_error,
    kept,
    reached,
    reliability,
    reviews,
    sorting_power,
    tenths,
)
from wsol_dist.quality.truth import ANY, Seen, Truth, from_file, from_shards

SIZE = "size"
FEW_BOXES = 100
"""Below, it is said that little is known."""
LEARNED_FROM = ("train", "val")
"""Splits that a model was trained on, or that chose its threshold."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What is known of a box before anybody looks, and how well it tells right from wrong."""

    name: str
    """score; stability; 1 - doubt; size, the share of the image that the box covers."""
    tenths: list[Bin]
    reliability: list[Bin]
    calibration_error: float | None
    """None for the size, which nobody takes for a probability."""
    sorting_power: float | None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Of one folder of predictions."""

    folder: Path
    about: dict[str, Any]
    """`predictions.json`."""
    truth: Truth
    least_iou: float
    judged: Judged
    average_precision: float | None
    signals: list[Signal]
    kept: list[Kept]
    reviews: list[Reviewed]
    reached: list[Reached]

    @property
    def protocol(self) -> str:
        """What counts as right."""
        return (
            f"right: IoU >= {self.least_iou:g} with a true box of its class that no box of a higher score took "
            "(one to one, as pycocotools matches); boxes as areas in pixels of the upright image; "
            f"{self.truth.frame}"
        )

    @property
    def threshold(self) -> str:
        """Of the maps, and where it comes from."""
        one = self.about["threshold"]
        origin = f", from {one['from']}" if one.get("from") else ""
        return f"map threshold {one['value']:.3f} ({one['source']}{origin})"

    @property
    def precision(self) -> float:
        return self.judged.num_right / len(self.judged)

    @property
    def recall(self) -> float | None:
        """None where the file says that nothing is on any of the images."""
        return self.judged.num_right / self.judged.num_truth if self.judged.num_truth else None

    @property
    def notes(self) -> list[str]:
        """Sentences that a person must know to read the numbers."""
        found = []
        if len(self.judged) < FEW_BOXES:
            found.append(f"Only {len(self.judged)} boxes: mind the intervals.")
        seen = {name: count for name, count in self.truth.splits.items() if name in LEARNED_FROM}
        if seen:
            counts = ", ".join(f"{name} {count}" for name, count in self.truth.splits.items())
            found.append(
                f"Images by split: {counts}. The model may have learned from train, and val may have chosen its "
                "threshold: new images can be worse; --split scores one split."
            )
        if self.truth.num_other_class:
            found.append(
                f"{self.truth.num_other_class} true boxes are of classes that the model does not have: left out."
            )
        if self.truth.num_turned:
            found.append(
                f"{self.truth.num_turned} images have boxes of the turned picture (width and height swapped): left out."
            )
        if self.judged.num_in_crowds:
            found.append(f"{self.judged.num_in_crowds} boxes in crowds are not counted.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything but the boxes one by one; counts are whole numbers."""
        judged = self.judged
        return {
            "schema": 1,
            "protocol": self.protocol,
            "least_iou": self.least_iou,
            "threshold": self.about["threshold"],
            "model": self.about["model"],
            "settings": self.about["settings"],
            "truth": {"source": self.truth.source, "splits": self.truth.splits},
            "num_images": judged.num_images,
            "num_images_without_box": judged.num_without,
            "num_boxes": len(judged),
            "num_right": judged.num_right,
            "num_misnamed": int(judged.misnamed.sum()),
            "num_true": judged.num_truth,
            "precision": self.precision,
            "recall": self.recall,
            "average_precision": self.average_precision,
            "signals": [dataclasses.asdict(one) for one in self.signals],
            "kept": [dataclasses.asdict(one) for one in self.kept],
            "reviews": [dataclasses.asdict(one) for one in self.reviews],
            "reached": [dataclasses.asdict(one) for one in self.reached],
            "notes": self.notes,
        }


def measure(
    folder: Path,
    *,
    boxes: Path | None = None,
    index: str | None = None,
    split: str | None = None,
    least_iou: float = 0.5,
) -> Quality:
    """Hold the predictions of a folder against true boxes.

    Args:
        boxes: CSV or COCO JSON file.
        index: folder of shards that have boxes; without it and `boxes` the shards that were predicted.
        split: of the shards, one or several, joined by commas; None for all.
        least_iou: of a right box, in (0, 1).

    Raises:
        UserError: no finished predictions, no true boxes or those of other images, no predicted box on these images.
    """
    predictions = Predictions.open(folder)
    table = predictions.table()
    truth = _truth(predictions, _seen(table), boxes=boxes, index=index, split=split)
    judged = judge(table, truth, least_iou=least_iou)
    if not len(judged):
        raise UserError(
            f"{folder}: no box on the {judged.num_images} images that have true boxes in {truth.source}; predict with "
            "a lower --min-score"
        )
    signals = {
        "score": judged.score,
        "stability": judged.stability,
        "1 - doubt": 1 - judged.doubt,
        SIZE: judged.size,
    }
    return Quality(
        folder=folder,
        about=predictions.about,
        truth=truth,
        least_iou=least_iou,
        judged=judged,
        average_precision=average_precision(judged),
        signals=[
            _signal(name, value, judged.right) for name, value in signals.items() if np.isfinite(value).all()
        ],
        kept=kept(judged.doubt, judged.right),
        reviews=reviews(judged.doubt, judged.right),
        reached=reached(judged.doubt, judged.right),
    )


def _truth(
    predictions: Predictions,
    seen: dict[str, Seen],
    *,
    boxes: Path | None,
    index: str | None,
    split: str | None,
) -> Truth:
    about, folder = predictions.about, predictions.folder
    classes = about["classes"]
    if boxes is not None:
        root = None if about["root"] is None else Path(about["root"])
        return from_file(boxes, seen, root=root, classes=classes, folder=folder)
    splits = names_of(split)
    shards: list[tuple[str, str | None]]
    if index is not None:
        shards = [(index, one) for one in splits] if splits else [(index, None)]
    else:
        shards = [
            (one["index"], one["split"]) for one in about["shards"] if not splits or one["split"] in splits
        ]
    if not shards:
        if about["shards"]:
            predicted = ", ".join(one["split"] for one in about["shards"])
            raise UserError(f"--split: {split} was not predicted; predicted: {predicted}")
        raise UserError(
            f"{folder}: nothing to hold it against; give true boxes: --boxes FILE (CSV with the header "
            "image,x0,y0,x1,y1, or COCO JSON), or --index SHARDS"
        )
    return from_shards(shards, seen, classes=classes, folder=folder)


def _seen(table: Any) -> dict[str, Seen]:
    names = ("image", "width", "height", "given_label")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return {
        id_: Seen(size_wh=(width, height), given=ANY if given is None else given)
        for id_, width, height, given in rows
    }


def _signal(name: str, value: np.ndarray, right: np.ndarray) -> Signal:
    bins = reliability(value, right)
    return Signal(
        name=name,
        tenths=tenths(value, right),
        reliability=bins,
        calibration_error=None if name == SIZE else calibration_error(bins),
        sorting_power=sorting_power(value, right),
    )
