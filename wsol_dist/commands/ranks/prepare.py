"""Check recipe, shards and batch, and write the run folder: wsol ranks prepare RECIPE --out RUN [--world N ...]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from wsol_dist.recipe import RecipeOptions


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """The flags of `wsol ranks prepare`."""

    out: Path | None = None
    """Run folder; by default runs/NAME."""
    world: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)
    """Numbers of ranks."""


def run(options: Options) -> int:
    """Check everything for each number of ranks."""
    config = options.config()
    from wsol_dist.training.preflight import check, prepare_folder
    from wsol_dist.training.stages import stages

    folder = options.out or Path("runs") / config.name
    for run, place in stages(config, folder):
        for world in options.world:
            check(run, world=world, folder=place)
    prepare_folder(config, folder)
    return 0
