"""Train a recipe: wsol train RECIPE [--out RUN] [overrides]; started again in the same folder it goes on."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsol_dist.config import Config, parse_with_recipe
from wsol_dist.trainer.preflight import check, prepare_folder


def main(argv: list[str]) -> int:
    """Entry of `wsol train`; under torchrun, submitit or srun each rank calls it."""
    parser = argparse.ArgumentParser(
        prog="wsol train", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument("recipe", help="name of a recipe, or a path to a .yaml file")
    parser.add_argument("--out", type=Path, help="run folder; default runs/NAME")
    own, config = parse_with_recipe(parser, argv)
    train(config, own.out or Path("runs") / config.name)
    return 0


def train(config: Config, folder: Path) -> None:
    """Run or continue a training in its folder, on the ranks that the environment describes."""
    from wsol_dist import ranks

    own = ranks.from_environment()
    try:
        index = check(config, world=own.world)
        own.main_first(lambda: prepare_folder(config, folder))
        from wsol_dist.trainer.trainer import Trainer

        Trainer(config, folder, index, own).run()
    finally:
        ranks.stop_group()
