"""The same images at successive checkpoints, one row an image: how a map changes while training goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from wsol_dist.report.run_data import RunData, data_uri

FIXED = "fixed"
"""The group of the cases that are the same for every checkpoint."""
MOST_COLUMNS, MOST_ROWS = 8, 6
CELL_PX = 112
"""Height of a cell; stored pictures are reduced to it."""
JPEG_QUALITY = 85
_GAP_PX = 4
_TITLE_PX = 18


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One image at one checkpoint."""

    picture: str | None
    """A data URI."""
    iou: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """What the page shows of one run."""

    run: str
    split: str
    columns: list[str]
    """What each checkpoint is called: its epoch where the training log knows it, else its step."""
    rows: list[tuple[str, list[Cell]]]
    """An image's id, and its cells."""


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """The checkpoints and images that are shown."""

    steps: list[int]
    ids: list[str]
    case_of: dict[tuple[int, str], dict[str, Any]]


def filmstrips(runs: Sequence[RunData]) -> list[Strip]:
    """One strip for each run whose fixed cases were scored at two checkpoints or more."""
    return [strip for run in runs if (strip := _strip(run)) is not None]


def picture(folder: Path, split: str) -> np.ndarray | None:
    """The strip of a split as one picture, for W&B: (H, W, 3) uint8 RGB; None before a second checkpoint.

    Args:
        folder: of the run.
    """
    records = []
    for path in sorted((folder / "eval").glob(f"{split}-step-*.json")):
        try:
            records.append(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue  # damaged: the evaluator scores it again
    frames = _frames(records)
    if frames is None:
        return None
    rows = []
    for one in frames.ids:
        cells = [_reduced(folder, frames.case_of.get((step, one))) for step in frames.steps]
        shape = next((cell.shape for cell in cells if cell is not None), None)
        if shape is not None:
            rows.append([np.zeros(shape, np.uint8) if cell is None else cell for cell in cells])
    return _grid(rows, [f"step {step}" for step in frames.steps]) if rows else None


def _strip(run: RunData) -> Strip | None:
    by_split: dict[str, list[dict[str, Any]]] = {}
    for record in run.records:
        by_split.setdefault(record.split, []).append(record.raw)
    found = {split: _frames(records) for split, records in by_split.items()}
    split = max(found, key=lambda name: len(found[name].steps) if found[name] else 0, default=None)  # type: ignore[union-attr]
    frames = found.get(split) if split is not None else None
    if split is None or frames is None:
        return None
    epochs = {row["step"]: row["train/epoch"] for row in run.rows if {"step", "train/epoch"} <= row.keys()}
    rows = []
    for one in frames.ids:
        cases = [frames.case_of.get((step, one)) for step in frames.steps]
        rows.append((one, [_cell(run.folder, case) for case in cases]))
    columns = [f"epoch {epochs[step]:g}" if step in epochs else f"step {step}" for step in frames.steps]
    return Strip(run=run.name, split=split, columns=columns, rows=rows)


def _frames(records: Sequence[dict[str, Any]]) -> _Frames | None:
    """Evenly chosen checkpoints, the first and the last among them, and the images that the last one shows."""
    cases_of: dict[int, dict[str, dict[str, Any]]] = {}
    for raw in records:
        cases = [case for case in raw.get("cases") or [] if isinstance(case, dict)]
        shown = {str(case.get("id")): case for case in cases if FIXED in (case.get("groups") or [FIXED])}
        if shown:
            cases_of[int(raw.get("step") or 0)] = shown
    every = sorted(cases_of)
    if len(every) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(every) - 1, MOST_COLUMNS).round().astype(int))
    steps = [every[at] for at in chosen]
    ids = list(cases_of[steps[-1]])[:MOST_ROWS]
    return _Frames(
        steps=steps,
        ids=ids,
        case_of={(step, one): cases_of[step][one] for step in steps for one in ids if one in cases_of[step]},
    )


def _cell(folder: Path, case: dict[str, Any] | None) -> Cell:
    iou = case.get("iou") if case else None
    small = _reduced(folder, case)
    uri = None
    if small is not None:
        uri = data_uri(simplejpeg.encode_jpeg(small, quality=JPEG_QUALITY, colorsubsampling="444"))
    return Cell(picture=uri, iou="–" if iou is None else f"{float(iou):.2f}")


def _reduced(folder: Path, case: dict[str, Any] | None) -> np.ndarray | None:
    """A case's stored picture at the height of a cell; None where it is missing, elsewhere or no JPEG."""
    root = (folder / "eval").resolve()
    path = (root / str(case.get("picture"))).resolve() if case else root
    if not path.is_relative_to(root) or not path.is_file():  # a record must not show files from elsewhere
        return None
    try:
        stored = simplejpeg.decode_jpeg(path.read_bytes())
    except ValueError:
        return None
    width = max(1, round(stored.shape[1] * CELL_PX / stored.shape[0]))
    return np.ascontiguousarray(cv2.resize(stored, (width, CELL_PX), interpolation=cv2.INTER_AREA))


def _grid(rows: list[list[np.ndarray]], titles: list[str]) -> np.ndarray:
    """Cells beside and below each other, with a line of titles above."""
    widths = [max(row[column].shape[1] for row in rows) for column in range(len(titles))]
    height = _TITLE_PX + len(rows) * (CELL_PX + _GAP_PX)
    canvas = np.full((height, sum(widths) + _GAP_PX * (len(widths) - 1), 3), 32, np.uint8)
    lefts = np.cumsum([0, *(width + _GAP_PX for width in widths[:-1])]).tolist()
    for number, row in enumerate(rows):
        top = _TITLE_PX + number * (CELL_PX + _GAP_PX)
        for left, cell in zip(lefts, row, strict=True):
            canvas[top : top + CELL_PX, left : left + cell.shape[1]] = cell
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left + 4, 3), title, fill=(255, 255, 255), font=ImageFont.load_default(size=12))
    return np.asarray(image)
