"""Write the report page of one run or several side by side: wsol report RUN... [--out page.html]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from wsol_dist.errors import UserError
from wsol_dist.report.page import write_report
from wsol_dist.report.run_data import read_run
from wsol_dist.report.summary import write_summary


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol report`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run folders, such as runs/quickstart."""
    out: Path | None = None
    """File of the page; by default <RUN>/report.html, of several <first RUN>/side-by-side.html."""


def run(options: Options) -> int:
    """Write the page, and `summary.json` of each run whose test split was scored."""
    runs = list(options.runs)
    out = options.out or runs[0] / ("report.html" if len(runs) == 1 else "side-by-side.html")
    if out.is_dir():
        raise UserError(f"--out {str(out)!r}: is a folder; give a file such as {out / 'report.html'}")
    try:
        write_report(runs, out)
    except OSError as error:
        raise UserError(
            f"--out {str(out)!r}: cannot be written ({error.strerror}); choose another file"
        ) from error
    console = Console(soft_wrap=True)
    for run in runs:
        _summary(run, console)
    console.print(f"Report page  {out.resolve()}", markup=False, highlight=False)
    return 0


def _summary(run: Path, console: Console) -> None:
    if read_run(run).test is None:
        console.print(
            f"{run}: the test split was not scored yet; no summary.json", markup=False, highlight=False
        )
        return
    write_summary(run)
    console.print(f"Summary      {(run / 'summary.json').resolve()}", markup=False, highlight=False)
