"""The plan's bytes and memory beside what gloo ranks really send and hold, at every ZeRO stage."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import torch

from tests.dist.runs import METHODS, tiny
from tests.dist.sockets import bytes_sent, peak_bytes, tensor_bytes
from tests.pool import RankPool
from wsol_dist.planning import cost
from wsol_dist.planning.cost import Scale, memory
from wsol_dist.planning.network import Inputs, Network, look_at
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import Config
from wsol_dist.runs.model import build_method
from wsol_dist.training import zero as zero_engine
from wsol_dist.training.zero import ZeroEngine

NUM_CLASSES, MICRO_BATCH, IMAGE_PX = 8, 4, 128
BUCKET_ELEMENTS = 500_000
"""DeepSpeed's buckets of 100 MB would be most of the memory of so small a network."""
WITHIN = 0.2


def config_of(*, world: int, zero: int, accumulation: int, precision: str) -> Config:
    wide = {"width": 384, "heads": 6, "depth": 3, "patch_px": 16}
    METHODS["wide"] = METHODS["molt"] | {
        "backbone": METHODS["molt"]["backbone"] | wide,
        "scales_px": [IMAGE_PX],
    }
    batch = MICRO_BATCH * world * accumulation
    knobs: dict[str, Any] = {"accumulation": accumulation, "global_batch": batch, "precision": precision}
    return tiny("shards", "wide", drop_path=0.0, zero=zero, **knobs)  # type: ignore[arg-type]


def measured(
    own: Ranks, config: Config, network: Network, scale: Scale
) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes sent in the third step and held at its peak, as measured and as planned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero_engine, "BUCKET_ELEMENTS", BUCKET_ELEMENTS)
        patch.setattr(cost, "BUCKET_ELEMENTS", BUCKET_ELEMENTS)
        before = tensor_bytes()
        engine = ZeroEngine(
            build_method(config, num_classes=NUM_CLASSES), config.train, own, steps_per_epoch=6
        )
        engine.whole_method = None  # a copy for evaluation, in host memory
        batch = (
            torch.rand(MICRO_BATCH, 3, IMAGE_PX, IMAGE_PX),
            torch.randint(NUM_CLASSES, (MICRO_BATCH,)),
        )

        def step(number: int) -> None:
            engine.step(number, [batch] * scale.accumulation, seed=0)

        step(0)  # the first ones meet, and DeepSpeed notes what they use
        step(1)
        own.barrier()
        start = bytes_sent()
        step(2)
        own.barrier()
        time.sleep(0.3)  # until the peers' kernels have acknowledged it
        sent = bytes_sent() - start
        held = tensor_bytes() - before + peak_bytes(lambda: step(3))
        planned = {
            "sent": cost.bytes_sent(network, scale, backend="gloo"),
            "held": memory(network, scale).peak,
        }
    return {"sent": float(sent), "held": float(held)}, planned


def compare(pool: RankPool, world: int, *, zero: int, accumulation: int = 1, precision: str = "fp32") -> None:
    config = config_of(world=world, zero=zero, accumulation=accumulation, precision=precision)
    network = look_at(config, Inputs(num_classes=NUM_CLASSES), micro_batch=MICRO_BATCH)
    scale = Scale(nodes=1, gpus_per_node=world, accumulation=accumulation, zero=zero)
    for found, planned in pool.run(measured, config, network, scale):
        words = ", ".join(
            f"{key} {planned[key] / 2**20:.2f} / {found[key] / 2**20:.2f} MiB = {planned[key] / found[key]:.3f}"
            for key in found
        )
        print(
            f"plan / measured, {world} ranks, ZeRO {zero}, accumulation {accumulation}, {precision}: {words}"
        )
        assert planned == pytest.approx(found, rel=WITHIN), words


@pytest.mark.parametrize("zero", range(4))
def test_two_ranks(rank_pool: RankPool, zero: int) -> None:
    compare(rank_pool, 2, zero=zero)


@pytest.mark.slow
@pytest.mark.parametrize("zero", range(4))
def test_two_ranks_with_accumulation(rank_pool: RankPool, zero: int) -> None:
    compare(rank_pool, 2, zero=zero, accumulation=2)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 3])
def test_two_ranks_in_bf16(rank_pool: RankPool, zero: int) -> None:
    compare(rank_pool, 2, zero=zero, precision="bf16")


@pytest.mark.slow
@pytest.mark.parametrize("zero", range(4))
def test_four_ranks(four_ranks: RankPool, zero: int) -> None:
    compare(four_ranks, 4, zero=zero)


def test_one_rank_sends_nothing() -> None:
    network = Network(
        trained=1000, frozen=0, small=0, buffer_bytes=0, optimizer_per_element=2, activation_bytes=0, flops=1,
        micro_batch=1,
    )  # fmt: skip
    for zero in range(4):
        scale = Scale(nodes=1, gpus_per_node=1, accumulation=1, zero=zero)
        assert cost.bytes_sent(network, scale, backend="nccl") == 0


def test_more_live_parameters_than_deepspeed_keeps_are_gathered_twice() -> None:
    small = Network(
        trained=cost.MAX_LIVE_ELEMENTS, frozen=0, small=0, buffer_bytes=0, optimizer_per_element=2,
        activation_bytes=0, flops=1, micro_batch=1,
    )  # fmt: skip
    large = dataclasses.replace(small, trained=cost.MAX_LIVE_ELEMENTS + 8)
    scale = Scale(nodes=2, gpus_per_node=4, accumulation=1, zero=3)
    ratio = cost.bytes_sent(large, scale, backend="nccl") / cost.bytes_sent(small, scale, backend="nccl")
    assert ratio == pytest.approx(3 / 2, rel=1e-6)
