"""From class folders to a trained localizer: wsol fit FOLDER [--out RUN] [--weights FILE] [--explain] [overrides].

Checks the folder, holds images out, packs, chooses a recipe, trains, scores and writes the report, on this machine.
Started again it goes on. Boxes are only scored against: a CSV (image,x0,y0,x1,y1) or COCO JSON file in FOLDER is found.
What is no flag of its own is a knob of the recipe: --train.epochs 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt

from wsol_dist.fitting import started as memory
from wsol_dist.fitting.begin import FitRequest, begin, explanation, resume
from wsol_dist.options import FLAT, Overrides, Switch


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `wsol fit`."""

    given: Annotated[FitRequest, FLAT]
    out: Path | None = None
    """Run folder; by default runs/NAME of the folder."""
    procs: PositiveInt | None = None
    """Training processes; by default one a GPU, else 1."""
    explain: Switch = False
    """Show the table of recipes and the row that is chosen; do nothing else."""
    overrides: Overrides = ()

    @classmethod
    def epilog(cls) -> str:
        """What the help ends with."""
        return "Every key of the chosen recipe is a flag too, such as --train.epochs 3; wsol show RECIPE lists them."


def run(options: Options) -> int:
    """Fit, or explain what would be chosen."""
    given = options.given
    if options.explain:
        print("\n".join(explanation(given)))
        return 0
    run = (options.out or Path("runs") / given.name).resolve()
    begun = memory.read(run)
    if begun is None:
        started = begin(given, run, overrides=options.overrides)
    else:
        started = resume(given, run, begun, overrides=options.overrides)
    from wsol_dist.fitting import steps

    source = steps.open_source(started)
    index = steps.pack(started, run, source)
    print(steps.describe_splits(index, source.known), flush=True)
    splits = steps.scored_splits(index)
    if code := steps.train_and_score(started, run, splits, procs=options.procs):
        return code
    extra = steps.scored_with_fixed(index)
    if extra and not steps.is_scored(run, extra):
        steps.score_with_fixed(run, extra)
    steps.report(run)
    for line in steps.verdict(started, run, splits + extra):
        print(line)
    print(f"Report page  {run / 'report.html'}\nnext         wsol predict {run} IMAGES --out LABELS")
    return 0
