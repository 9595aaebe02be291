"""What a recipe's network costs a rank, found without its arithmetic: one training step on tensors without values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from wsol_dist.errors import UserError
from wsol_dist.methods.base import Method
from wsol_dist.recipe import Config
from wsol_dist.runs.model import build_method
from wsol_dist.training.optimizer import build_optimizer, state_per_element

SMALL_ELEMENTS = 100_000
"""ZeRO 3 keeps parameters up to this size whole (DeepSpeed's stage3_param_persistence_threshold)."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Sizes of a network and of one micro-batch in it."""

    trained: int
    """Elements of parameters that train."""
    frozen: int
    small: int
    """Elements, of those that train, in parameters of at most SMALL_ELEMENTS."""
    buffer_bytes: int
    optimizer_per_element: float
    activation_bytes: int
    """What a micro-batch keeps for its backward pass, its images included."""
    flops: int
    """Forward and backward pass of a micro-batch; a multiplication and an addition are two."""
    micro_batch: int


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What comes with the images."""

    num_classes: int
    multi_label: bool = False
    embedding_dim: int | None = None
    targets: bool = False

    def tensors(self, batch: int, image_px: int) -> tuple[Tensor, ...]:
        """One micro-batch, of zeros."""
        label = (
            torch.zeros(batch, self.num_classes)
            if self.multi_label
            else torch.zeros(batch, dtype=torch.int64)
        )
        beside = []
        if self.embedding_dim is not None:
            beside.append(torch.zeros(batch, self.embedding_dim))
        if self.targets:
            beside.append(torch.zeros(batch, image_px, image_px, dtype=torch.uint8))
        return torch.zeros(batch, 3, image_px, image_px), label, *beside


def look_at(config: Config, inputs: Inputs, *, micro_batch: int) -> Network:
    """Build the network with random weights and count what one micro-batch of training keeps and computes.

    Raises:
        UserError: it does not build, or its loss needs the values of its inputs.
    """
    method = build_method(config, num_classes=inputs.num_classes, read_files=False)
    build_optimizer(method, config.train)  # refuses what does not go with ZeRO
    activation_bytes, flops = _one_step(method, config, inputs, micro_batch)
    trained = [value.numel() for value in method.parameters() if value.requires_grad]
    return Network(
        trained=sum(trained),
        frozen=sum(value.numel() for value in method.parameters() if not value.requires_grad),
        small=sum(numel for numel in trained if numel <= SMALL_ELEMENTS),
        buffer_bytes=sum(value.nbytes for value in method.buffers()),
        optimizer_per_element=state_per_element(config.train),
        activation_bytes=activation_bytes,
        flops=flops,
        micro_batch=micro_batch,
    )


def _one_step(method: Method, config: Config, inputs: Inputs, micro_batch: int) -> tuple[int, int]:
    """Bytes saved for the backward pass, and operations of both passes."""
    mode = FakeTensorMode()
    state: dict[str, Tensor] = {
        name: mode.from_tensor(value) for name, value in method.train().state_dict(keep_vars=True).items()
    }
    own = {value.untyped_storage()._cdata for value in state.values()}
    saved: dict[int, tuple[torch.UntypedStorage, int]] = {}

    def save(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = (storage, storage.nbytes())  # held, so that no address comes twice
        return value

    counter = FlopCounterMode(display=False)
    bf16 = config.train.precision == "bf16"
    try:
        with mode, counter:
            batch = inputs.tensors(micro_batch, method.image_px)
            with (
                torch.autograd.graph.saved_tensors_hooks(save, lambda value: value),
                torch.autocast("cpu", torch.bfloat16, enabled=bf16),
            ):
                loss = functional_call(method, state, batch)["loss"]
            loss.backward()
    except (AssertionError, TypeError, DynamicOutputShapeException, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"plan: the training step of {config.method_name!r} cannot be looked at without its data: {reason}; "
            "give the shards (--data.index), and --data.embeddings or --data.targets where the method learns from them"
        ) from error
    return sum(size for _, size in saved.values()), counter.get_total_flops()
