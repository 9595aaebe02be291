"""The one training engine: DeepSpeed ZeRO on GPUs and CPUs, one process or many. Only this file names deepspeed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from torch import Tensor

from wsol_dist.engine.config import TrainConfig
from wsol_dist.engine.schedule import build_schedule
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.methods.base import Method
from wsol_dist.ranks import Ranks

STATE_TAG = "zero"


class ZeroEngine:
    """A method, its optimizer and its schedule, sharded over the ranks."""

    def __init__(self, method: Method, config: TrainConfig, ranks: Ranks, *, steps_per_epoch: int) -> None:
        self.config, self.ranks = config, ranks
        optimizer = build_optimizer(method, config)
        self.schedule = build_schedule(config, optimizer, steps_per_epoch=steps_per_epoch)
        self.engine = _initialize(
            method.to(ranks.device), optimizer, deepspeed_config(config, world=ranks.world)
        )

    @property
    def method(self) -> Method:
        """The wrapped method."""
        return self.engine.module

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return max(group["lr"] for group in self.engine.optimizer.param_groups)

    def step(
        self, step: int, micro_batches: Iterable[tuple[Tensor, Tensor]], *, seed: int
    ) -> dict[str, Tensor]:
        """One optimizer step, number `step` from 0.

        Args:
            micro_batches: `accumulation` pairs of normalised images and labels.
            seed: of the run; dropout and drop-path of a step depend on (seed, step, rank) alone, so that a
                checkpoint needs no state of a random generator.

        Returns:
            This rank's losses by name, the mean over the micro-batches.
        """
        torch.manual_seed(hash((seed, step, self.ranks.rank)) & 0x7FFF_FFFF_FFFF_FFFF)
        self.schedule.step_update(step)
        self.engine.train()
        totals: dict[str, Tensor] = {}
        for image_BCHW, label_B in micro_batches:
            losses = self.engine(image_BCHW, label_B)
            self.engine.backward(losses["loss"])
            self.engine.step()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / self.config.accumulation
        return totals

    def num_optimizer_elements(self) -> int:
        """Elements of optimizer state that this rank holds."""
        states = self.engine.optimizer.optimizer.state if self.config.zero else self.engine.optimizer.state
        return sum(
            value.numel() for state in states.values() for value in state.values() if torch.is_tensor(value)
        )

    def save(self, folder: Path) -> None:
        """Write every rank's part of the training state; all ranks call it."""
        self.engine.save_checkpoint(str(folder), tag=STATE_TAG, save_latest=False)
        if self.ranks.is_main:
            for script in folder.glob(
                "*.py"
            ):  # DeepSpeed's own conversion scripts: a checkpoint holds data only
                script.unlink()

    def load(self, folder: Path) -> None:
        """Read what `save` wrote at the same world size; all ranks call it."""
        self.engine.load_checkpoint(str(folder), tag=STATE_TAG)


def deepspeed_config(config: TrainConfig, *, world: int) -> dict[str, Any]:
    """DeepSpeed's dictionary, derived from the recipe."""
    return {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": config.global_batch // (world * config.accumulation),
        "gradient_accumulation_steps": config.accumulation,
        "gradient_clipping": config.clip,
        "zero_optimization": {"stage": config.zero},
        # timm's optimizers beyond Adam are not on DeepSpeed's list of tested ones.
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def build_optimizer(method: Method, config: TrainConfig) -> torch.optim.Optimizer:
    """timm's optimizer of a name; biases, norms and what the method names are not decayed.

    Raises:
        UserError: timm has no such optimizer, or the method has nothing to train.
    """
    if not any(parameter.requires_grad for parameter in method.parameters()):
        raise UserError(
            "method: every parameter is frozen, there is nothing to train; see train_scales and freeze_*"
        )
    known = [str(name) for name in list_optimizers()]
    if config.optimizer.lower() not in known:
        raise UserError(
            f"train.optimizer: given {config.optimizer!r}; {did_you_mean(config.optimizer, known)}"
        )
    return create_optimizer_v2(
        method,
        opt=config.optimizer,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        filter_bias_and_bn=True,
    )


def _initialize(method: Method, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # Its shared-memory all-reduce is compiled with g++ at first use, for about 50 s; gloo serves without a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(model=method, optimizer=optimizer, config=config)
    return engine
