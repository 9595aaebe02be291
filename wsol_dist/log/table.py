"""Scores as a table on the console: no number without its protocol and the source of its threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Record = Mapping[str, Any]
"""A number as an evaluation's JSON has it."""


def print_scores(records: Sequence[Record], *, title: str, console: Console | None = None) -> None:
    """Print the numbers, and how far GT-known lies above the best constant box."""
    table = Table(title=title, title_justify="left", caption=_caption(records), caption_justify="left")
    for name in ("metric", "value", "protocol", "threshold", "source"):
        table.add_column(name, justify="right" if name in ("value", "threshold") else "left")
    for record in records:
        threshold = "" if record["threshold"] is None else f"{record['threshold']:.3f}"
        table.add_row(
            record["name"],
            f"{record['value']:.2f} {record['unit']}",
            record["protocol"],
            threshold,
            record["threshold_source"],
        )
    (console or Console()).print(table)


def print_by_class(
    values: Mapping[str, Sequence[Record]], *, console: Console | None = None, most: int = 100
) -> None:
    """Print what numbers are the means of, as a record's `by_class` has it: a row a class, a column a number.

    Args:
        most: rows; a word says how many more there are.
    """
    if not values:
        return
    table = Table(title="by class, %", title_justify="left", caption_justify="left")
    table.add_column("class")
    for name in values:
        table.add_column(name, justify="right")
    rows = list(zip(*values.values(), strict=True))
    for row in rows[:most]:
        texts = ["–" if one["value"] is None else f"{one['value']:.1f}" for one in row]
        table.add_row(escape(str(row[0]["class"])), *texts)
    if len(rows) > most:
        table.caption = f"and {len(rows) - most} more in the record"
    (console or Console()).print(table)


def _caption(records: Sequence[Record]) -> str:
    values = {record["name"]: record["value"] for record in records}
    if not values.keys() >= {"gt_known", "centre_box"}:
        return ""
    note = next(record["note"] for record in records if record["name"] == "centre_box")
    above = values["gt_known"] - values["centre_box"]
    return f"GT-known is {above:+.1f} points from the centre box ({note})"
