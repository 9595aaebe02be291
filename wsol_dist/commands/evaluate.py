"""Score a run or a recipe's weights: wsol evaluate RUN|RECIPE --index SHARDS --split val,test [overrides].

RUN is a run folder, of which the best checkpoint known is scored, else the newest (--step for another), or a folder of
wsol export; RECIPE a recipe's name or .yaml file, whose weights are what it names itself or --init. Results go into
RUN/eval. The held-out split (val.split) chooses the threshold that other splits then get. With --follow every
checkpoint of RUN is scored on the held-out split while training goes on, <RUN>/best.json names the best, and it ends
when training does.
"""

from __future__ import annotations

import argparse
import os
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from wsol_dist.errors import UserError
from wsol_dist.launching.requeue import requeue
from wsol_dist.options import (
    TARGET,
    add_weights_options,
    check_least,
    names_of,
    split_arguments,
    weights_given,
)
from wsol_dist.processes.environment import is_first_rank
from wsol_dist.processes.first_error import told_once
from wsol_dist.processes.stop import STOPPED, STOPPED_LINE, Stop
from wsol_dist.recipe import Config, recipe_names
from wsol_dist.runs.opening import open_run, print_chosen, read_target
from wsol_dist.runs.run_state import CONFIG_FILE

WAIT_FOR_RUN_S = 1800.0
"""How long --follow waits for a run folder: its job may start before that of the training made one."""


def main(argv: list[str]) -> int:
    """Entry of `wsol evaluate`."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        print("\nBehind RUN or RECIPE, --help lists its knobs; recipes: " + ", ".join(recipe_names()))
        return 0 if argv else 2
    own, rest = split_arguments(parser, argv)
    with told_once(Path(own.target)):
        check_least(own, {"procs": 1})
        return follow_run(own, rest) if own.follow else score_run(own, rest)


def score_run(own: argparse.Namespace, rest: list[str]) -> int:
    """Check what was given, then score."""
    if own.final_split:
        raise UserError("--final-split: goes with --follow; without it --split names what is scored")
    opened = open_run(own.target, **weights_given(own), overrides=rest)
    if opened.whole and opened.folder is None and own.out is None:
        raise UserError(
            f"--out: needed, as {own.target} is no run folder that could hold the results; give a folder"
        )
    # They import torch: after the flags are checked.
    from wsol_dist.evaluator.scoring import score_work
    from wsol_dist.evaluator.work import plan_work

    work = plan_work(
        opened,
        splits=names_of(own.split) or ("test",),
        index=own.index,
        threshold=own.threshold,
        out=own.out,
        save_maps=own.save_maps,
    )
    print_chosen(opened)
    score_work(work, procs=own.procs)
    return 0


def follow_run(own: argparse.Namespace, rest: list[str]) -> int:
    """`--follow`: check what can be checked before there is a checkpoint, then follow."""
    check_follow(own)
    folder = Path(own.target)
    until = time.monotonic() + WAIT_FOR_RUN_S
    while not (folder / CONFIG_FILE).is_file() and time.monotonic() < until:
        time.sleep(2)
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{folder}: --follow: no run folder, not even after {WAIT_FOR_RUN_S / 60:g} minutes")
    from wsol_dist.evaluator.choose_threshold import check_thresholds
    from wsol_dist.evaluator.follow import Following, follow
    from wsol_dist.evaluator.work import plan_follow
    from wsol_dist.processes.spawn import spawn

    config, final = read_target(own.target, rest), names_of(own.final_split)
    work = plan_follow(folder, config, index=own.index, final_splits=final, threshold=own.threshold)
    check_thresholds(work)
    task = Following(work=work, final_splits=final, final=own.final)
    # Nothing is lost by an end in the middle of a checkpoint: the job that goes on scores it from its start.
    with Stop(at_once=partial(_requeue, config)) if "SLURM_JOB_ID" in os.environ else nullcontext():
        spawn(follow, own.procs, task, folder=folder)
    return 0


def _requeue(config: Config, heard: str) -> None:
    """Have SLURM start this job again, unless a person ended it; it ends all ranks with the first one."""
    if is_first_rank():
        print(f"{STOPPED_LINE}{heard}; {requeue(limit=config.train.max_requeues)}", flush=True)
        os._exit(STOPPED)


def check_follow(own: argparse.Namespace) -> None:
    """Refuse what goes with one scoring only.

    Raises:
        UserError: the first of it.
    """
    for name in ("init", "step", "out", "split", "save_maps"):
        if getattr(own, name):
            raise UserError(
                f"--{name.replace('_', '-')}: does not go with --follow, which scores every checkpoint of RUN on the "
                "held-out split (val.split) and at the end the splits of --final-split"
            )
    if Path(own.target).suffix in (".yaml", ".yml") or own.target in recipe_names():
        raise UserError(f"{own.target}: --follow: follows a run folder, this is a recipe; give runs/NAME")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol evaluate", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument("target", metavar="RUN|RECIPE", help=TARGET)
    parser.add_argument("--index", help="folder of the shards; default the recipe's data.index")
    parser.add_argument("--split", help="one or several, scored in turn; default test")
    parser.add_argument("--procs", type=int, default=1, help="processes on this machine; default 1")
    parser.add_argument(
        "--threshold",
        help="val, oracle, fixed (the recipe's) or a number in [0, 1); default: oracle for the held-out split, which "
        "chooses, and val for others",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder that gets eval/; default RUN, or runs/NAME for a recipe; needed for a model without a run",
    )
    add_weights_options(parser)
    parser.add_argument(
        "--save-maps", action="store_true", help="keep the score maps as well: 8-bit tars below RUN/eval"
    )
    parser.add_argument("--follow", action="store_true", help="score each checkpoint of RUN as it is written")
    parser.add_argument("--final-split", help="--follow: splits to score once when training is through")
    parser.add_argument(
        "--final", choices=("best", "last"), default="best", help="--follow: checkpoint for --final-split"
    )
    return parser
