"""Write the report page of one run or several side by side: wsol report RUN... [--out page.html]."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from wsol_dist.errors import UserError
from wsol_dist.report.page import write_report
from wsol_dist.report.run_data import read_run
from wsol_dist.report.summary import write_summary


def main(argv: list[str]) -> int:
    """Entry of `wsol report`: the page, and `summary.json` of each run whose test split was scored."""
    parser = argparse.ArgumentParser(prog="wsol report", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder, such as runs/quickstart"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file of the page; default <RUN>/report.html, of several <first RUN>/side-by-side.html",
    )
    own = parser.parse_args(argv)
    out: Path = own.out or own.runs[0] / ("report.html" if len(own.runs) == 1 else "side-by-side.html")
    if out.is_dir():
        raise UserError(f"--out {str(out)!r}: is a folder; give a file such as {out / 'report.html'}")
    try:
        write_report(own.runs, out)
    except OSError as error:
        raise UserError(
            f"--out {str(out)!r}: cannot be written ({error.strerror}); choose another file"
        ) from error
    console = Console(soft_wrap=True)
    for run in own.runs:
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
