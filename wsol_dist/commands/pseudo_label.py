"""Turn a run's score maps into label maps: wsol pseudo-label RUN --out LABELS [--split train] [knobs] [overrides].

The label maps become a derived column, tars beside the shards' own, which `data.targets` of a recipe names: a segmenter
learns from them. A pixel is background where no class of the image scores above the threshold that the held-out split
chose (wsol evaluate RUN --split val). Score maps are first refined as the run's recipe or overrides say (mmcst's
--method.affinity, --refine.labels of wsol cluster), label maps by a CRF (--crf.iterations 10). Killed and started again
it goes on; where all is there it does nothing.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

from wsol_dist.columns.config import LabelConfig
from wsol_dist.columns.options import ColumnOptions
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.options import FLAT
from wsol_dist.runs.opening import TargetOptions, print_chosen

if TYPE_CHECKING:
    from wsol_dist.columns.pseudo_labels import PseudoLabelling
    from wsol_dist.evaluator.work import Work
    from wsol_dist.metrics.threshold import Threshold


@dataclass(frozen=True, kw_only=True)
class Options(TargetOptions, ColumnOptions):
    """The flags of `wsol pseudo-label`."""

    index: str | None = None
    """Folder of the shards; by default the recipe's data.index."""
    split: str | None = None
    """One or several, joined by commas; by default the recipe's data.train_split."""
    threshold: str | None = None
    """val, fixed (the recipe's) or a number in [0, 1); by default val."""
    knobs: Annotated[LabelConfig, FLAT] = field(default_factory=LabelConfig)


def run(options: Options) -> int:
    """Fill the column."""
    task = plan(options)
    from wsol_dist.columns.fill import is_complete
    from wsol_dist.columns.pseudo_labels import write_labels
    from wsol_dist.processes.spawn import spawn

    index = Index.load(task.work.index)
    if is_complete(index, task.column(index)):
        return 0
    spawn(write_labels, options.procs or 1, task)
    return 0


def plan(options: Options) -> PseudoLabelling:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    opened = options.open()
    # It imports torch: after the recipe is read.
    from wsol_dist.columns.pseudo_labels import PseudoLabelling, check_labelling
    from wsol_dist.evaluator.work import plan_work

    data = opened.config.data
    options = replace(options, index=options.index or data.index, split=options.split or data.train_split)
    index, out, splits = options.source(usage="wsol pseudo-label RUN --index SHARDS --out LABELS")
    print_chosen(opened)
    work = plan_work(opened, index=index.place, splits=splits, threshold=options.threshold)
    check_labelling(work, index)
    return PseudoLabelling(
        work=work,
        out=out,
        threshold=background_threshold(work, scored=_scored_as(options)),
        config=options.knobs,
        command=shlex.join(["wsol", *sys.argv[1:]]),
        workers=options.workers,
    )


def background_threshold(work: Work, *, scored: str) -> Threshold:
    """The threshold up to which a pixel is background: the held-out split's, unless another is asked for by name.

    Args:
        scored: the target with the flags that choose its weights, as `wsol evaluate` takes them.

    Raises:
        UserError: it would be val's, and that was not scored with these weights, knobs and shards.
    """
    from wsol_dist.evaluator.choose_threshold import threshold_for

    if work.threshold == "oracle":
        raise UserError(
            "--threshold oracle: label maps are made where no truth is known; allowed: val, fixed or a number in [0, 1)"
        )
    # Asked for by name: also the held-out split's own label maps get the threshold that it chose.
    asked = replace(
        work,
        threshold=work.threshold or "val",
        cure=f"run first: wsol evaluate {scored} --split {work.config.val.split}, with the same overrides",
    )
    others = (
        name for name in (*work.splits, work.config.data.train_split, "") if name != work.config.val.split
    )
    threshold, why = threshold_for(next(others), asked, None)
    print(f"background: {why}")
    return threshold


def _scored_as(options: Options) -> str:
    given = {"--step": options.step, "--init": options.init}
    return shlex.join([options.target, *(str(word) for pair in given.items() if pair[1] for word in pair)])
