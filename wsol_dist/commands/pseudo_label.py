"""Turn a run's score maps into label maps: wsol pseudo-label RUN --out LABELS [--split train] [knobs] [overrides].

The label maps become a derived column, tars beside the shards' own, which `data.targets` of a recipe names: a segmenter
learns from them. A pixel is background where no class of the image scores above the threshold that the held-out split
chose (wsol evaluate RUN --split val). Score maps are first refined as the run's recipe or overrides say (mmcst's
--method.affinity, --refine.labels of wsol cluster), label maps by a CRF (--crf.iterations 10). Killed and started again
it goes on; where all is there it does nothing.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from wsol_dist.columns.options import add_column_options, open_source
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.options import TARGET, add_weights_options, parse_knobs, split_arguments, weights_given
from wsol_dist.runs.opening import open_run, print_chosen

if TYPE_CHECKING:
    from wsol_dist.columns.pseudo_labels import LabelConfig, PseudoLabelling
    from wsol_dist.evaluator.work import Work
    from wsol_dist.metrics.threshold import Threshold

KNOBS = ("--size-px", "--ignore-margin", "--crf.")


def main(argv: list[str]) -> int:
    """Entry of `wsol pseudo-label`."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        from wsol_dist.columns.pseudo_labels import LabelConfig

        parser.print_help()
        print("\nThe knobs of label maps are flags too:\n")
        parse_knobs(LabelConfig, ["--help"], prog="wsol pseudo-label ...")
        return 0
    own, rest = split_arguments(parser, argv)
    task = plan(own, rest)
    from wsol_dist.columns.fill import is_complete
    from wsol_dist.columns.pseudo_labels import write_labels
    from wsol_dist.processes.spawn import spawn

    index = Index.load(task.work.index)
    if is_complete(index, task.column(index)):
        return 0
    spawn(write_labels, own.procs, task)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol pseudo-label", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument("target", metavar="RUN|RECIPE", help=TARGET)
    add_column_options(parser, what="label maps", procs=1, procs_help="1")
    parser.set_defaults(split=None)
    add_weights_options(parser)
    parser.add_argument("--threshold", help="val, fixed (the recipe's) or a number in [0, 1); default val")
    return parser


def plan(own: argparse.Namespace, rest: list[str]) -> PseudoLabelling:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    knobs, overrides = _parted(rest)
    opened = open_run(own.target, **weights_given(own), overrides=overrides)
    # It imports torch: after the recipe is read.
    from wsol_dist.columns.pseudo_labels import PseudoLabelling, check_labelling
    from wsol_dist.evaluator.work import plan_work

    config = _knobs(knobs)
    own.index = own.index or opened.config.data.index
    own.split = own.split or opened.config.data.train_split
    index, splits = open_source(own, usage="wsol pseudo-label RUN --index SHARDS --out LABELS")
    print_chosen(opened)
    work = plan_work(opened, index=own.index, splits=splits, threshold=own.threshold)
    check_labelling(work, index)
    return PseudoLabelling(
        work=work,
        out=own.out,
        threshold=background_threshold(work, scored=_scored_as(own)),
        config=config,
        command=shlex.join(["wsol", *sys.argv[1:]]),
        workers=own.workers,
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


def _scored_as(own: argparse.Namespace) -> str:
    given = [
        word
        for name in ("step", "init")
        if (value := getattr(own, name))
        for word in (f"--{name}", str(value))
    ]
    return shlex.join([own.target, *given])


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """The knobs of label maps, and the overrides of the recipe."""
    knobs: list[str] = []
    overrides: list[str] = []
    current = overrides
    for word in words:
        if word.startswith("--"):
            current = knobs if word.startswith(KNOBS) else overrides
        current.append(word)
    return knobs, overrides


def _knobs(words: list[str]) -> LabelConfig:
    from wsol_dist.columns.pseudo_labels import LabelConfig

    return parse_knobs(LabelConfig, words, prog="wsol pseudo-label")
