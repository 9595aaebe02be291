"""A comparison as a page: the numbers, the curves, and the pictures of what changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsol_dist.files import write_atomically
from wsol_dist.report.compare_text import gain_text, interval_text, line_label, source_text, value_text
from wsol_dist.report.comparison import Change, Group, Line, Scored
from wsol_dist.report.curves import number, threshold_chart
from wsol_dist.report.gallery import Gallery, Result, Shown, class_name, result_of
from wsol_dist.report.images import class_table, iou_histogram
from wsol_dist.report.page import fill
from wsol_dist.runs.rows import read_some

Pictures = Mapping[tuple[Path, str], str]
"""(run folder, image id) -> data URI."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """From the first group to another."""

    other: Group
    changes: list[Change]
    flips: tuple[int, int, int] | None


def write_compare_page(
    groups: Sequence[Group],
    lines: Sequence[Line],
    changes: Sequence[Changes],
    pictures: Pictures,
    out: Path,
    *,
    note: str,
    picture_note: str,
) -> None:
    """Write the page; another of that name is replaced at once.

    Args:
        pictures: of the changed images, by run; those that are missing are left blank.
        note: what intervals and spreads mean.
        picture_note: what the pictures show, or why there are none.
    """
    every = [run for group in groups for run in group.runs]
    runs = [run.run for run in every]
    html = fill(
        "compare.html.j2",
        title=" against ".join(group.name for group in reversed(groups)),
        groups=groups,
        data=f"{runs[0].data}, {every[0].record.split}, {len(every[0].ids):,} images",
        rows=[_row(line) for line in lines],
        note=note,
        threshold=threshold_chart(runs),
        ious=iou_histogram(runs),
        classes=class_table(runs),
        changes=[(one, _gallery(groups[0], one, every, pictures)) for one in changes],
        picture_note=picture_note,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, html.encode())


def _row(line: Line) -> dict[str, Any]:
    cells = [
        {
            "value": value_text(cell),
            "source": source_text(cell),
            "gain": gain_text(cell),
            "interval": interval_text(cell),
            "good": cell is not None and (cell.gain or 0.0) > 0,
            "sure": cell is not None and cell.interval is not None and cell.interval.excludes_zero,
        }
        for cell in line.cells
    ]
    return {"label": line_label(line), "protocol": line.protocol, "cells": cells}


def _gallery(base: Group, changes: Changes, every: list[Scored], pictures: Pictures) -> Gallery:
    """The changed images, each as every run of both groups has it."""
    positions = [change.position for change in changes.changes]
    shown = [*base.runs, *changes.other.runs]
    rows = [read_some(run.record.path.with_suffix(".parquet"), positions) for run in shown]
    items = []
    for at, change in enumerate(changes.changes):
        results = [
            _result(run, rows[which][at], pictures.get((run.run.folder, change.id)), color=every.index(run))
            for which, run in enumerate(shown)
        ]
        items.append(
            Shown(
                id=change.id,
                label=class_name(base.runs[0].record, change.label),
                groups=("gained" if change.after > change.before else "lost",),
                results=results,
            )
        )
    return Gallery(items=items)


def _result(run: Scored, row: dict[str, Any], picture: str | None, *, color: int) -> Result:
    predicted = row.get("predicted") or [None]
    return result_of(
        run=run.name,
        color=color,
        picture=picture,
        kind=str(row.get("error_kind") or ""),
        iou=number(row.get("iou")),
        predicted=class_name(run.record, predicted[0]),
    )
