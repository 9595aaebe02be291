"""Train a recipe: wsol train RECIPE [--out RUN] [overrides]; started again in the same folder it goes on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wsol_dist.launching.requeue import requeue
from wsol_dist.processes.environment import is_first_rank
from wsol_dist.processes.first_error import told_once
from wsol_dist.processes.stop import STOPPED, STOPPED_LINE, Stop
from wsol_dist.recipe import Config, RecipeOptions

if TYPE_CHECKING:
    from wsol_dist.data.shards.index import Index
    from wsol_dist.processes.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Options(RecipeOptions):
    """The flags of `wsol train`."""

    out: Path | None = None
    """Run folder; by default runs/NAME."""


def run(options: Options) -> int:
    """Train; under torchrun, submitit or srun each rank calls it."""
    config = options.config()
    return train(config, options.out or Path("runs") / config.name)


def train(config: Config, folder: Path) -> int:
    """Run or continue a training in its folder, on the ranks that the environment describes.

    Returns:
        0 when it is through; `processes.stop.STOPPED` when it was stopped before, and the same command continues it.
    """
    # It listens from here: importing torch takes seconds.
    with Stop(at_once=partial(_leave_at_once, config)) as stop, told_once(folder):
        return _train(config, folder, stop)


def _leave_at_once(config: Config, heard: str) -> None:
    """Have SLURM start the job again where no step comes soon: it ends all ranks, wherever they are."""
    if is_first_rank() and "SLURM_JOB_ID" in os.environ:
        then = requeue(limit=config.train.max_requeues)
        print(f"{STOPPED_LINE}{heard}, with nothing to save; {then}", flush=True)


def _train(config: Config, folder: Path, stop: Stop) -> int:
    from wsol_dist.processes import ranks
    from wsol_dist.processes.first_error import FirstError
    from wsol_dist.runs.checkpoint import sweep
    from wsol_dist.runs.lock import RunLock
    from wsol_dist.training.preflight import check, prepare_folder
    from wsol_dist.training.stages import stages

    lock = RunLock()
    own = ranks.from_environment()
    try:
        with FirstError(folder, own):
            runs = stages(config, folder)
            indices = [check(run, world=own.world, folder=place) for run, place in runs]
            own.main_first(lambda: prepare_folder(config, folder, lock=lock))
            if config.train.node_check:
                _check_nodes(own, folder)
            for (run, place), index in zip(runs, indices, strict=True):
                if place != folder:
                    own.main_first(partial(prepare_folder, run, place))
                if own.is_main:
                    sweep(place)
                if not _run(run, place, index, own, stop):
                    lock.release()
                    return _leave(config, own)
    finally:
        lock.release()
        ranks.stop_group()
    return 0


def _check_nodes(own: Ranks, folder: Path) -> None:
    from wsol_dist.processes.node_check import check_nodes

    verdict = check_nodes(own, folder)
    if own.is_main and own.world > 1:
        print(verdict, flush=True)


def _run(config: Config, folder: Path, index: Index, own: Ranks, stop: Stop) -> bool:
    """One training of the recipe's; False where it was stopped."""
    from wsol_dist.evaluator.during_training import Validation
    from wsol_dist.processes.watchdog import Watchdog
    from wsol_dist.training.memory import check_memory
    from wsol_dist.training.trainer import Trainer

    train = config.train
    again = partial(requeue, limit=train.max_requeues)
    validation = Validation(config, folder, own) if config.val.every_epochs else None
    with Watchdog(folder, own, timeout_s=train.hang_timeout_s, then=again) as watchdog:
        trainer = Trainer(config, folder, index, own, validation=validation, stop=stop, watchdog=watchdog)
        check_memory(config, image_px=trainer.method.image_px, world=own.world)
        return trainer.run()


def _leave(config: Config, own: Ranks) -> int:
    """Say how a stopped training goes on, and see to it; no rank ends before that is done."""
    if own.is_main:
        print(f"{STOPPED_LINE}{requeue(limit=config.train.max_requeues)}", flush=True)
    own.barrier()
    return STOPPED
