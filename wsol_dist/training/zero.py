"""The one training engine: DeepSpeed ZeRO on GPUs and CPUs, one process or many. Only this file names deepspeed."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from wsol_dist.config.train import TrainConfig
from wsol_dist.data.stream.order import micro_batch
from wsol_dist.errors import UserError
from wsol_dist.methods.base import Method
from wsol_dist.models.weights import load_checked, read_state
from wsol_dist.processes.ranks import Ranks
from wsol_dist.runs.checkpoint import EMA_WEIGHTS, OPTIMIZER
from wsol_dist.training import optimizer_state
from wsol_dist.training.optimizer import build_optimizer, counters
from wsol_dist.training.optimizer_state import Part, Piece
from wsol_dist.training.schedule import build_schedule

BUCKET_ELEMENTS = 25_000_000
"""Gradients that are reduced together, 100 MB. DeepSpeed's default would reserve 2 GB of every GPU for them."""


class ZeroEngine:
    """A method, its optimizer and its schedule, sharded over the ranks; the method has its weights already."""

    def __init__(self, method: Method, config: TrainConfig, ranks: Ranks, *, steps_per_epoch: int) -> None:
        check_device(config, ranks.device)
        self.config, self.ranks = config, ranks
        self.base_optimizer = build_optimizer(method, config)
        self.schedule = build_schedule(config, self.base_optimizer, steps_per_epoch=steps_per_epoch)
        # Copied before DeepSpeed puts its hooks on the parameters. ZeRO 3's waits for its weights in host memory.
        self.whole_method = copy.deepcopy(method) if config.zero == 3 else None
        method = method.to(ranks.device)
        self.ema = ModelEmaV3(method, decay=config.ema) if config.ema else None
        self.engine = _initialize(method, self.base_optimizer, deepspeed_config(config, world=ranks.world))
        self.initial_groups = [dict(group) for group in self.base_optimizer.param_groups]
        if config.compile:
            self.engine.compile()

    @property
    def method(self) -> Method:
        """The method in training.

        Only `step` may call it: at ZeRO 3 its parameters are empty outside of a step. `evaluated()` gives one to
        localize with, `whole_state()` its weights.
        """
        return self.engine.module

    @contextmanager
    def evaluated(self) -> Iterator[Method]:
        """The method as evaluation reads it: what `checkpoint.evaluated_weights` names in a checkpoint written now.

        All ranks enter and leave it together; inside it nothing is communicated, so that they may call `localize`
        any number of times each, also at ZeRO 3. It is never compiled, and computes in float32.
        """
        method = self.method if self.ema is None else self.ema.module
        if self.whole_method is not None:
            self.whole_method.load_state_dict(self.whole_state(), assign=False)
            method = self.whole_method.to(self.ranks.device)
        # Batch statistics differ between the ranks, and a checkpoint has those of rank 0.
        self.ranks.copy_from_main(list(method.buffers()))
        try:
            yield method
        finally:
            if self.whole_method is not None:
                self.whole_method.cpu()

    def whole_state(self) -> dict[str, Tensor]:
        """The state dict in training, float32 and whole at every stage; all ranks call it."""
        state = self.method.state_dict()
        if self.config.zero == 3:
            import deepspeed

            for name, parameter in self.method.named_parameters(remove_duplicate=False):
                with deepspeed.zero.GatheredParameters([parameter]):  # one at a time: no GPU need hold all
                    state[name] = parameter.detach().cpu().clone()
        return state

    def ema_state(self) -> dict[str, Tensor] | None:
        """The averaged weights; None without `train.ema`."""
        return None if self.ema is None else self.ema.module.state_dict()

    @property
    def lr(self) -> float:
        """Learning rate of the last step, of parameters that have no scale of their own."""
        return max(group["lr"] / group.get("lr_scale", 1.0) for group in self.engine.optimizer.param_groups)

    def step(self, step: int, micro_batches: Iterable[tuple[Tensor, ...]], *, seed: int) -> dict[str, Tensor]:
        """One optimizer step, number `step` from 0.

        Args:
            micro_batches: `accumulation` tuples of what the method's `forward` takes: normalised images, labels, ...
            seed: of the run; dropout and drop-path of a step depend on (seed, step, rank) alone, so that a
                checkpoint needs no state of a random generator.

        Returns:
            This rank's losses by name, the mean over the micro-batches.
        """
        torch.manual_seed(hash((seed, step, self.ranks.rank)) & 0x7FFF_FFFF_FFFF_FFFF)
        self.schedule.step_update(step)
        self.engine.train()
        totals: dict[str, Tensor] = {}
        for batch in micro_batches:
            losses = self.engine(*batch)
            self.engine.backward(losses["loss"])
            self.engine.step()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / self.config.accumulation
        if self.ema is not None:
            self.ema.update(self.method, step + 1)
        return totals

    def held_elements(self) -> dict[str, int]:
        """Elements of `parameters`, `gradients` and `optimizer` state on this rank now.

        Gradients are there between backward and step only.
        """
        parameters: list[Any] = list(self.method.parameters())
        held = sum(parameter.data.numel() for parameter in parameters)
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.config.zero:
            zero = self.engine.optimizer
            between = getattr(zero, "all_grad_tensors", {})  # stage 2, from one micro-batch to the next
            for kept in [*zero.averaged_gradients.values(), *between.values()]:
                grads += kept or []
        if self.config.zero == 3:
            held += sum(parameter.ds_tensor.numel() for parameter in parameters)
        states = [value for state in self.base_optimizer.state.values() for value in state.values()]
        return {
            "parameters": held,
            "gradients": sum({grad.data_ptr(): grad.numel() for grad in grads}.values()),
            "optimizer": sum(value.numel() for value in states if torch.is_tensor(value)),
        }

    def save(self, checkpoint: Path) -> Path:
        """Write this rank's part of the optimizer's state, and say where; every rank calls it."""
        parts = self._parts()
        groups = zip(self.base_optimizer.param_groups, self.initial_groups, strict=True)
        return optimizer_state.write(
            checkpoint / OPTIMIZER,
            self.base_optimizer,
            parts if self.config.zero else parts[self.ranks.rank :: self.ranks.world],
            counters=[counters(group, initial) for group, initial in groups],
            rank=self.ranks.rank,
            world=self.ranks.world,
        )

    def load(self, checkpoint: Path, *, world: int) -> None:
        """Read the optimizer and the average of the weights that `world` ranks saved, at any ZeRO stage.

        The weights themselves were given to the method before; no step has been done yet.
        """
        if self.ema is not None:
            state = read_state(checkpoint / EMA_WEIGHTS)
            load_checked(self.ema.module, state, source=str(checkpoint / EMA_WEIGHTS))
        optimizer_state.read(checkpoint / OPTIMIZER, self.base_optimizer, self._parts(), world=world)

    def _parts(self) -> list[Part]:
        """Where each parameter's elements lie in what this rank's optimizer steps."""
        names = {id(parameter): name for name, parameter in self.method.named_parameters()}
        zero = self.engine.optimizer
        if self.config.zero == 0:
            stepped = [
                parameter for group in self.base_optimizer.param_groups for parameter in group["params"]
            ]
            return [
                Part(tensor=p, pieces=(Piece(name=names[id(p)], start=0, offset=0, numel=p.numel()),))
                for p in stepped
            ]
        if self.config.zero == 3:
            return [
                Part(tensor=flat, pieces=tuple(_pieces_of_stage_3(group, names, self.ranks.rank)))
                for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True)
            ]
        return [
            Part(tensor=flat, pieces=tuple(_pieces_of_stages_1_2(group, names)))
            for flat, group in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True)
        ]


def _pieces_of_stages_1_2(group: Iterable[Any], names: dict[int, str]) -> Iterator[Piece]:
    """All parameters of a group lie behind one another, cut anywhere into a slice for each rank."""
    for parameter in group:
        if (here := parameter._hp_mapping) is not None:
            yield Piece(
                name=names[id(parameter)],
                start=here.lp_fragment_address.start,
                offset=here.hp_fragment_address.start,
                numel=here.lp_fragment_address.numel,
            )


def _pieces_of_stage_3(group: Iterable[Any], names: dict[int, str], rank: int) -> Iterator[Piece]:
    """Every parameter is cut into equal slices, the last of them padded."""
    offset = 0
    for parameter in group:
        length = parameter.partition_numel()
        start = rank * length
        if (numel := min(length, parameter.ds_numel - start)) > 0:
            yield Piece(name=names[id(parameter)], start=start, offset=offset, numel=numel)
        offset += length


def deepspeed_config(config: TrainConfig, *, world: int) -> dict[str, Any]:
    """DeepSpeed's dictionary, derived from the recipe."""
    return {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": micro_batch(
            config.global_batch, world=world, accumulation=config.accumulation
        ),
        "gradient_accumulation_steps": config.accumulation,
        "gradient_clipping": config.clip,
        "zero_optimization": {
            "stage": config.zero,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
        },
        # Autocast, not bfloat16 weights: those would round small steps and batch statistics away. No module's
        # gradients are sent in bfloat16, so that all stages compute the same.
        "torch_autocast": {
            "enabled": config.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        # timm's optimizers beyond Adam are not on DeepSpeed's list of tested ones.
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def check_device(config: TrainConfig, device: torch.device) -> None:
    """What this machine must be able to do for the recipe.

    Raises:
        UserError: no bfloat16 on this GPU, or torch.compile finds no compiler.
    """
    if config.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise UserError(
            f"train.precision: {torch.cuda.get_device_name(device)} has no bfloat16; use --train.precision fp32"
        )
    if not config.compile:
        return
    try:  # on the smallest thing there is: what is missing shows now and not after the data are loaded
        torch.compile(_plus_one)(torch.zeros(8, device=device))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"train.compile: torch.compile does not work here: {reason}; install a C++ compiler (g++), "
            "or use --train.no-compile"
        ) from error


def _plus_one(value: Tensor) -> Tensor:
    return value + 1


def _initialize(method: Method, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # Its shared-memory all-reduce is compiled with g++ at first use, for about 50 s; gloo serves without a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(model=method, optimizer=optimizer, config=config)
    frozen: list[Any] = [one for one in method.parameters() if not one.requires_grad]
    if config["zero_optimization"]["stage"] == 3:
        for parameter in frozen:
            # It never changes: once gathered it stays whole, instead of being sent around in every pass.
            parameter.ds_persist = True
    return engine
