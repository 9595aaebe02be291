"""What a recipe says about training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation, sharding and checkpoints. DeepSpeed's own dictionary is derived from this, never written."""

    epochs: PositiveFloat = 20.0
    """Length of training in epochs; fractions are allowed."""
    global_batch: PositiveInt = 256
    """Images in one optimizer step, over all ranks and accumulation."""
    accumulation: PositiveInt = 1
    """Micro-batches that a rank adds up before each step."""
    optimizer: str = "adamw"
    """Any optimizer name of timm: adamw, sgd, lamb, ..."""
    lr: PositiveFloat = 5e-4
    """Learning rate at the global batch given above; not scaled silently."""
    weight_decay: NonNegativeFloat = 0.05
    """Decay of weights; biases, norms and what the method names have none."""
    momentum: NonNegativeFloat = 0.9
    """Momentum of sgd; beta1 of Adam-like optimizers is timm's default."""
    clip: NonNegativeFloat = 0.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""
    schedule: Literal["constant", "multistep", "cosine", "poly"] = "multistep"
    """Learning rate over time; cosine and poly fall to 0 at the end."""
    power: NonNegativeFloat = 0.9
    """poly: lr times (1 - step / steps) to this power."""
    milestones: tuple[float, ...] = (10.0, 12.0, 20.0)
    """multistep: the lr falls at the start of these epochs, counted from 1."""
    gamma: NonNegativeFloat = 0.1
    """multistep: the factor at each milestone."""
    warmup_epochs: NonNegativeFloat = 0.0
    """The lr rises linearly from 0 over these epochs."""
    zero: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: what the ranks share instead of each holding all of it. 0 nothing, 1 the optimizer's
    state, 2 the gradients too, 3 the parameters too. A run may go on at another stage."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products and convolutions in bfloat16 (autocast); weights, gradients, optimizer and evaluation
    stay float32."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, e.g. 0.9998, which is then what evaluation reads;
    0 is off. Not with zero 3."""
    compile: bool = False
    """Compile the training step with torch.compile; needs a C++ compiler on every node."""
    checkpoint_every_epochs: PositiveFloat = 1.0
    """Write a checkpoint this often, and always at the end."""
    keep_checkpoints: PositiveInt = 2
    """Older checkpoints are removed beyond this number."""
    node_check: bool = True
    """Before training compare all nodes: GPUs, versions, a shared run folder; a second."""
    hang_timeout_s: NonNegativeFloat = 600.0
    """A training without an optimizer step for this long is ended with the stack of every rank, and its SLURM job
    requeued; 0 never. Scoring inside training and the first step after a start do not count."""
    max_requeues: NonNegativeInt = 100
    """A SLURM job that was stopped before its end (time limit, preemption, hang) puts itself back into the queue until
    it was started again this often; 0 never."""
    init: tuple[str, ...] = ()
    """Weights to start from: .safetensors files, or run folders, of which the last checkpoint is taken whether or not
    they were scored; several are merged, each giving what it trained."""

    def __post_init__(self) -> None:
        if self.ema and self.zero == 3:
            raise ValueError(
                f"ema {self.ema} goes with zero 0, 1 and 2, not with 3, where no rank holds the weights to average; "
                "set ema 0 or zero 2"
            )
        if self.global_batch % self.accumulation:
            raise ValueError(
                f"global_batch {self.global_batch} is no multiple of accumulation {self.accumulation}"
            )
