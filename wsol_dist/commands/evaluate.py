"""Score a run or a recipe's weights: wsol evaluate RUN|RECIPE --index SHARDS --split val,test [overrides].

RUN is a run folder, of which the best checkpoint known is scored, else the newest (--step for another), or a folder of
wsol export; RECIPE a recipe's name or .yaml file, whose weights are what it names itself or --init. Results go into
RUN/eval. The held-out split (val.split) chooses the threshold that other splits then get. With --follow every
checkpoint of RUN is scored on the held-out split while training goes on, <RUN>/best.json names the best, and it ends
when training does.
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from wsol_dist.errors import UserError
from wsol_dist.launching.requeue import requeue
from wsol_dist.options import Switch, names_of
from wsol_dist.processes.environment import is_first_rank
from wsol_dist.processes.first_error import told_once
from wsol_dist.processes.stop import STOPPED, STOPPED_LINE, Stop
from wsol_dist.recipe import Config, recipe_names
from wsol_dist.runs.opening import TargetOptions, print_chosen, read_target
from wsol_dist.runs.run_state import CONFIG_FILE

WAIT_FOR_RUN_S = 1800.0
"""How long --follow waits for a run folder: its job may start before that of the training made one."""


@dataclass(frozen=True, kw_only=True)
class Options(TargetOptions):
    """The flags of `wsol evaluate`."""

    index: str | None = None
    """Folder of the shards; by default the recipe's data.index."""
    split: str | None = None
    """One or several, scored in turn; by default test."""
    procs: PositiveInt = 1
    """Processes on this machine."""
    threshold: str | None = None
    """val, oracle, fixed (the recipe's) or a number in [0, 1); by default oracle for the held-out split, which chooses,
    and val for others."""
    out: Path | None = None
    """Folder that gets eval/; by default RUN, or runs/NAME for a recipe; needed for a model without a run."""
    save_maps: Switch = False
    """Keep the score maps as well: 8-bit tars below RUN/eval."""
    follow: Switch = False
    """Score each checkpoint of RUN as it is written."""
    final_split: str | None = None
    """--follow: splits to score once when training is through."""
    final: Literal["best", "last"] = "best"
    """--follow: checkpoint for --final-split."""


def run(options: Options) -> int:
    """Score once, or follow."""
    with told_once(Path(options.target)):
        if "--help" in options.overrides:
            read_target(options.target, options.overrides)  # prints it and ends
        return follow_run(options) if options.follow else score_run(options)


def score_run(options: Options) -> int:
    """Check what was given, then score."""
    if options.final_split:
        raise UserError("--final-split: goes with --follow; without it --split names what is scored")
    opened = options.open()
    if opened.whole and opened.folder is None and options.out is None:
        raise UserError(
            f"--out: needed, as {options.target} is no run folder that could hold the results; give a folder"
        )
    # They import torch: after the flags are checked.
    from wsol_dist.evaluator.scoring import score_work
    from wsol_dist.evaluator.work import plan_work

    work = plan_work(
        opened,
        splits=names_of(options.split) or ("test",),
        index=options.index,
        threshold=options.threshold,
        out=options.out,
        save_maps=options.save_maps,
    )
    print_chosen(opened)
    score_work(work, procs=options.procs)
    return 0


def follow_run(options: Options) -> int:
    """`--follow`: check what can be checked before there is a checkpoint, then follow."""
    check_follow(options)
    folder = Path(options.target)
    until = time.monotonic() + WAIT_FOR_RUN_S
    while not (folder / CONFIG_FILE).is_file() and time.monotonic() < until:
        time.sleep(2)
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{folder}: --follow: no run folder, not even after {WAIT_FOR_RUN_S / 60:g} minutes")
    from wsol_dist.evaluator.choose_threshold import check_thresholds
    from wsol_dist.evaluator.follow import Following, follow
    from wsol_dist.evaluator.work import plan_follow
    from wsol_dist.processes.spawn import spawn

    config, final = read_target(options.target, options.overrides), names_of(options.final_split)
    work = plan_follow(folder, config, index=options.index, final_splits=final, threshold=options.threshold)
    check_thresholds(work)
    task = Following(work=work, final_splits=final, final=options.final)
    # Nothing is lost by an end in the middle of a checkpoint: the job that goes on scores it from its start.
    with Stop(at_once=partial(_requeue, config)) if "SLURM_JOB_ID" in os.environ else nullcontext():
        spawn(follow, options.procs, task, folder=folder)
    return 0


def _requeue(config: Config, heard: str) -> None:
    """Have SLURM start this job again, unless a person ended it; it ends all ranks with the first one."""
    if is_first_rank():
        print(f"{STOPPED_LINE}{heard}; {requeue(limit=config.train.max_requeues)}", flush=True)
        os._exit(STOPPED)


def check_follow(options: Options) -> None:
    """Refuse what goes with one scoring only.

    Raises:
        UserError: the first of it.
    """
    for name in ("init", "step", "out", "split", "save_maps"):
        if getattr(options, name):
            raise UserError(
                f"--{name.replace('_', '-')}: does not go with --follow, which scores every checkpoint of RUN on the "
                "held-out split (val.split) and at the end the splits of --final-split"
            )
    if Path(options.target).suffix in (".yaml", ".yml") or options.target in recipe_names():
        raise UserError(f"{options.target}: --follow: follows a run folder, this is a recipe; give runs/NAME")
