"""The page of the quality of labels: three charts and the tables."""

from __future__ import annotations

import numpy as np

from wsol_dist.quality.measure import reviews
from wsol_dist.quality.quality import Quality
from wsol_dist.quality.text import headline, tables
from wsol_dist.report.charts import Chart, Series, chart, thinned
from wsol_dist.report.page import fill


def quality_page(found: Quality) -> str:
    """The page as HTML."""
    charts = [reliability_chart(found), review_chart(found), keep_chart(found)]
    lines = headline(found)
    return fill(
        "quality.html.j2",
        title=f"Label quality of {found.folder.resolve().name}",
        lines=lines,
        notes=found.notes,
        charts=[one for one in charts if one is not None],
        tables=tables(found),
        num_boxes=len(found.judged),
    )


def reliability_chart(found: Quality) -> Chart | None:
    """How often boxes of a value are right; on the diagonal the value is a probability."""
    lines = [
        Series(name=one.name, points=[(b.mean, 100 * b.share) for b in one.reliability], color=number)
        for number, one in enumerate(found.signals)
        if one.calibration_error is not None
    ]
    exact = Series(name="a probability", points=[(0.0, 0.0), (1.0, 100.0)], color=-1, faint=True)
    return chart(
        "Reliability", [exact, *lines], x_label="value", y_label="% right", x_range=(0.0, 1.0), zero=True
    )


def review_chart(found: Quality) -> Chart | None:
    """Precision by reviews, of the three orders."""
    judged = found.judged
    rows = reviews(judged.doubt, judged.right, shares=tuple(np.linspace(0, 1, 101).tolist()))
    num_boxes = len(judged)
    lines: dict[str, list[float]] = {
        "by doubt": [one.num_right for one in rows],
        "at random": [one.right_random for one in rows],
        "knowing the wrong": [one.right_best for one in rows],
    }
    xs = [one.num_reviews for one in rows]
    series = [
        Series(
            name=name,
            points=[(float(x), 100 * y / num_boxes) for x, y in zip(xs, ys, strict=True)],
            color=number,
        )
        for number, (name, ys) in enumerate(lines.items())
    ]
    return chart("What a review buys", series, x_label="boxes reviewed", y_label="precision, %")


def keep_chart(found: Quality) -> Chart | None:
    """Precision and recall of the least doubtful boxes, by how many are kept."""
    judged = found.judged
    right = np.cumsum(judged.right[np.argsort(judged.doubt, kind="stable")])
    count = np.arange(1, len(right) + 1)
    lines = {"precision": right / count}
    if judged.num_truth:
        lines["recall"] = right / judged.num_truth
    series = [
        Series(
            name=name,
            points=thinned(list(zip(count.astype(float).tolist(), (100 * ys).tolist(), strict=True))),
            color=number,
        )
        for number, (name, ys) in enumerate(lines.items())
    ]
    return chart("Keep the least doubtful", series, x_label="boxes kept", y_label="%", zero=True)
