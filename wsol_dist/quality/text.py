"""The quality of labels on the console."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from wsol_dist.quality.quality import Quality

PRINTED = ("score", "1 - doubt")
"""Signals whose tenths go to the console; the page has all."""


def print_quality(found: Quality, *, console: Console | None = None) -> None:
    """Counts, precision and recall by score, what to keep, and what a review buys."""
    console = console or Console()
    for line in (*headline(found), *found.notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for title, columns, rows in tables(found, signals=PRINTED):
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def headline(found: Quality) -> list[str]:
    """What was measured, how, and the totals."""
    judged = found.judged
    counts = f"{len(judged)} boxes on {judged.num_images} images with {judged.num_truth} true boxes"
    scores = f"precision {percent(found.precision)} %"
    if found.recall is not None:
        scores += f", recall {percent(found.recall)} %"
    if found.average_precision is not None:
        scores += f", AP{100 * found.least_iou:.0f} {percent(found.average_precision)} % (mean of classes)"
    wrong = int((~judged.right).sum())
    scores += f"; of {wrong} wrong boxes {int(judged.misnamed.sum())} are where an object of another class is"
    return [
        f"{found.folder}: {counts} ({found.truth.source})",
        scores,
        f"{found.protocol}; {found.threshold}",
    ]


def tables(
    found: Quality, *, signals: tuple[str, ...] | None = None
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of each table.

    Args:
        signals: those of which the tenths are wanted; None for all.
    """
    shown = [one.name for one in found.signals if signals is None or one.name in signals]
    tenths = [_tenths(found, name) for name in shown]
    return [_signals(found), *tenths, _kept(found), _reviews(found), _reached(found)]


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _signals(found: Quality) -> tuple[str, list[str], list[list[str]]]:
    rows = [
        [
            one.name,
            *(
                "–" if share is None else f"{share:.3f}"
                for share in (one.sorting_power, one.calibration_error)
            ),
        ]
        for one in found.signals
    ]
    title = "What tells right boxes from wrong ones"
    return title, ["value", "right above wrong (AUROC)", "off as a probability (ECE, 10 bins)"], rows


def _tenths(found: Quality, name: str) -> tuple[str, list[str], list[list[str]]]:
    signal = next(one for one in found.signals if one.name == name)
    num_true = found.judged.num_truth
    rows = [
        [
            f"{one.low:.3f} to {one.high:.3f}",
            str(one.num_boxes),
            str(one.num_right),
            percent(one.share),
            f"{percent(one.share_low)} to {percent(one.share_high)}",
            percent(one.right_above / one.num_above),
            percent(one.right_above / num_true) if num_true else "–",
        ]
        for one in reversed(signal.tenths)
    ]
    columns = ["from, to", "boxes", "right", "% right", "95 %", "precision so far", "recall so far"]
    return f"By {name}, in tenths of the boxes", columns, rows


def _kept(found: Quality) -> tuple[str, list[str], list[list[str]]]:
    num_true = found.judged.num_truth
    rows = []
    for one in found.kept:
        if one.most_doubt is None:
            rows.append([f"{percent(one.wanted)}", "never", "0", "", ""])
            continue
        recall = percent(one.num_right / num_true) if num_true else "–"
        rows.append(
            [
                percent(one.wanted),
                f"{one.most_doubt:.4f}",
                str(one.num_boxes),
                percent(one.num_right / one.num_boxes),
                recall,
            ]
        )
    title = "Without a review: keep the least doubtful (the cut is chosen on these boxes)"
    return title, ["wanted precision", "doubt up to", "boxes", "precision", "recall"], rows


def _reviews(found: Quality) -> tuple[str, list[str], list[list[str]]]:
    num_boxes = len(found.judged)
    rows = [
        [
            str(one.num_reviews),
            percent(one.num_reviews / num_boxes),
            percent(one.num_right / num_boxes),
            percent(one.right_random / num_boxes),
            f"{percent(one.random_low / num_boxes)} to {percent(one.random_high / num_boxes)}",
            percent(one.right_best / num_boxes),
        ]
        for one in found.reviews
    ]
    columns = ["boxes reviewed", "% of all", "by doubt", "at random", "95 % of orders", "knowing the wrong"]
    return "Precision after a review that mends each wrong box it comes to, %", columns, rows


def _reached(found: Quality) -> tuple[str, list[str], list[list[str]]]:
    rows = [
        [percent(one.wanted), str(one.by_doubt), str(one.at_random), str(one.at_best)]
        for one in found.reached
    ]
    columns = ["wanted precision", "by doubt", "at random, on average", "knowing the wrong"]
    return f"Reviews until a precision is reached, of {len(found.judged)}", columns, rows
