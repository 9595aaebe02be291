"""Score a run or a recipe's weights: wsol evaluate RUN|RECIPE --index SHARDS --split val,test [overrides].

RUN is a run folder, of which the newest checkpoint (or --step) is scored; RECIPE a recipe's name or .yaml
file, whose weights are what it names itself or --init. Results go into RUN/eval. The split `val` chooses the
threshold that other splits then get.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.config import Config, from_dict, load, override, read_yaml, recipe_names, split_arguments
from wsol_dist.data.index import Index
from wsol_dist.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from wsol_dist.evaluator.scoring import Work


def main(argv: list[str]) -> int:
    """Entry of `wsol evaluate`."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        print("\nBehind RUN or RECIPE, --help lists its knobs; recipes: " + ", ".join(recipe_names()))
        return 0 if argv else 2
    own, rest = split_arguments(parser, argv)
    if own.procs < 1:
        raise UserError(f"--procs: given {own.procs}, at least 1 is needed")
    work = plan(own, rest)
    from wsol_dist.evaluator.scoring import check_thresholds, run
    from wsol_dist.launching.processes import spawn

    check_thresholds(work)
    spawn(run, own.procs, work)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol evaluate", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument("target", metavar="RUN|RECIPE", help="run folder, name of a recipe, or .yaml file")
    parser.add_argument("--init", type=Path, help="weights to score: a file, or a run folder")
    parser.add_argument("--index", help="folder of the shards; default the recipe's data.index")
    parser.add_argument("--split", default="test", help="one or several, scored in turn; default test")
    parser.add_argument("--procs", type=int, default=1, help="processes on this machine; default 1")
    parser.add_argument(
        "--threshold",
        help="val, oracle, fixed or a number in [0, 1); default: oracle for the split val, which chooses; "
        "for others val where the same was scored at this step, else fixed",
    )
    parser.add_argument(
        "--out", type=Path, help="folder that gets eval/; default RUN, or runs/NAME for a recipe"
    )
    parser.add_argument("--step", type=int, help="score this checkpoint of RUN instead of the newest")
    return parser


def plan(own: argparse.Namespace, rest: list[str]) -> Work:
    """Check what was given and find the weights.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    from wsol_dist.evaluator.identity import identify
    from wsol_dist.evaluator.scoring import Work

    target = Path(own.target)
    is_run = (target / "config.yaml").is_file()
    if target.is_dir() and not is_run:
        raise UserError(
            f"{target}: no config.yaml in it: no run folder; recipes: {', '.join(recipe_names())}"
        )
    if is_run:
        raw = read_yaml(target / "config.yaml")
        config = override(from_dict(raw, origin=str(target)), rest, prog=f"wsol evaluate {target}")
    else:
        config = load(own.target, rest)
    weights, step, checkpoint = find_weights(own, target if is_run else None)
    splits = tuple(name for name in own.split.split(",") if name)
    index = own.index or config.data.index
    check(config, index, splits=splits, weights=weights)
    check_threshold(own.threshold)
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
    )


def find_weights(own: argparse.Namespace, run_folder: Path | None) -> tuple[Path | None, int, str]:
    """The weight file, the step it was written at (0 for other files), and its name for people."""
    from wsol_dist.engine import checkpoint
    from wsol_dist.model import weights_file

    if own.step is not None and (run_folder is None or own.init is not None):
        raise UserError("--step: chooses a checkpoint of a RUN; it goes with neither a recipe nor --init")
    if own.init is not None:
        return weights_file(own.init), 0, own.init.name
    if run_folder is None:
        return None, 0, "the recipe's own weights"
    steps = {checkpoint.step_of(path): path for path in checkpoint.complete_checkpoints(run_folder)}
    if not steps:
        raise UserError(f"{run_folder}: no complete checkpoint yet; train it, or give weights with --init")
    step = max(steps) if own.step is None else own.step
    if step not in steps:
        raise UserError(f"--step: {run_folder} has no checkpoint {step}; it has {', '.join(map(str, steps))}")
    return steps[step] / checkpoint.WEIGHTS, step, steps[step].name


def check(config: Config, index_dir: str, *, splits: tuple[str, ...], weights: Path | None) -> None:
    """Every contradiction between recipe, weights and shards that can be seen beforehand.

    Raises:
        UserError: the first of them.
    """
    from wsol_dist.model import check_belongs

    if not index_dir:
        raise UserError("--index: no shards given and none in the recipe; add --index FOLDER")
    index = Index.load(index_dir)
    for split in splits or ("",):
        if split not in index.splits:
            raise UserError(
                f"--split: no split {split!r} in {index_dir}; {did_you_mean(split, list(index.splits))}"
            )
    counts = {"the recipe (data.num_classes)": config.data.num_classes}
    names = None
    if weights is not None:
        check_belongs(weights, config.method_name)
        names = trained_classes(weights)
        counts[str(weights)] = None if names is None else len(names)
    for what, count in counts.items():
        if count not in (None, len(index.classes)):
            raise UserError(
                f"{what} is for {count} classes, the shards in {index_dir} have {len(index.classes)}; "
                "give the shards that belong to it with --index"
            )
    for label, (there, here) in enumerate(zip(names or (), index.classes, strict=False)):
        # A class that is only called by its number has no name to compare.
        if there != here and str(label) not in (there, here):
            raise UserError(
                f"{weights}: class {label} is {there!r} there and {here!r} in the shards in {index_dir}; "
                "give shards with the same classes in the same order with --index"
            )


def trained_classes(weights: Path) -> list[str] | None:
    """The names of the classes that a checkpoint of ours was trained on; None for a foreign file.

    Raises:
        UserError: it says so in a way that this version does not read.
    """
    from wsol_dist.engine.checkpoint import weights_metadata

    metadata = weights_metadata(weights)
    if "method" not in metadata:  # in a foreign file the other keys mean something else
        return None
    try:
        names = json.loads(metadata["classes"])
    except (KeyError, ValueError):
        names = None
    if not isinstance(names, list):
        raise UserError(f"{weights}: damaged: its metadata has no list of classes; give another checkpoint")
    return [str(name) for name in names]


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
