"""Score maps that other code wrote: wsol score --maps DIR|TAR --index SHARDS --split test [--val-maps DIR|TAR].

A map is ID.npy (float or uint8, two-dimensional, any size), one for each image of the split, in a folder, in a tar,
or as --save-maps of wsol evaluate wrote them. The same protocols, record, rows and rules for thresholds as for our
own methods: --val-maps are the maps of the held-out split, which choose the threshold.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.config.evaluate import EvaluateConfig, RefineConfig, ValConfig
from wsol_dist.config.track import TrackConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.options import check_least, parse_knobs, split_arguments
from wsol_dist.recipe import Config

if TYPE_CHECKING:
    from wsol_dist.evaluator.given_maps import GivenWork


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What of a recipe means something without a method."""

    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Scoring."""
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Refining the score maps by pixel clusters before they are scored."""
    val: ValConfig = field(default_factory=ValConfig)
    """The held-out split."""


def main(argv: list[str]) -> int:
    """Entry of `wsol score`."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        print("\nThe knobs of a recipe's sections evaluate and val are flags too: --evaluate.size-px 64")
        return 0 if argv else 2
    own, rest = split_arguments(parser, argv)
    check_least(own, {"procs": 1})
    task = plan(own, rest)
    from wsol_dist.evaluator.choose_threshold import check_thresholds
    from wsol_dist.evaluator.given_maps import check_given, run_given
    from wsol_dist.processes.spawn import spawn

    check_thresholds(task.work)
    check_given(task)
    spawn(run_given, own.procs, task)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsol score", description=__doc__, allow_abbrev=False, add_help=False
    )
    add = parser.add_argument
    add("--maps", type=Path, required=True, help="folder or tar of ID.npy, or a folder of --save-maps")
    add("--index", required=True, help="folder of the shards that the images are in")
    add("--split", default="test", help="the split that the maps belong to; default test")
    add(
        "--predictions",
        type=Path,
        help="predicted classes, .csv of ID,CLASS or .npz; else no class is judged",
    )
    add("--val-maps", type=Path, help="maps of the held-out split (val.split), which choose the threshold")
    add("--val-predictions", type=Path, help="predicted classes of the held-out split")
    add("--threshold", help="val, oracle, fixed (--evaluate.threshold) or a number in [0, 1); default val")
    add("--name", help="what to call the model; default the name of --maps")
    add("--out", type=Path, help="folder that gets eval/; default runs/NAME")
    add("--procs", type=int, default=1, help="processes on this machine; default 1")
    return parser


def plan(own: argparse.Namespace, rest: list[str]) -> GivenWork:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    from wsol_dist.evaluator.given_maps import Given, GivenWork
    from wsol_dist.evaluator.identity import Identity, curve_knobs
    from wsol_dist.evaluator.refined import check_refine, refine_settings
    from wsol_dist.evaluator.work import Work, check_threshold
    from wsol_dist.methods.config import MethodConfig

    knobs = parse_knobs(Knobs, rest, prog="wsol score")
    check_threshold(own.threshold)
    index, val = Index.load(own.index), knobs.val.split
    given = {val: Given(maps=own.val_maps, predictions=own.val_predictions)} if own.val_maps else {}
    if own.split in given:
        raise UserError(f"--val-maps: {val!r} is what --maps are of; give --maps alone")
    given[own.split] = Given(maps=own.maps, predictions=own.predictions)
    index.check_splits(given)
    threshold = _threshold(own, val)
    if index.multi_label:
        raise UserError(
            f"--index {own.index}: its images have several classes, and a file holds the map of one; such sets are "
            "scored from a run or exported weights (wsol evaluate)"
        )
    if knobs.evaluate.select == "top1_loc" and not all(one.predictions for one in given.values()):
        raise UserError(
            "evaluate.select: top1_loc needs predicted classes; give --predictions and --val-predictions"
        )
    check_refine(knobs.refine, index, tuple(given))
    places = {split: str(one.maps.resolve()) for split, one in given.items()}
    name = own.name or own.maps.resolve().name.removesuffix(".tar")
    track = TrackConfig(wandb="off")
    config = Config(
        name=name,
        method_name="maps",
        method=MethodConfig(),
        evaluate=knobs.evaluate,
        refine=knobs.refine,
        val=knobs.val,
        track=track,
    )
    work = Work(
        config=config,
        identity=Identity(
            weights=None,
            index_name=Path(own.index).absolute().name,
            index_sha256=index.sha256,
            settings={"maps": places, "evaluate": curve_knobs(knobs.evaluate)}
            | refine_settings(knobs.refine, own.index),
        ),
        index=own.index,
        splits=tuple(given),
        weights=None,
        whole=False,
        step=0,
        checkpoint=str(own.maps),
        threshold=threshold,
        folder=own.out or Path("runs") / name,
        cure="give --val-maps",
    )
    _check_folder(work.folder, places)
    return GivenWork(work=work, given=given)


def _threshold(own: argparse.Namespace, val: str) -> str | None:
    """What is asked for. A held-out split chooses for the maps of its own call: no other are known to be the same's.

    Raises:
        UserError: the held-out split is to choose, and its maps are not given.
    """
    given: str | None = own.threshold
    if given not in (None, "val") or own.split == val:
        return given
    if own.val_maps is None:
        raise UserError(
            f"the threshold of {own.split!r} is the one that {val!r} chooses; give the maps of {val!r} with "
            "--val-maps, or say --threshold oracle, fixed or a number"
        )
    return None


def _check_folder(folder: Path, places: dict[str, str]) -> None:
    """Refuse to write over the scores of anything else: folders of maps are often called alike.

    Raises:
        UserError: the folder holds a record of such a split that is of other maps.
    """
    from wsol_dist.evaluator import record

    for split, place in places.items():
        path = folder / record.FOLDER / f"{record.stem(split, 0)}.json"
        try:
            scored = json.loads(path.read_bytes())["scored_as"].get("maps")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not there, or damaged
        there = scored.get(split) if isinstance(scored, dict) else scored
        if there != place:
            raise UserError(
                f"{path}: holds the scores of {there or 'something else'}, not of {place}; give another --out or --name"
            )
