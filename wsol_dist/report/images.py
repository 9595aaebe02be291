"""What the row an image says: how good the boxes are, and which classes are hard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wsol_dist.report.charts import Bar, Chart, Mark, Point, Series, chart, readout_of
from wsol_dist.report.run_data import EvalRecord, RunData, read_image_numbers
from wsol_dist.report.view import LABELS

NUM_BINS = 20
RIGHT_FROM = 0.5
"""A box counts as right from this IoU; a bin edge."""
MOST_CLASSES = 40
"""So many are listed at once; of more the extremes."""
EXTREMES = 15
_CLASS_COLUMNS = {
    "gt_known": "GT-known",
    "top1_loc": "Top-1 localization",
    "cls_top1": "Classification",
}


@dataclass(frozen=True, kw_only=True)
class ClassColumn:
    """A number of each class."""

    title: str
    detail: str
    """Protocol and source of the threshold."""
    color: int


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class."""

    name: str
    num_images: int | None
    """None where images have several classes."""
    percents: list[float]
    """One a column; nan where no image of the class has it."""


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """Classes, the highest first column in front."""

    columns: list[ClassColumn]
    rows: list[ClassRow]

    @property
    def shown(self) -> list[list[ClassRow]]:
        """The rows to list at once, in one block or in two: the best and the worst."""
        if len(self.rows) <= MOST_CLASSES:
            return [self.rows]
        return [self.rows[:EXTREMES], self.rows[-EXTREMES:]]


def iou_histogram(runs: Sequence[RunData]) -> Chart | None:
    """Shares of images by the IoU of their box: bars of one run, outlines of several; None without any IoU."""
    scored = [(run, at, _ious(run)) for at, run in enumerate(runs)]
    found = [(run, at, ious) for run, at, ious in scored if len(ious)]
    if not found:
        return None
    lines, centres = [], []
    for run, at, ious in found:
        share = 100 * np.histogram(ious, bins=NUM_BINS, range=(0, 1))[0] / len(ious)
        name = f"{run.name}, mean {ious.mean():.2f}"
        lines.append(Series(name=name, points=_outline(share), color=at))
        centres.append(Series(name=name, points=_centres(share), color=at))
    single = len(found) == 1
    drawn = chart(
        "Boxes by IoU",
        [] if single else lines,
        x_label="IoU of the predicted box with the true box it fits best",
        y_label="% of the images",
        marks=[Mark(x=RIGHT_FROM, label=f"right from {RIGHT_FROM}", color=-1)],
        bars=_bars(centres[0]) if single else (),
        x_range=(0.0, 1.0),
        zero=True,
    )
    assert drawn is not None
    mean = f" Mean IoU {found[0][2].mean():.3f}." if single else ""
    readout = readout_of(centres, x_range=(0.0, 1.0), x_label="IoU")
    return replace(drawn, readout=readout, note=f"{sources_text(runs, 'gt_known')}.{mean}")


def class_table(runs: Sequence[RunData]) -> ClassTable | None:
    """Scores by class: of one run GT-known, Top-1 localization and classification, of several runs GT-known.

    None where there are no rows or runs do not share their classes.
    """
    scored = [(at, run, run.headline) for at, run in enumerate(runs)]
    records = [(at, run, record) for at, run, record in scored if record is not None]
    if not records or len({tuple(record.raw.get("classes") or ()) for _, _, record in records}) > 1:
        return None
    classes = [str(name) for name in records[0][2].raw.get("classes") or ()]
    columns: list[ClassColumn] = []
    percents: list[np.ndarray] = []
    num_images = np.zeros(len(classes), np.int64)
    for at, run, record in records:
        names = _CLASS_COLUMNS if len(records) == 1 else {"gt_known": run.name}
        numbers = read_image_numbers(record, "label", *names)
        if "label" not in numbers:
            continue
        label = numbers.pop("label").astype(np.int64)
        num_images = np.maximum(num_images, np.bincount(label, minlength=len(classes)))
        for name, title in names.items():
            if np.isfinite(numbers.get(name, np.array([np.nan]))).any():
                color = len(columns) if len(records) == 1 else at
                columns.append(ClassColumn(title=title, detail=source_text(record, name), color=color))
                percents.append(by_class(numbers[name], label, num_classes=len(classes)))
    if not columns:
        return None
    order = sorted(np.flatnonzero(num_images), key=lambda c: -np.nan_to_num(percents[0][c], nan=-1.0))
    rows = [
        ClassRow(name=classes[c], num_images=int(num_images[c]), percents=[float(p[c]) for p in percents])
        for c in order
    ]
    return ClassTable(columns=columns, rows=rows)


def class_iou_table(runs: Sequence[RunData]) -> ClassTable | None:
    """The IoU of the background and of each class, of sets whose masks say the class of every pixel: of one run each
    number's, of several runs the first number's. None where there are none or runs do not share their classes.
    """
    found: list[tuple[int, str, EvalRecord, str, list[dict[str, Any]]]] = []
    for at, run in enumerate(runs):
        numbers = (run.headline.raw.get("by_class") or {}) if run.headline else {}
        for name, values in list(numbers.items())[: 1 if len(runs) > 1 else None]:
            assert run.headline is not None
            title = run.name if len(runs) > 1 else f"IoU of {LABELS.get(name, name)}"
            found.append((at, title, run.headline, name, values))
    names = {tuple(str(one["class"]) for one in values) for *_, values in found}
    if len(names) != 1:
        return None
    columns = [
        ClassColumn(title=title, detail=source_text(record, name), color=at if len(runs) > 1 else place)
        for place, (at, title, record, name, _) in enumerate(found)
    ]
    percents = [[math.nan if one["value"] is None else float(one["value"]) for one in v] for *_, v in found]
    rows = [
        ClassRow(name=name, num_images=None, percents=list(values))
        for name, *values in zip(next(iter(names)), *percents, strict=True)
    ]
    rows.sort(key=lambda row: -np.nan_to_num(row.percents[0], nan=-1.0))
    return ClassTable(columns=columns, rows=rows)


def by_class(values_N: np.ndarray, label_N: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Mean of each class in percent, (num_classes,) float64; values that are nan are left out."""
    there = np.isfinite(values_N)
    total = np.bincount(label_N[there], minlength=num_classes)
    hits = np.bincount(label_N[there], weights=values_N[there], minlength=num_classes)
    return np.divide(100 * hits, total, out=np.full(num_classes, np.nan), where=total > 0)


def source_text(record: EvalRecord | None, name: str) -> str:
    """Protocol of a number, and its threshold with where that came from: `topk_loc, threshold 0.302 from val`."""
    metric = (record.metric(name) if record else None) or {}
    protocol, source = str(metric.get("protocol") or ""), str(metric.get("threshold_source") or "none")
    threshold = metric.get("threshold")
    value = f" {threshold:.3f}" if isinstance(threshold, int | float) else ""
    how = {"val": f"threshold{value} from val", "oracle": f"oracle threshold{value}"}
    said = how.get(source, "" if source == "none" else f"{source} threshold{value}")
    return ", ".join(part for part in (protocol, said) if part)


def sources_text(runs: Sequence[RunData], name: str) -> str:
    """Protocol and threshold source of a number, by run where the runs differ."""
    texts = {run.name: source_text(run.headline, name) for run in runs if run.headline}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{run}: {text}" for run, text in texts.items())


def _ious(run: RunData) -> np.ndarray:
    numbers = read_image_numbers(run.headline, "iou") if run.headline else {}
    ious = numbers.get("iou", np.zeros(0))
    return ious[np.isfinite(ious)]


def _centres(share: np.ndarray) -> list[Point]:
    return [((at + 0.5) / len(share), float(y)) for at, y in enumerate(share)]


def _outline(share: np.ndarray) -> list[Point]:
    """The upper edge of the bars."""
    return [(edge / len(share), float(y)) for at, y in enumerate(share) for edge in (at, at + 1)]


def _bars(centres: Series) -> list[Bar]:
    reach = 0.5 / NUM_BINS
    return [
        Bar(
            x0=x - reach,
            x1=x + reach,
            y=share,
            title=f"IoU {x - reach:.2f} to {x + reach:.2f}: {share:.1f} % of the images",
            faint=x < RIGHT_FROM,
        )
        for x, share in centres.points
    ]
