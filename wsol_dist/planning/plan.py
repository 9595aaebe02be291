"""The lines of a plan: what a recipe costs on given machines, each figure with where it comes from."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.order import micro_batch, steps_per_epoch
from wsol_dist.errors import UserError
from wsol_dist.recipe import Config

if TYPE_CHECKING:
    from wsol_dist.planning.cost import Memory, Scale, StepTime
    from wsol_dist.planning.network import Inputs, Network

GIB = 2**30
ASSUMED_GPU_GIB = 80.0
ASSUMED_TFLOPS = {"fp32": 20.0, "bf16": 150.0}
"""What a current data-centre GPU reaches in training, not its peak."""
ASSUMED_GB_PER_S = {"one node": 200.0, "several nodes": 20.0}
FULL = 0.95
"""Share of the memory above which it does not fit."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is known of the machines; None for what is to be measured here, estimated or assumed."""

    nodes: PositiveInt = 1
    """Machines."""
    gpus_per_node: PositiveInt = 8
    """GPUs, one rank each."""
    gpu_memory_gib: PositiveFloat | None = None
    """Of a GPU; by default this machine's GPU, else 80."""
    images_per_s: PositiveFloat | None = None
    """That one GPU alone trains: a short run's train/images_per_s."""
    from_run: Path | None = None
    """A run folder whose metrics.jsonl says that."""
    tflops: PositiveFloat | None = None
    """Arithmetic that a GPU reaches, where neither is given."""
    bandwidth_gb_s: PositiveFloat | None = None
    """Of an all-reduce for each rank, as the node check prints it."""
    num_images: PositiveInt | None = None
    """In the training split, where no shards are named (--data.index)."""
    backend: Literal["nccl", "gloo"] = "nccl"
    """gloo: ranks on CPUs."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with where it comes from."""

    value: float
    source: str


def plan_lines(given: Given, config: Config) -> list[str]:
    """The plan of one run."""
    from wsol_dist.planning.cost import Scale
    from wsol_dist.planning.network import look_at

    index = Index.load(config.data.index) if config.data.index else None
    scale = Scale(
        nodes=given.nodes,
        gpus_per_node=given.gpus_per_node,
        accumulation=config.train.accumulation,
        zero=config.train.zero,
        ema=bool(config.train.ema),
    )
    network = look_at(
        config,
        inputs(config, index),
        micro_batch=micro_batch(
            config.train.global_batch, world=scale.world, accumulation=scale.accumulation
        ),
    )
    share = f"{scale.accumulation} x {network.micro_batch}"
    return [
        f"{config.name}: {scale.nodes} nodes x {scale.gpus_per_node} GPUs = {scale.world} ranks; global batch "
        f"{config.train.global_batch} images = {scale.world} ranks x {share}; {config.train.precision}, "
        f"{config.train.optimizer}",
        f"  parameters        {network.trained / 1e6:.2f} M trained, {network.frozen / 1e6:.2f} M frozen (counted)",
        "",
        *memory_lines(given, network, scale),
        "",
        *time_lines(given, config, index, network, scale),
    ]


def inputs(config: Config, index: Index | None) -> Inputs:
    """What the method gets in training, as far as recipe and shards say.

    Raises:
        UserError: the number of classes is not known.
    """
    from wsol_dist.data.shards.columns import Column
    from wsol_dist.planning.network import Inputs

    num_classes = len(index.classes) if index else config.data.num_classes
    if num_classes is None:
        raise UserError(
            "data.num_classes: not in this recipe; add --data.index FOLDER or --data.num-classes N"
        )
    dim = None
    if config.data.embeddings and index:
        dim = Column.open(Path(config.data.embeddings), index).about.settings.get("dim")
    return Inputs(
        num_classes=num_classes,
        multi_label=bool(index and index.multi_label),
        embedding_dim=dim,
        targets=bool(config.data.targets),
    )


def memory_lines(given: Given, network: Network, scale: Scale) -> list[str]:
    """A table over the ZeRO stages, the largest part of each, and what does not fit."""
    from wsol_dist.planning.cost import bytes_sent, memory

    there = gpu_memory(given)
    overhead = 0.0 if given.backend == "gloo" else 2.0 * GIB
    table = [
        f"  GiB of a GPU       {'weights':>9}{'gradients':>11}{'optimizer':>11}{'activations':>13}{'buckets':>9}"
        f"{'device':>8}{'peak':>8}   GB sent by a rank in a step"
    ]
    warnings = []
    for zero in range(4):
        staged = replace(scale, zero=zero, ema=scale.ema and zero < 3)
        needed = memory(network, staged, overhead_bytes=overhead)
        sent = bytes_sent(network, staged, backend=given.backend)
        mark = "*" if zero == scale.zero else " "
        table.append(f"  ZeRO {zero}{mark}            {_row(needed)}   {sent / 1e9:.3f}")
        if needed.peak > FULL * there.value * GIB:
            name = f"ZeRO {zero}{' (this recipe)' if mark == '*' else ''}"
            warnings.append(
                f"  WARNING: {name} will not fit: {needed.peak / GIB:.1f} "
                f"of {there.value:.1f} GiB; raise --train.accumulation, lower --train.global-batch, or take more GPUs"
            )
    notes = [
        "  * this recipe's. Weights, gradients, optimizer, buckets and bytes are counted; activations are counted on a "
        f"micro-batch of {network.micro_batch}; device (context, NCCL, allocator) is assumed.",
        f"  a GPU has {there.value:.1f} GiB ({there.source})",
    ]
    return [*table, *notes, *warnings]


def _row(needed: Memory) -> str:
    return (
        f"{needed.parameters / GIB:9.2f}{needed.gradients / GIB:11.2f}{needed.optimizer / GIB:11.2f}"
        f"{needed.activations / GIB:13.2f}{needed.communication / GIB:9.2f}{needed.overhead / GIB:8.2f}"
        f"{needed.peak / GIB:8.2f}"
    )


def time_lines(
    given: Given, config: Config, index: Index | None, network: Network, scale: Scale
) -> list[str]:
    """Speed at this recipe's ZeRO stage."""
    from wsol_dist.planning.cost import bytes_sent, step_time

    speed = images_per_s(given, config, network)
    bandwidth = bandwidth_gb_s(given)
    sent = bytes_sent(network, scale, backend=given.backend)
    time = step_time(network, scale, images_per_s=speed.value, bytes_per_s=bandwidth.value * 1e9, sent=sent)
    batch = config.train.global_batch
    told = [
        f"  one GPU           {speed.value:.1f} images/s ({speed.source})",
        f"  bandwidth         {bandwidth.value:.2f} GB/s a rank in a collective ({bandwidth.source})",
        f"  step at ZeRO {scale.zero}    {time.step_s * 1e3:.1f} ms = {time.compute_s * 1e3:.1f} ms compute "
        f"{'beside' if scale.zero == 3 else '+'} {time.communication_s * 1e3:.1f} ms communication (estimated)",
        f"  efficiency        {100 * time.efficiency:.0f} % of {scale.world} x one GPU (estimated)",
        f"  decoding          {batch / time.step_s / scale.nodes:.0f} images/s on each node, "
        f"{batch / time.step_s / scale.world / max(1, config.data.workers):.0f} for each of {config.data.workers} "
        "loader processes a rank (estimated)",
    ]
    return [*told, _hours(given, config, index, time)]


def _hours(given: Given, config: Config, index: Index | None, time: StepTime) -> str:
    if index is not None:
        index.check_splits([config.data.train_split], option="data.train_split")
        images, source = index.splits[config.data.train_split].num_samples, "counted in the shards"
    elif given.num_images:
        images, source = given.num_images, "given"
    else:
        return "  epoch             unknown: give --data.index, or --num-images"
    hours = steps_per_epoch(images, config.train.global_batch) * time.step_s / 3600
    return (
        f"  epoch             {hours:.3f} hours of {images} images ({source}); {config.train.epochs:g} epochs "
        f"{hours * config.train.epochs:.2f} hours, without checkpoints and scoring (estimated)"
    )


def gpu_memory(given: Given) -> Figure:
    """GiB of a GPU."""
    import torch

    if given.gpu_memory_gib:
        return Figure(value=given.gpu_memory_gib, source="given")
    if torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0)
        return Figure(value=there.total_memory / GIB, source=f"measured: {there.name} here")
    return Figure(value=ASSUMED_GPU_GIB, source="assumed; --gpu-memory-gib")


def images_per_s(given: Given, config: Config, network: Network) -> Figure:
    """Training speed of one GPU alone.

    Raises:
        UserError: the run to take it from has none, or both are given.
    """
    if given.images_per_s and given.from_run:
        raise UserError("--images-per-s and --from-run: give one of them")
    if given.images_per_s:
        return Figure(value=given.images_per_s, source="given")
    if given.from_run:
        return measured_images_per_s(given.from_run)
    tflops = given.tflops or ASSUMED_TFLOPS[config.train.precision]
    source = "given" if given.tflops else "assumed; --images-per-s, --from-run or --tflops"
    flops = network.flops / network.micro_batch
    return Figure(
        value=tflops * 1e12 / flops,
        source=f"estimated: {flops / 1e9:.1f} GFLOP an image, counted, at {tflops:g} TFLOP/s, {source}",
    )


def measured_images_per_s(run: Path) -> Figure:
    """The median of a run's log rows, for one of its ranks.

    Raises:
        UserError: no rows, or no checkpoint that says how many ranks it had.
    """
    from wsol_dist.log.jsonl import METRICS_FILE, read_metrics
    from wsol_dist.runs import checkpoint

    name = "train/images_per_s"
    found = checkpoint.complete_checkpoints(run)
    file = run / METRICS_FILE["train"]
    rows = [row[name] for row in read_metrics(file) if name in row] if file.is_file() else []
    if not rows or not found:
        raise UserError(
            f"--from-run {run}: no checkpoint, or no {name} in its metrics.jsonl; give a run that trained"
        )
    world = checkpoint.read_state(found[-1]).world
    beside = "" if world == 1 else f" on {world} ranks, their communication included"
    return Figure(value=statistics.median(rows) / world, source=f"measured: {run}{beside}")


def bandwidth_gb_s(given: Given) -> Figure:
    """Of an all-reduce."""
    if given.bandwidth_gb_s:
        return Figure(value=given.bandwidth_gb_s, source="given")
    where = "one node" if given.nodes == 1 else "several nodes"
    return Figure(value=ASSUMED_GB_PER_S[where], source=f"assumed for {where}; --bandwidth-gb-s")
