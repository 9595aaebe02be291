"""A comparison as tables on the console."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wsol_dist.report.comparison import MEAN_IOU, Cell, Change, Group, Line
from wsol_dist.report.gallery import class_name
from wsol_dist.report.view import metric_label


def line_label(line: Line) -> str:
    """What a number is called for people."""
    return "Mean IoU" if line.name == MEAN_IOU else metric_label(line.name) or line.name


def value_text(cell: Cell | None) -> str:
    """`59.7`, of several seeds `59.7 ± 1.2`."""
    if cell is None:
        return "–"
    return f"{cell.mean:.1f}" + (f" ± {cell.spread:.1f}" if cell.spread is not None else "")


def gain_text(cell: Cell | None) -> str:
    """`+3.1`, with a star where the interval excludes zero."""
    if cell is None or cell.gain is None:
        return ""
    star = "*" if cell.interval is not None and cell.interval.excludes_zero else ""
    return f"{cell.gain:+.1f}{star}"


def interval_text(cell: Cell | None) -> str:
    """`+0.4 to +5.8`; empty where there is none."""
    if cell is None or cell.interval is None:
        return ""
    return f"{cell.interval.low:+.1f} to {cell.interval.high:+.1f}"


def source_text(cell: Cell | None) -> str:
    """Sources and values of the thresholds: `val 0.577`, of several seeds `val 0.577, 0.604`."""
    texts = list(dict.fromkeys(cell.sources)) if cell else []
    source, _, first = texts[0].partition(" ") if texts else ("", "", "")
    return ", ".join([f"{source} {first}".strip(), *(text.removeprefix(f"{source} ") for text in texts[1:])])


def caption(groups: Sequence[Group], *, num_resamples: int, seed: int) -> str:
    """What the columns mean, in plain sentences."""
    num_images = len(groups[0].runs[0].ids)
    parts = []
    if len(groups) > 1:
        parts.append(
            f"Points over {groups[0].name}; 95 % paired bootstrap intervals over the {num_images} images "
            f"({num_resamples} resamples, seed {seed}); * the interval excludes zero. They speak of the choice of "
            "images, not of the seed."
        )
    if any(len(group.runs) > 1 for group in groups):
        parts.append(
            "±: sample standard deviation over the seeds; images are compared by their mean over the seeds."
        )
    return " ".join(parts)


def print_comparison(
    groups: Sequence[Group], lines: Sequence[Line], *, note: str, console: Console | None = None
) -> None:
    """The numbers of all groups, each with its protocol and threshold, and the gains over the first."""
    console = console or Console()
    first = groups[0].runs[0]
    title = f"{first.run.data}, {first.record.split}, {len(first.ids)} images; percent"
    table = Table(title=escape(title), title_justify="left", caption=escape(note), caption_justify="left")
    table.add_column("\nprotocol")
    for at, group in enumerate(groups):
        table.add_column(f"{escape(group.name)}\nthreshold", justify="right")
        if at:
            table.add_column("gain\n95 % interval", justify="right", no_wrap=True)
    for line in lines:
        cells = [f"{line_label(line)}\n{escape(line.protocol)}"]
        for at, cell in enumerate(line.cells):
            cells.append(escape(f"{value_text(cell)}\n{source_text(cell)}".rstrip()))
            cells += [f"{gain_text(cell)}\n{interval_text(cell)}".rstrip()] if at else []
        table.add_row(*cells)
    console.print(table)


def print_changes(
    base: Group,
    other: Group,
    changes: Sequence[Change],
    *,
    flips: tuple[int, int, int] | None,
    console: Console | None = None,
) -> None:
    """The images that changed most from one group to another."""
    console = console or Console()
    if flips is not None:
        gained, lost, total = flips
        console.print(
            f"GT-known: {other.name} finds {gained} images that {base.name} misses, and misses {lost} that it finds, "
            f"of {total}.",
            markup=False,
            highlight=False,
        )
    if not changes:
        return
    table = Table(title=escape(f"changed most from {base.name} to {other.name}"), title_justify="left")
    for name in ("image", "class"):
        table.add_column(name, overflow="fold")
    for name in (f"IoU\n{base.name}", f"IoU\n{other.name}", "change"):
        table.add_column(escape(name), justify="right")
    for one in changes:
        table.add_row(
            escape(one.id),
            escape(class_name(base.runs[0].record, one.label)),
            f"{one.before:.2f}",
            f"{one.after:.2f}",
            f"{one.after - one.before:+.2f}",
        )
    console.print(table)
