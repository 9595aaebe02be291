"""Arithmetic of a training at scale: memory of a rank, bytes that it sends, seconds of a step.

n ranks, T trained elements of 4 bytes. In a ring a rank sends (n - 1) / n of the data in an all-gather or a
reduce-scatter, and twice that in an all-reduce. What DeepSpeed does at each stage is what it was seen to do:
stages 1 and 2 sum gradients with an all-reduce, not a reduce-scatter; stage 2 does so for every micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsol_dist.planning.network import Network
from wsol_dist.training.zero import BUCKET_ELEMENTS

Backend = Literal["nccl", "gloo"]
FLOAT_BYTES = 4
MAX_LIVE_ELEMENTS = 1_000_000_000
"""ZeRO 3 keeps gathered parameters for the backward pass up to this many (stage3_max_live_parameters)."""
FLAT_ELEMENTS = 500_000_000
"""Gradients that stage 0 copies together before it sums them."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a recipe is spread out."""

    nodes: int
    gpus_per_node: int
    accumulation: int
    zero: int
    ema: bool = False

    @property
    def world(self) -> int:
        """Ranks."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank's device."""

    parameters: float
    """With buffers; at ZeRO 3 also those gathered for a pass."""
    gradients: float
    optimizer: float
    """With the optimizer's own copy of the weights (ZeRO 1 to 3), and their average (train.ema)."""
    activations: float
    communication: float
    """Buckets."""
    overhead: float
    """The device's context, libraries, allocator."""
    peak: float
    """All of it at its largest: activations are there before the gradients are, so less than the sum."""


def memory(network: Network, scale: Scale, *, overhead_bytes: float = 0) -> Memory:
    """What a rank holds at its peak."""
    size, share = FLOAT_BYTES * network.trained, FLOAT_BYTES * network.trained / scale.world
    frozen = FLOAT_BYTES * network.frozen
    whole = size + frozen + network.buffer_bytes
    bucket = FLOAT_BYTES * BUCKET_ELEMENTS
    ema = whole if scale.ema else 0
    activations = network.activation_bytes
    many = scale.accumulation > 1
    parameters: float
    gradients: float
    passing: float
    if scale.zero == 0:
        parameters, optimizer, gradients = whole, network.optimizer_per_element * size, size
        communication = min(size, FLOAT_BYTES * FLAT_ELEMENTS) if scale.world > 1 else 0
        passing = max(activations + (gradients if many else 0), gradients + communication)
    else:
        optimizer = (network.optimizer_per_element + 1) * share
        communication = bucket
        # Stage 3 sends gradients while the pass goes on: behind a slow network all of them may still be waiting.
        gradients = share if scale.zero == 2 else size
        if scale.zero == 3:
            gathered = FLOAT_BYTES * min(network.trained, MAX_LIVE_ELEMENTS)
            parameters = share + FLOAT_BYTES * network.small + frozen + network.buffer_bytes + gathered
            # Each that waits has a copy, laid out for the reduce-scatter. How many do at the peak differs from step to
            # step, between none and all of them.
            passing = bucket + 1.5 * gradients + activations
        else:
            parameters = whole
            beside = many or scale.zero == 2  # which puts its share of gradients aside during the pass
            passing = bucket + (activations + gradients if beside else max(activations, gradients))
    return Memory(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer + ema,
        activations=activations,
        communication=communication,
        overhead=overhead_bytes,
        peak=parameters + optimizer + ema + passing + overhead_bytes,
    )


def bytes_sent(network: Network, scale: Scale, *, backend: Backend) -> float:
    """Bytes that a rank sends in an optimizer step, from the third step on."""
    ring = (scale.world - 1) / scale.world * FLOAT_BYTES * network.trained
    if scale.zero == 0:
        return 2 * ring
    if scale.zero == 1:
        return 2 * ring + ring
    if scale.zero == 2:
        return scale.accumulation * 2 * ring + ring
    gathers = 1 if network.trained <= MAX_LIVE_ELEMENTS else 2
    # gloo has no reduce-scatter of its own: it is an all-reduce there.
    return scale.accumulation * (gathers + (2 if backend == "gloo" else 1)) * ring


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of an optimizer step."""

    compute_s: float
    communication_s: float
    step_s: float

    @property
    def efficiency(self) -> float:
        """Share of the step in which the device computes."""
        return self.compute_s / self.step_s


def step_time(
    network: Network, scale: Scale, *, images_per_s: float, bytes_per_s: float, sent: float
) -> StepTime:
    """Predicted time of a step.

    Args:
        images_per_s: that one device alone trains.
        bytes_per_s: bus bandwidth of a rank in a collective, as the node check prints it.
        sent: bytes of a step.
    """
    compute_s = scale.accumulation * network.micro_batch / images_per_s
    communication_s = sent / bytes_per_s
    # Stages 0 to 2 begin to send when the backward pass is through (overlap_comm is off there), stage 3 before.
    step_s = max(compute_s, communication_s) if scale.zero == 3 else compute_s + communication_s
    return StepTime(compute_s=compute_s, communication_s=communication_s, step_s=step_s)
