"""What the ranks of an evaluator are to do, and what is checked before they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.evaluator.identity import Identity, identify
from wsol_dist.evaluator.refined import check_refine
from wsol_dist.recipe import Config
from wsol_dist.runs.model import check_belongs, check_classes
from wsol_dist.runs.opening import OpenedRun


@dataclass(frozen=True, kw_only=True)
class Work:
    """Some splits with one set of weights; picklable."""

    config: Config
    identity: Identity
    """Of weights, shards and knobs together."""
    index: str
    splits: tuple[str, ...]
    weights: Path | None
    """None: what the recipe itself names."""
    whole: bool
    """The weights are a checkpoint of ours: every tensor must be there."""
    step: int
    checkpoint: str
    threshold: str | None
    """val, oracle, fixed, a number, or None for the default."""
    folder: Path
    cure: str = "give --split {splits} without --threshold"
    """How to get a threshold from the held-out split, said where there is none."""
    save_maps: bool = False
    """Keep the score maps too, as a derived column below `eval`."""


def plan_work(
    opened: OpenedRun,
    *,
    splits: Sequence[str],
    index: str | None = None,
    threshold: str | None = None,
    out: Path | None = None,
    save_maps: bool = False,
) -> Work:
    """Scoring a run or a recipe's weights, checked.

    Args:
        index: folder of the shards; None for the configuration's own.
        threshold: as of `Work`.
        out: folder that gets `eval`; None for the run folder, or runs/NAME where there is none.

    Raises:
        UserError: what does not exist or does not fit, and how to fix it.
    """
    config, shards = opened.config, index or opened.config.data.index
    check_work(config, shards, splits=tuple(splits), weights=opened.weights)
    check_threshold(threshold)
    if save_maps and Index.load(shards, check_files=False).multi_label:
        raise UserError(
            f"--save-maps: images in {shards} have several classes, and the map of one would be kept; leave it out "
            "(wsol pseudo-label writes label maps)"
        )
    return Work(
        config=config,
        identity=identify(config, shards, weights=opened.weights, whole=opened.whole),
        index=shards,
        splits=tuple(splits),
        weights=opened.weights,
        whole=opened.whole,
        step=opened.step,
        checkpoint=opened.name,
        threshold=threshold,
        folder=out or opened.folder or Path("runs") / config.name,
        save_maps=save_maps,
    )


def plan_follow(
    run: Path, config: Config, *, index: str | None, final_splits: Sequence[str], threshold: str | None
) -> Work:
    """Scoring each checkpoint of a run on its held-out split, and some splits at the end; checked.

    Raises:
        UserError: what does not exist or does not fit, and how to fix it.
    """
    # The weights are those of checkpoints yet to come.
    opened = OpenedRun(config=config, folder=run, whole=True, name="")
    splits = (config.val.split, *final_splits)
    work = plan_work(opened, splits=splits, index=index, threshold=threshold)
    if config.val.split in final_splits:
        raise UserError(
            f"--final-split: {config.val.split!r} is the held-out split, which is scored anyway; name another"
        )
    return work


def check_work(config: Config, index_dir: str, *, splits: tuple[str, ...], weights: Path | None) -> None:
    """Refuse every contradiction between recipe, weights and shards that can be seen beforehand.

    Raises:
        UserError: the first of them.
    """
    if not index_dir:
        raise UserError("--index: no shards given and none in the recipe; add --index FOLDER")
    index = Index.load(index_dir)
    index.check_splits(splits or ("",))
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
    """Refuse anything but the words and numbers in [0, 1).

    Raises:
        UserError: anything else.
    """
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
