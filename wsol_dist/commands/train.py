"""Train a recipe: wsol train RECIPE [--out RUN] [overrides]; started again in the same folder it goes on."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from wsol_dist.config import Config, parse_with_recipe
from wsol_dist.trainer.preflight import check, prepare_folder
from wsol_dist.trainer.stages import stages


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
    from wsol_dist.engine.checkpoint import sweep
    from wsol_dist.engine.lock import RunLock

    lock = RunLock()
    own = ranks.from_environment()
    try:
        runs = stages(config, folder)
        indices = [check(run, world=own.world, folder=place) for run, place in runs]
        own.main_first(lambda: prepare_folder(config, folder, lock=lock))
        from wsol_dist.evaluator.during_training import Validation
        from wsol_dist.trainer.memory import check_memory
        from wsol_dist.trainer.trainer import Trainer

        for (run, place), index in zip(runs, indices, strict=True):
            if place != folder:
                own.main_first(partial(prepare_folder, run, place))
            if own.is_main:
                sweep(place)
            validation = Validation(run, place, own) if run.val.every_epochs else None
            trainer = Trainer(run, place, index, own, validation=validation)
            check_memory(run, image_px=trainer.method.image_px, world=own.world)
            trainer.run()
    finally:
        lock.release()
        ranks.stop_group()
