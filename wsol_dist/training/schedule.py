"""Learning rate over time: timm's schedulers, counted in optimizer steps, so that a step alone gives the lr."""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from wsol_dist.config.train import TrainConfig


def build_schedule(config: TrainConfig, optimizer: Optimizer, *, steps_per_epoch: int) -> Scheduler:
    """A scheduler whose `step_update(step)` sets the lr of the optimizer step number `step`, from 0."""
    num_steps = max(2, round(config.epochs * steps_per_epoch))
    if config.schedule == "cosine":
        kind: Any = partial(CosineLRScheduler, t_initial=num_steps)
    elif config.schedule == "poly":
        kind = partial(PolyLRScheduler, t_initial=num_steps, power=config.power)
    else:
        milestones = config.milestones if config.schedule == "multistep" else ()
        # timm compares with t + 1; ours are epochs counted from 1, whose first step is (m - 1) * steps_per_epoch.
        starts = [round((milestone - 1) * steps_per_epoch) + 1 for milestone in sorted(milestones)]
        kind = partial(MultiStepLRScheduler, decay_t=starts, decay_rate=config.gamma)
    warmup_t = round(config.warmup_epochs * steps_per_epoch)
    return kind(optimizer, warmup_t=warmup_t, warmup_prefix=False, t_in_epochs=False)
