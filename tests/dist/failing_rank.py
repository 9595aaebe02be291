"""One rank that fails in a chosen way, as srun would start it: python -m tests.dist.failing_rank HOW FOLDER."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from wsol_dist import cli
from wsol_dist.config.track import TrackConfig
from wsol_dist.errors import UserError
from wsol_dist.log.track import Track
from wsol_dist.processes import ranks
from wsol_dist.processes.first_error import FirstError
from wsol_dist.processes.ranks import Ranks
from wsol_dist.processes.spawn import spawn


@dataclass
class Options:
    """What `cli.run` parses."""

    how: tyro.conf.Positional[str]
    """How it fails."""
    folder: tyro.conf.Positional[Path]
    """Of the run."""
    wandb: Literal["offline", "off"] = "off"
    """Whether W&B hears of it."""


def run(options: Options) -> int:
    """What `cli.run` calls."""
    how, folder = options.how, options.folder
    if how == "spawned":
        spawn(fail, 1, "exception", folder=folder)
    own = ranks.from_environment()
    with FirstError(folder, own):
        config = TrackConfig(wandb=options.wandb)
        with Track.open(folder, config, job="train", resolved={}, total_steps=5, enabled=own.is_main):
            fail(own, how)
    return 0


def fail(own: Ranks, how: str) -> None:
    """Rank 1 fails (rank 0 for `rank 0 ...`); the others wait for it, as in training."""
    if how == "mistake":
        raise UserError("the cup is empty; fill it")
    own.barrier()  # rank 0 has its log open
    failing = 0 if how.startswith("rank 0") else 1
    if own.rank == failing:
        time.sleep(0.2)
        if how.endswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("the cup is empty")
    own.barrier()


if __name__ == "__main__":
    sys.exit(cli.run("tests.dist.failing_rank", sys.argv[1:], prog="failing"))
