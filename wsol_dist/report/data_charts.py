"""Charts of a data set: how large its images and boxes are, how many a class has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wsol_dist.report.charts import Bar, Chart, Series, chart, readout_of

NUM_BINS = 24
MOST_BARS = 60
"""Of one chart; more would be too thin to see, and become a line."""
SHOWN_SHARE = 0.995
"""Of the values; the few that are far larger are told in a note, and would flatten all others."""


def share_histogram(title: str, values: np.ndarray, *, x_label: str, of: str) -> Chart | None:
    """How many values are where in [0, 1], in percent of all; None without any.

    Args:
        of: what is counted, `boxes` say.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    middle = np.median(values)
    note = f"Median {100 * middle:.1f} %. "
    note += f"{100 * np.mean(values > 0.9):.1f} % of the {of} cover more than 90 %, "
    note += f"{100 * np.mean(values < 0.01):.1f} % less than 1 %."
    return _bars(title, 100 * values, np.linspace(0, 100, 21), x_label=x_label, of=of, note=note)


def count_histogram(title: str, values: np.ndarray, *, x_label: str, of: str) -> Chart | None:
    """How often each whole number is there, in percent; None where all are the same."""
    if not len(values) or values.min() == values.max():
        return None
    largest = int(np.quantile(values, SHOWN_SHARE))
    step = max(1, -(-(largest + 1 - int(values.min())) // NUM_BINS))
    edges = np.arange(values.min(), largest + step + 1, step) - 0.5
    return _bars(title, values, edges, x_label=x_label, of=of, note=f"Mean {values.mean():.2f}. ")


def size_histogram(width: np.ndarray, height: np.ndarray) -> Chart | None:
    """Widths and heights of images in pixels, as two outlines; None where all are the same."""
    if not len(width) or (width.min() == width.max() and height.min() == height.max()):
        return None
    both = np.concatenate([width, height])
    top = float(np.quantile(both, SHOWN_SHARE))
    edges = np.linspace(min(float(both.min()), top - 1), top, NUM_BINS + 1)
    lines, centres = [], []
    for at, (name, values) in enumerate((("width", width), ("height", height))):
        share = 100 * np.histogram(np.minimum(values, top), edges)[0] / len(values)
        named = f"{name}, median {np.median(values):.0f} px"
        outline = [
            (float(x), float(y))
            for x0, x1, y in zip(edges, edges[1:], share, strict=False)
            for x, y in ((x0, y), (x1, y))
        ]
        lines.append(Series(name=named, points=outline, color=at))
        middle = (edges[1:] + edges[:-1]) / 2
        centres.append(
            Series(name=named, points=list(zip(middle.tolist(), share.tolist(), strict=True)), color=at)
        )
    drawn = chart("Image sizes", lines, x_label="pixels", y_label="% of the images", zero=True)
    assert drawn is not None
    readout = readout_of(centres, x_range=(float(edges[0]), float(edges[-1])), x_label="pixels")
    shape = width / np.maximum(1, height)
    note = (
        f"Width {width.min()} to {width.max()}, height {height.min()} to {height.max()} px; "
        f"{100 * np.mean(shape > 1.05):.0f} % landscape, {100 * np.mean(shape < 1 / 1.05):.0f} % portrait."
    )
    return replace(drawn, readout=readout, note=note)


def class_histogram(names: Sequence[str], num_images: np.ndarray) -> Chart | None:
    """Images of each class, the largest class first; None for less than two."""
    if len(names) < 2:
        return None
    order = np.argsort(-num_images, kind="stable")
    counts = num_images[order].tolist()
    bars = [
        Bar(x0=at + 0.5, x1=at + 1.5, y=count, title=f"{names[number]}: {count} images")
        for at, (number, count) in enumerate(zip(order.tolist(), counts, strict=True))
    ]
    centres = [Series(name="images", points=[(at + 1.0, float(count)) for at, count in enumerate(counts)])]
    many = len(counts) > MOST_BARS
    drawn = chart(
        "Images per class",
        centres if many else [],
        x_label="class, the largest first",
        y_label="images",
        bars=() if many else bars,
        zero=True,
    )
    assert drawn is not None
    ends = (1.0, float(len(counts))) if many else (0.5, len(counts) + 0.5)
    readout = readout_of(centres, x_range=ends, x_label="class")
    most = f"{names[order[0]]} ({counts[0]})"
    least = f"{names[order[-1]]} ({counts[-1]})"
    return replace(
        drawn, readout=readout, note=f"Most: {most}. Least: {least}. Median {np.median(counts):.0f}."
    )


def _bars(title: str, values: np.ndarray, edges: np.ndarray, *, x_label: str, of: str, note: str) -> Chart:
    counts = np.histogram(np.minimum(values, edges[-1]), edges)[0]
    share = (100 * counts / len(values)).tolist()
    bars = [
        Bar(x0=float(x0), x1=float(x1), y=y, title=f"{x0:g} to {x1:g}: {y:.1f} % of the {of}, {count}")
        for x0, x1, y, count in zip(edges[:-1], edges[1:], share, counts.tolist(), strict=True)
    ]
    drawn = chart(
        title,
        [],
        x_label=x_label,
        y_label=f"% of the {of}",
        bars=bars,
        x_range=(float(edges[0]), float(edges[-1])),
    )
    assert drawn is not None
    centres = [Series(name=of, points=[((bar.x0 + bar.x1) / 2, bar.y) for bar in bars])]
    readout = readout_of(centres, x_range=(float(edges[0]), float(edges[-1])), x_label=x_label)
    beyond = int(np.sum(values > edges[-1]))
    if beyond:
        note += f" The last bar holds {beyond} larger ones, up to {values.max():g}."
    return replace(drawn, readout=readout, note=note)
