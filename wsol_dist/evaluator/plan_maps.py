"""What `wsol score` is to do: score maps that other code wrote, with the rules for thresholds of our own methods."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.config.evaluate import EvaluateConfig, RefineConfig, ValConfig
from wsol_dist.config.track import TrackConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.recipe import Config

if TYPE_CHECKING:
    from wsol_dist.evaluator.given_maps import Given, GivenWork


@dataclass(frozen=True, kw_only=True)
class MapsToScore:
    """Which maps, and how they are scored; sections are what of a recipe means something without a method."""

    maps: Path
    """Folder or tar of ID.npy, or a folder of --save-maps."""
    index: str
    """Folder of the shards that the images are in."""
    split: str = "test"
    """The split that the maps belong to."""
    predictions: Path | None = None
    """Predicted classes, .csv of ID,CLASS or .npz; else no class is judged."""
    val_maps: Path | None = None
    """Maps of the held-out split (val.split), which choose the threshold."""
    val_predictions: Path | None = None
    """Predicted classes of the held-out split."""
    threshold: str | None = None
    """val, oracle, fixed (--evaluate.threshold) or a number in [0, 1); by default val."""
    name: str | None = None
    """What to call the model; by default the name of --maps."""
    out: Path | None = None
    """Folder that gets eval/; by default runs/NAME."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Scoring."""
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Refining the score maps by pixel clusters before they are scored."""
    val: ValConfig = field(default_factory=ValConfig)
    """The held-out split."""


def plan_maps(given: MapsToScore) -> GivenWork:
    """Check what was given.

    Raises:
        UserError: what does not exist or does not fit, and how to mend it.
    """
    from wsol_dist.evaluator.given_maps import GivenWork
    from wsol_dist.evaluator.identity import Identity, curve_knobs
    from wsol_dist.evaluator.refined import check_refine, refine_settings
    from wsol_dist.evaluator.work import Work, check_threshold
    from wsol_dist.methods.config import MethodConfig

    check_threshold(given.threshold)
    index = Index.load(given.index)
    maps = _maps_by_split(given)
    index.check_splits(maps)
    threshold = _threshold(given, given.val.split)
    if index.multi_label:
        raise UserError(
            f"--index {given.index}: its images have several classes, and a file holds the map of one; such sets are "
            "scored from a run or exported weights (wsol evaluate)"
        )
    if given.evaluate.select == "top1_loc" and not all(one.predictions for one in maps.values()):
        raise UserError(
            "evaluate.select: top1_loc needs predicted classes; give --predictions and --val-predictions"
        )
    check_refine(given.refine, index, tuple(maps))
    places = {split: str(one.maps.resolve()) for split, one in maps.items()}
    name = given.name or given.maps.resolve().name.removesuffix(".tar")
    config = Config(
        name=name,
        method_name="maps",
        method=MethodConfig(),
        evaluate=given.evaluate,
        refine=given.refine,
        val=given.val,
        track=TrackConfig(wandb="off"),
    )
    work = Work(
        config=config,
        identity=Identity(
            weights=None,
            index_name=Path(given.index).absolute().name,
            index_sha256=index.sha256,
            settings={"maps": places, "evaluate": curve_knobs(given.evaluate)}
            | refine_settings(given.refine, given.index),
        ),
        index=given.index,
        splits=tuple(maps),
        weights=None,
        whole=False,
        step=0,
        checkpoint=str(given.maps),
        threshold=threshold,
        folder=given.out or Path("runs") / name,
        cure="give --val-maps",
    )
    _check_folder(work.folder, places)
    return GivenWork(work=work, given=maps)


def _maps_by_split(given: MapsToScore) -> dict[str, Given]:
    """The held-out split comes first: it chooses the threshold.

    Raises:
        UserError: the maps of one split are given twice.
    """
    from wsol_dist.evaluator.given_maps import Given

    val = given.val.split
    maps = {val: Given(maps=given.val_maps, predictions=given.val_predictions)} if given.val_maps else {}
    if given.split in maps:
        raise UserError(f"--val-maps: {val!r} is what --maps are of; give --maps alone")
    return maps | {given.split: Given(maps=given.maps, predictions=given.predictions)}


def _threshold(given: MapsToScore, val: str) -> str | None:
    """What is asked for. A held-out split chooses for the maps of its own call: no other are known to be the same's.

    Raises:
        UserError: the held-out split is to choose, and its maps are not given.
    """
    if given.threshold not in (None, "val") or given.split == val:
        return given.threshold
    if given.val_maps is None:
        raise UserError(
            f"the threshold of {given.split!r} is the one that {val!r} chooses; give the maps of {val!r} with "
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
