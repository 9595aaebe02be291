"""Score a run or a recipe's weights: wsol evaluate RUN|RECIPE --index SHARDS --split val,test [overrides].

RUN is a run folder, of which the newest checkpoint (or --step) is scored; RECIPE a recipe's name or .yaml
file, whose weights are what it names itself or --init. Results go into RUN/eval. The held-out split (val.split)
chooses the threshold that other splits then get. With --follow every checkpoint of RUN is scored on the held-out
split while training goes on, <RUN>/best.json names the best, and it ends when training does.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.launching.requeue import is_first_rank, requeue
from wsol_dist.options import check_least, names_of, split_arguments
from wsol_dist.processes.first_error import told_once
from wsol_dist.processes.stop import STOPPED, STOPPED_LINE, Stop
from wsol_dist.recipe import Config, from_dict, load, override, read_yaml, recipe_names

if TYPE_CHECKING:
    from wsol_dist.evaluator.work import Work

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
    work = plan(own, rest)
    from wsol_dist.evaluator.choose_threshold import check_thresholds
    from wsol_dist.evaluator.scoring import run
    from wsol_dist.processes.spawn import spawn

    check_thresholds(work)
    spawn(run, own.procs, work, folder=work.folder)
    return 0


def follow_run(own: argparse.Namespace, rest: list[str]) -> int:
    """`--follow`: check what can be checked before there is a checkpoint, then follow."""
    check_follow(own)
    folder = Path(own.target)
    until = time.monotonic() + WAIT_FOR_RUN_S
    while not (folder / "config.yaml").is_file() and time.monotonic() < until:
        time.sleep(2)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: --follow: no run folder, not even after {WAIT_FOR_RUN_S / 60:g} minutes")
    from wsol_dist.evaluator.choose_threshold import check_thresholds
    from wsol_dist.evaluator.follow import Following, follow
    from wsol_dist.evaluator.identity import identify
    from wsol_dist.evaluator.work import Work
    from wsol_dist.processes.spawn import spawn

    config = config_of(own.target, rest)
    index, val = own.index or config.data.index, config.val.split
    final = names_of(own.final_split)
    check(config, index, splits=(val, *final), weights=None)
    check_threshold(own.threshold)
    if val in final:
        raise UserError(f"--final-split: {val!r} is the held-out split, which is scored anyway; name another")
    work = Work(
        config=config,
        identity=identify(config, index, weights=None, whole=True),
        index=index,
        splits=(val, *final),
        weights=None,
        whole=True,
        step=0,
        checkpoint="",
        threshold=own.threshold,
        folder=folder,
    )
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
    parser.add_argument("target", metavar="RUN|RECIPE", help="run folder, name of a recipe, or .yaml file")
    parser.add_argument("--init", type=Path, help="weights to score: a file, or a run folder")
    parser.add_argument("--index", help="folder of the shards; default the recipe's data.index")
    parser.add_argument("--split", help="one or several, scored in turn; default test")
    parser.add_argument("--procs", type=int, default=1, help="processes on this machine; default 1")
    parser.add_argument(
        "--threshold",
        help="val, oracle, fixed (the recipe's) or a number in [0, 1); default: oracle for the held-out split, which "
        "chooses, and val for others",
    )
    parser.add_argument(
        "--out", type=Path, help="folder that gets eval/; default RUN, or runs/NAME for a recipe"
    )
    parser.add_argument(
        "--step", help="score this checkpoint of RUN, a number or best, instead of the newest"
    )
    parser.add_argument(
        "--save-maps", action="store_true", help="keep the score maps as well: 8-bit tars below RUN/eval"
    )
    parser.add_argument("--follow", action="store_true", help="score each checkpoint of RUN as it is written")
    parser.add_argument("--final-split", help="--follow: splits to score once when training is through")
    parser.add_argument(
        "--final", choices=("best", "last"), default="best", help="--follow: checkpoint for --final-split"
    )
    return parser


def load_work(
    target: str, *, index: str, splits: Sequence[str], init: Path | None = None, overrides: Sequence[str] = ()
) -> Work:
    """What `wsol evaluate TARGET` would score: for other commands that want a run's or recipe's maps.

    Raises:
        UserError: as `plan`.
    """
    words = [target, "--index", index, "--split", ",".join(splits), *overrides]
    return plan(*split_arguments(_parser(), [*words, *(("--init", str(init)) if init else ())]))


def held_out_split(target: str, overrides: list[str]) -> str:
    """`val.split` of a run folder or recipe."""
    return config_of(target, overrides).val.split


def plan(own: argparse.Namespace, rest: list[str]) -> Work:
    """Check what was given and find the weights.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    if own.final_split:
        raise UserError("--final-split: goes with --follow; without it --split names what is scored")
    target = Path(own.target)
    is_run = (target / "config.yaml").is_file()
    config = config_of(own.target, rest)
    # They import torch: after the flags are checked.
    from wsol_dist.evaluator.identity import identify
    from wsol_dist.evaluator.work import Work

    weights, step, checkpoint = find_weights(own, target if is_run else None)
    splits = names_of(own.split) or ("test",)
    index = own.index or config.data.index
    check(config, index, splits=splits, weights=weights)
    check_threshold(own.threshold)
    if own.save_maps and Index.load(index, check_files=False).multi_label:
        raise UserError(
            f"--save-maps: images in {index} have several classes, and the map of one would be kept; leave it out "
            "(wsol pseudo-label writes label maps)"
        )
    whole = is_run and own.init is None
    return Work(
        config=config,
        identity=identify(config, index, weights=weights, whole=whole),
        index=index,
        splits=splits,
        weights=weights,
        whole=whole,
        step=step,
        checkpoint=checkpoint,
        threshold=own.threshold,
        folder=own.out or (target if is_run else Path("runs") / config.name),
        save_maps=own.save_maps,
    )


def config_of(target: str, overrides: list[str]) -> Config:
    """The configuration of a run folder or recipe.

    Raises:
        UserError: it is neither.
    """
    folder = Path(target)
    if (folder / "config.yaml").is_file():
        raw = read_yaml(folder / "config.yaml")
        return override(from_dict(raw, origin=target), overrides, prog=f"wsol evaluate {target}")
    if folder.is_dir():
        raise UserError(
            f"{target}: no config.yaml in it: no run folder; recipes: {', '.join(recipe_names())}"
        )
    return load(target, overrides)


def find_weights(own: argparse.Namespace, run_folder: Path | None) -> tuple[Path | None, int, str]:
    """The weight file, the step it was written at (0 for other files), and its name for people."""
    from wsol_dist.runs import checkpoint
    from wsol_dist.runs.model import weights_file

    if own.step is not None and (run_folder is None or own.init is not None):
        raise UserError("--step: chooses a checkpoint of a RUN; it goes with neither a recipe nor --init")
    if own.init is not None:
        return weights_file(own.init), 0, own.init.name
    if run_folder is None:
        return None, 0, "the recipe's own weights"
    steps = {checkpoint.step_of(path): path for path in checkpoint.complete_checkpoints(run_folder)}
    if not steps:
        raise UserError(f"{run_folder}: no complete checkpoint yet; train it, or give weights with --init")
    step = max(steps) if own.step is None else wanted_step(own.step, run_folder)
    if step not in steps:
        raise UserError(f"--step: {run_folder} has no checkpoint {step}; it has {', '.join(map(str, steps))}")
    weights = checkpoint.evaluated_weights(steps[step])
    averaged = " (averaged weights, train.ema)" if weights.name == checkpoint.EMA_WEIGHTS else ""
    return weights, step, f"{steps[step].name}{averaged}"


def wanted_step(given: str, run_folder: Path) -> int:
    """The number behind `--step`.

    Raises:
        UserError: neither a number nor best; no best is known yet.
    """
    from wsol_dist.runs.run_state import BEST_FILE, read_best

    if given.isdigit():
        return int(given)
    if given != "best":
        raise UserError(f"--step: given {given!r}; allowed: the number of a step, or best")
    best = read_best(run_folder)
    if best is None:
        raise UserError(
            f"--step best: {run_folder} has no {BEST_FILE}; wsol evaluate {run_folder} --follow finds the best"
        )
    return int(best["step"])


def check(config: Config, index_dir: str, *, splits: tuple[str, ...], weights: Path | None) -> None:
    """Every contradiction between recipe, weights and shards that can be seen beforehand.

    Raises:
        UserError: the first of them.
    """
    from wsol_dist.runs.model import check_belongs, check_classes

    if not index_dir:
        raise UserError("--index: no shards given and none in the recipe; add --index FOLDER")
    index = Index.load(index_dir)
    index.check_splits(splits or ("",))
    from wsol_dist.evaluator.refined import check_refine

    check_refine(config.refine, index, splits)
    cure = "give the shards that belong to it with --index"
    if config.data.num_classes not in (None, len(index.classes)):
        raise UserError(
            f"the recipe (data.num_classes) is for {config.data.num_classes} classes, the shards in {index_dir} "
            f"have {len(index.classes)}; {cure}"
        )
    if weights is not None:
        check_belongs(weights, config.method_name)
        check_classes(weights, index, cure=cure)


def check_threshold(given: str | None) -> None:
    """Refuse anything but the words and numbers in [0, 1)."""
    if given in (None, "val", "oracle", "fixed"):
        return
    try:
        value = float(given or "")
    except ValueError:
        raise UserError(
            f"--threshold: given {given!r}; allowed: val, oracle, fixed or a number in [0, 1)"
        ) from None
    if not 0 <= value < 1:
        raise UserError(f"--threshold: given {given}, a number must be in [0, 1)")
