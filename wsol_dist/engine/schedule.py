"""Learning rate over time: timm's schedulers, counted in optimizer steps, so that a step alone gives the lr."""

from __future__ import annotations

from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from wsol_dist.engine.config import TrainConfig


def build_schedule(config: TrainConfig, optimizer: Optimizer, *, steps_per_epoch: int) -> Scheduler:
    """A scheduler whose `step_update(step)` sets the lr of the optimizer step number `step`, from 0."""
    warmup_t = round(config.warmup_epochs * steps_per_epoch)
    warmup = {"warmup_t": warmup_t, "warmup_lr_init": 0.0, "warmup_prefix": False, "t_in_epochs": False}
    if config.schedule == "cosine":
        return CosineLRScheduler(
            optimizer, t_initial=max(2, round(config.epochs * steps_per_epoch)), **warmup
        )
    milestones = config.milestones if config.schedule == "multistep" else ()
    # timm compares milestones with t + 1; ours are epochs counted from 1, whose first step is (m - 1) * steps.
    starts = [round((milestone - 1) * steps_per_epoch) + 1 for milestone in sorted(milestones)]
    return MultiStepLRScheduler(optimizer, decay_t=starts, decay_rate=config.gamma, **warmup)
