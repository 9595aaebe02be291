"""Reviewed labels: the predictions with a person's boxes, without what was rejected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.files import write_atomically
from wsol_dist.prediction.record import TABLE_FILE, write_table
from wsol_dist.prediction.writers import RECORD, TABLE_FORMATS, check_stems, write_formats
from wsol_dist.review.cards import CORNERS, Cards
from wsol_dist.review.journal import ACCEPTED, OPEN, Box, Choice

FORMATS = ("coco", "yolo", "voc")
ALLOWED = (*sorted(TABLE_FORMATS), RECORD)
MARK = "exported.json"
"""Says that the folder is an export, and when it is there with counts, that it is whole."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    out: Path
    num_boxes: int
    num_moved: int
    """Of them those that a person moved or drew."""
    num_images: int


def reviewed_table(cards: Cards, choices: dict[int, Choice], *, with_open: bool) -> tuple[pa.Table, int]:
    """The rows of the predictions that stand, with their boxes as a person left them, and how many boxes a person made.

    An image whose boxes are all gone is left out: nobody said that nothing is on it.
    """
    stands = {ACCEPTED, OPEN} if with_open else {ACCEPTED}
    kept: list[int] = []
    changes: dict[str, dict[int, Any]] = {}
    for card, row in enumerate(cards.row.tolist()):
        choice = choices.get(card, Choice(state=OPEN))
        if choice.state not in stands or (choice.box is None and card >= cards.num_boxes):
            continue
        kept.append(row)
        if choice.box is not None:
            for name, value in _by_hand(cards, card, choice.box).items():
                changes.setdefault(name, {})[row] = value
    table = cards.predictions.table()
    for name, values in changes.items():
        column = table[name].to_pylist()
        for row, value in values.items():
            column[row] = value
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(column, type=field.type))
    return table.take(pa.array(sorted(kept), type=pa.int64())), len(changes.get(CORNERS[0], {}))


def _by_hand(cards: Cards, card: int, box: Box) -> dict[str, Any]:
    """What a person's box changes in its row."""
    corners: dict[str, Any] = dict(zip(CORNERS, box, strict=True))
    if card < cards.num_boxes:
        return corners
    label = int(cards.label[card])
    found = {"label": label, "class": cards.classes[label], "score": float(cards.score[card])}
    return corners | found | {"class_rank": 0, "box_rank": 0}


def export(
    cards: Cards,
    choices: dict[int, Choice],
    out: Path,
    *,
    formats: Sequence[str] = FORMATS,
    with_open: bool = False,
) -> Exported:
    """Write the reviewed labels; an earlier export in the folder is replaced.

    Args:
        out: folder that gets a place for each format.
        formats: some of `ALLOWED`.
        with_open: also the boxes that nobody has judged.

    Raises:
        UserError: nothing is left to write; a format does not exist; the folder holds something else; as the writers.
    """
    for name in formats or ("",):
        if name not in ALLOWED:
            raise UserError(f"--formats: no format {name!r} for boxes; {did_you_mean(name, list(ALLOWED))}")
    table, num_moved = reviewed_table(cards, choices, with_open=with_open)
    if table.num_rows == 0:
        cure = (
            "accept some"
            if with_open
            else "accept some, or also export those that nobody has judged (--with-open)"
        )
        raise UserError(f"no box is accepted yet, nothing to export; {cure}")
    images = table["image"].unique().to_pylist()
    if {"voc", "yolo"} & set(formats):
        check_stems(images)
    done = Exported(out=out, num_boxes=table.num_rows, num_moved=num_moved, num_images=len(images))
    _clear(out)
    write_formats(out, table, about=cards.predictions.about, formats=formats)
    if RECORD in formats:
        write_table(out / TABLE_FILE, table)
    counts = {
        "boxes": done.num_boxes,
        "moved": done.num_moved,
        "images": done.num_images,
        "formats": list(formats),
    }
    _mark(out, counts | {"predictions_sha256": cards.sha256, "with_open": with_open})
    return done


def _clear(out: Path) -> None:
    """An empty folder: files of an earlier export would be labels of images that were rejected since."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file()):
        raise UserError(f"--export {out}: is not empty and no earlier export; give another folder")
    if out.is_dir():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    _mark(out, {})


def _mark(out: Path, counts: dict[str, object]) -> None:
    write_atomically(out / MARK, json.dumps(counts, indent=1).encode() + b"\n")
