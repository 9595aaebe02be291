"""The report: run folders -> one HTML page that needs nothing beside itself."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jinja2

from wsol_dist.atomic import write_atomically
from wsol_dist.report.curves import other_charts, score_chart, threshold_chart, training_charts
from wsol_dist.report.run_data import RunData, read_run
from wsol_dist.report.view import compared, view


def write_report(runs: list[Path], out: Path) -> None:
    """Writes the page of one run, or of several side by side; another page of that name is replaced at once.

    Raises:
        UserError: a run is missing or is no run folder, or a file in it cannot be read.
    """
    assert runs, "at least one run"
    html = render([read_run(folder) for folder in runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, html.encode())


def render(runs: list[RunData]) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wsol_dist", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    views = [view(run) for run in runs]
    return environment.get_template("page.html.j2").render(
        title=" · ".join(run.name for run in runs),
        views=views,
        compared=compared(views) if len(views) > 1 else [],
        threshold=threshold_chart(runs),
        score=score_chart(runs),
        training=training_charts(runs),
        others=other_charts(runs),
        written=time.strftime("%Y-%m-%d %H:%M"),
        version=_version(),
    )


def _version() -> str:
    try:
        return version("wsol_dist")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return ""
