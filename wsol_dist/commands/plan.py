"""What a recipe costs at scale, before it is submitted: wsol plan RECIPE --nodes 8 [--gpus-per-node 8] [overrides].

Memory of a GPU at ZeRO 0 to 3, bytes sent in a step, step time and efficiency, images a second to decode, hours.
Each figure says where it comes from: given, measured, counted (from the network), estimated or assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from wsol_dist.options import FLAT
from wsol_dist.planning.plan import Given, plan_lines
from wsol_dist.recipe import RecipeOptions
from wsol_dist.training.stages import stages


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """The flags of `wsol plan`."""

    given: Annotated[Given, FLAT] = field(default_factory=Given)


def run(options: Options) -> int:
    """Print the plan of each run of the recipe."""
    config = options.config()
    for run, _ in stages(config, Path("runs") / config.name):
        print("\n".join(plan_lines(options.given, run)))
    return 0
