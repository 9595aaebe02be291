"""The report: run folders -> one HTML page that needs nothing beside itself."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from wsol_dist.files import write_atomically
from wsol_dist.report.curves import other_charts, score_chart, threshold_chart, training_charts
from wsol_dist.report.filmstrip import filmstrips
from wsol_dist.report.gallery import gallery
from wsol_dist.report.images import class_iou_table, class_table, iou_histogram, sources_text
from wsol_dist.report.run_data import RunData, read_runs
from wsol_dist.report.view import compared, unlike, view

HEAT_LEGEND = 'heat map of the true class, low<span class="ramp"></span>high'


def write_report(runs: list[Path], out: Path) -> None:
    """Writes the page of one run, or of several side by side; another page of that name is replaced at once.

    Raises:
        UserError: a run is missing or is no run folder, or a file in it cannot be read.
    """
    assert runs, "at least one run"
    html = render(read_runs(runs))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, html.encode())


def render(runs: list[RunData]) -> str:
    """The page as HTML."""
    views = [view(run) for run in runs]
    return fill(
        "page.html.j2",
        title=" · ".join(run.name for run in runs),
        views=views,
        compared=compared(views) if len(views) > 1 else [],
        unlike=unlike(views),
        threshold=threshold_chart(runs),
        ious=iou_histogram(runs),
        classes=class_iou_table(runs) or class_table(runs),
        gallery=gallery(runs),
        strips=filmstrips(runs),
        gallery_legend=Markup(HEAT_LEGEND),  # noqa: S704 - a constant
        kinds_source=sources_text(runs, "top1_loc"),
        score=score_chart(runs),
        training=training_charts(runs),
        others=other_charts(runs),
    )


def fill(template: str, **values: Any) -> str:
    """A template of this package with its values, as HTML; strings are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wsol_dist", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        written=time.strftime("%Y-%m-%d %H:%M"), version=_version(), **values
    )


def _version() -> str:
    try:
        return version("wsol_dist")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return ""
