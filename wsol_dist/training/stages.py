"""Recipes of several runs: those of `before` are trained first, each in a folder of its own below the run's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.errors import UserError
from wsol_dist.recipe import Config
from wsol_dist.runs import checkpoint
from wsol_dist.runs.run_state import BEFORE_FOLDER

if TYPE_CHECKING:
    from wsol_dist.methods.base import Method


def stages(config: Config, folder: Path) -> list[tuple[Config, Path]]:
    """Every run of a recipe with its folder, in the order of training; the recipe's own is the last.

    Seed, shards, tracking and loader processes are the recipe's for all of them.
    """
    before = []
    for run in config.before:
        data = replace(
            run.data,
            index=config.data.index,
            num_classes=config.data.num_classes,
            train_split=config.data.train_split,
            workers=config.data.workers,
        )
        whole = replace(
            run, name=f"{config.name}-{run.name}", seed=config.seed, data=data, track=config.track
        )
        before.append((whole, folder / BEFORE_FOLDER / run.name))
    return [*before, (config, folder)]


def take_before(method: Method, config: Config, folder: Path) -> list[str]:
    """Hand the newest weights of the runs that came first to the method.

    Returns:
        A line each on what was taken.

    Raises:
        UserError: one of them has no checkpoint, or does not fit.
    """
    from wsol_dist.models.weights import read_state

    notes = []
    for run, place in stages(config, folder)[:-1]:
        found = checkpoint.complete_checkpoints(place)
        if not found:
            raise UserError(f"before: {place} has no checkpoint: `wsol train` of this recipe trains it first")
        weights = checkpoint.evaluated_weights(found[-1])
        method.load_before(read_state(weights), source=str(weights))
        notes.append(f"takes what {run.name} trained: {weights}")
    return notes
