"""The held-out split scored inside training (`val.every_epochs`), behind a checkpoint: for small splits."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import torch

from wsol_dist.evaluator.follow import at_checkpoint, score_val
from wsol_dist.evaluator.identity import identify
from wsol_dist.evaluator.publish import point_at_best, scored_records
from wsol_dist.evaluator.work import Work
from wsol_dist.log.track import Track
from wsol_dist.methods.base import Method
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import Config
from wsol_dist.runs import checkpoint


class Validation:
    """Called by training after it wrote a checkpoint; leaves behind the record that a following evaluator would."""

    def __init__(self, config: Config, folder: Path, ranks: Ranks) -> None:
        self.ranks = ranks
        self.work = Work(
            config=config,
            identity=identify(config, config.data.index, weights=None, whole=True),
            index=config.data.index,
            splits=(config.val.split,),
            weights=None,
            whole=True,
            step=0,
            checkpoint="",
            threshold=None,
            folder=folder,
        )

    def scored(self, step: int) -> bool:
        """Whether a record of the checkpoint of this step is there; the same answer on every rank."""
        split, done = self.work.config.val.split, False
        if self.ranks.is_main:
            records = scored_records(self.work.folder, split, identity=self.work.identity)
            done = any(int(one["step"]) == step for one in records)
            if done:  # killed behind the record, training may have left the best unnamed
                point_at_best(self.work)
        return self.ranks.gather(done)[0]

    def __call__(self, evaluated: AbstractContextManager[Method], step: int, track: Track) -> None:
        """Score the method as it stands. Random numbers and the mode of training are as before afterwards.

        Args:
            evaluated: gives the method as the checkpoint of this step has it; all ranks enter it together.
        """
        path = checkpoint.step_folder(self.work.folder, step)
        work = self.ranks.gather(at_checkpoint(self.work, path) if self.ranks.is_main else None)[0]
        gpus = [self.ranks.device] if self.ranks.device.type == "cuda" else []
        # A loader draws its seed from torch's generator, also where it shuffles nothing.
        with torch.random.fork_rng(gpus), evaluated as method, method.evaluating():
            score_val(method, work, ranks=self.ranks, track=track)
