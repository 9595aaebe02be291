"""Who reads what: every task of a job says where it runs and which samples are its own; all together are checked.

A job's first step, before minutes of importing and building: a wrong number of tasks, GPUs that two ranks share,
samples that nobody or two would read, and memory that is too small are then known at once. Imports no torch.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsol_dist.config.data import DataConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.order import TrainingOrder, micro_batch, rank_share, steps_per_epoch
from wsol_dist.errors import RankError, UserError
from wsol_dist.files import write_atomically
from wsol_dist.recipe import read_yaml
from wsol_dist.runs.run_state import CONFIG_FILE
from wsol_dist.training.memory import GIB, free_memory

RANK_GIB = 0.5
"""Memory of a rank on a CPU with torch and DeepSpeed imported, before its network."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
FIRST = 4
"""Row numbers that a task's line shows."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one task knows of itself."""

    rank: int
    world: int
    local_rank: int
    node: str
    machine: str
    """Equal on all nodes that are one machine."""
    gpu: str
    """As CUDA numbers it on the node; empty without any."""
    free_gib: float
    torch: bool
    """Whether torch was imported."""
    seconds: float
    """Of processor time, from the start of the process."""
    memory_mib: int
    """The most that the process took."""
    rows: dict[str, list[int]]
    """Split -> rows of it: of the split that is trained on the first epoch's, of each split those that it scores."""

    def line(self) -> str:
        """For the log."""
        shares = [
            f"{name} {len(rows)}"
            + (f" ({' '.join(map(str, rows[:FIRST]))}{' ...' if rows[FIRST:] else ''})" if rows else "")
            for name, rows in self.rows.items()
        ]
        gpu = f"GPU {self.gpu}" if self.gpu else "no GPU"
        where = f"rank {self.rank:>3} of {self.world}  {self.node}, task {self.local_rank}, {gpu}"
        return f"{where}  rows of {'; '.join(shares)}"


def reports_folder(run: Path) -> Path:
    """Where the tasks of this job leave their reports."""
    return run / "logs" / "ranks" / os.environ.get("SLURM_JOB_ID", "here")


def tell(run: Path) -> Report:
    """Write this task's report into the run folder, as the environment describes the task.

    Raises:
        UserError: no run folder, no such shards, or a batch that the ranks cannot share.
    """
    config = _config(run)
    rank, world, local_rank = _place()
    rows = dict(_rows(config, rank=rank, world=world))
    report = Report(
        rank=rank,
        world=world,
        local_rank=local_rank,
        node=os.uname().nodename,
        machine=BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.is_file() else os.uname().nodename,
        gpu=_gpu(local_rank),
        free_gib=min((free for _, free in free_memory()), default=0) / GIB,
        torch="torch" in sys.modules,
        seconds=round(time.process_time(), 2),
        memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        rows=rows,
    )
    folder = reports_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"rank-{rank:05}.json", json.dumps(asdict(report)).encode())
    return report


def _config(run: Path) -> dict[str, Any]:
    if not (run / CONFIG_FILE).is_file():
        raise UserError(
            f"{run}: no run folder (no config.yaml); `wsol ranks prepare RECIPE --out {run}` writes one"
        )
    return read_yaml(run / CONFIG_FILE)


def _place() -> tuple[int, int, int]:
    """Rank, world and local rank, of `srun` or of torchrun; alone without either."""
    for names in (
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ):
        if all(name in os.environ for name in names):
            rank, world, local_rank = (int(os.environ[name]) for name in names)
            return rank, world, local_rank
    return 0, 1, 0


def _gpu(local_rank: int) -> str:
    """The GPU that `wsol_dist.processes.ranks` takes."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[local_rank % len(visible)] if visible else ""


def _rows(config: dict[str, Any], *, rank: int, world: int) -> Iterator[tuple[str, list[int]]]:
    """What a rank reads in training's first epoch, and of each split when that many ranks score it."""
    data, train = DataConfig(**config["data"]), config["train"]
    index = Index.load(data.index)
    rows = index.rows(data.train_split)
    batch = train["global_batch"]
    micro_batch(batch, world=world, accumulation=train["accumulation"])
    order = TrainingOrder(
        shard_of_row=rows.shard,
        label_of_row=rows.label,
        data=data,
        seed=config["seed"],
        global_batch=batch,
        accumulation=train["accumulation"],
        rank=rank,
        world=world,
        first_step=0,
        last_step=steps_per_epoch(len(rows), batch),
    )
    yield "training", [row for micro in order for _, row in micro]
    for split, about in index.splits.items():
        yield split, rank_share(np.arange(about.num_samples), rank=rank, world=world).tolist()


def check(run: Path, *, ranks_per_node: int | None = None) -> Iterator[str]:
    """Put the reports of this job together.

    Args:
        ranks_per_node: processes that will train on each node; None for one a task.

    Yields:
        A line on the ranks, one on training, one on each split, one on memory.

    Raises:
        RankError: reports are missing or do not go together, or a sample is read by none or twice.
        UserError: the ranks do not fit into the memory that there is.
    """
    config = _config(run)
    reports = _read(reports_folder(run))
    data = DataConfig(**config["data"])
    index = Index.load(data.index)
    yield _line_on_ranks(reports)
    num_train = index.splits[data.train_split].num_samples
    yield _line_on_training(reports, num_train, config["train"]["global_batch"], data.order)
    for name, about in index.splits.items():
        yield _line_on_split(name, reports, about.num_samples)
    yield _line_on_memory(reports, ranks_per_node)


def _read(folder: Path) -> list[Report]:
    reports = [
        Report(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("rank-*.json"))
    ]
    if not reports:
        raise UserError(f"{folder}: no reports; the tasks write them with `srun wsol ranks tell RUN`")
    world = reports[0].world
    if [one.rank for one in reports] != list(range(world)) or {one.world for one in reports} != {world}:
        found = ", ".join(f"{one.rank} of {one.world}" for one in reports[:8])
        raise RankError(f"ranks: {world} reports expected in {folder}, found {len(reports)}: {found} ...")
    return reports


def _line_on_ranks(reports: list[Report]) -> str:
    nodes = Counter(one.node for one in reports)
    machines = len({one.machine for one in reports})
    gpus = Counter((one.node, one.gpu) for one in reports if one.gpu)
    shared = [f"{node} GPU {gpu}" for (node, gpu), count in gpus.items() if count > 1]
    if shared:
        on = f"{max(gpus.values())} ranks share {shared[0]}" + (
            f" and {len(shared) - 1} more" if shared[1:] else ""
        )
    else:
        on = f"each with a GPU of its own ({len(gpus)})" if len(gpus) == len(reports) else f"{len(gpus)} GPUs"
    cost = (
        f"{max(one.seconds for one in reports):.1f} s and {max(one.memory_mib for one in reports)} MiB each"
    )
    light = "with torch" if any(one.torch for one in reports) else "without torch"
    where = f"{len(nodes)} nodes x {max(nodes.values())}, {machines} machine{'s' if machines > 1 else ''}"
    return f"ranks     {len(reports)} of {reports[0].world} told, {where}, {on}; at most {cost}, {light}"


def _line_on_training(reports: list[Report], num_samples: int, global_batch: int, order: str) -> str:
    """Refuse an epoch in which a sample is missing or comes twice, but for what the recipe's order says."""
    count = np.bincount(
        np.concatenate([one.rows["training"] for one in reports]).astype(np.int64), minlength=num_samples
    )
    wanted = steps_per_epoch(num_samples, global_batch) * global_batch
    if count.sum() != wanted or len(count) != num_samples or (order == "uniform" and count.max() > 1):
        raise RankError(
            f"training: the ranks read {count.sum()} samples in an epoch, {np.count_nonzero(count)} different ones, "
            f"{wanted} were to be read"
        )
    left = num_samples - np.count_nonzero(count)
    twice = (
        f", {np.count_nonzero(count > 1)} twice (data.order {order})" if count.max() > 1 else ", none twice"
    )
    return (
        f"training  epoch 0: {np.count_nonzero(count)} of {num_samples} samples are read, each by one rank{twice}; "
        f"{left} are left out of this epoch ({global_batch} a step)"
    )


def _line_on_split(name: str, reports: list[Report], num_samples: int) -> str:
    rows = np.concatenate([one.rows[name] for one in reports]).astype(np.int64)
    if not np.array_equal(np.sort(rows), np.arange(num_samples)):
        raise RankError(
            f"{name}: {num_samples} samples, but the ranks score {len(np.unique(rows))} in {len(rows)} rows"
        )
    return f"{name:<9} scored by these ranks: {num_samples} of {num_samples} samples, each by one rank, once"


def _line_on_memory(reports: list[Report], ranks_per_node: int | None) -> str:
    """The machine that is tightest; nodes may be parts of one. Refuses more training ranks than it holds."""
    tightest: tuple[float, str, str] | None = None
    for machine in dict.fromkeys(one.machine for one in reports):
        own = [one for one in reports if one.machine == machine]
        nodes = list(dict.fromkeys(one.node for one in own))
        ranks = len(own) if ranks_per_node is None else len(nodes) * ranks_per_node
        needed, free = ranks * RANK_GIB, max(one.free_gib for one in own)
        where = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes of one machine"
        line = (
            f"{ranks} training ranks on {where} take {needed:.1f} GiB ({RANK_GIB} each, besides the network), "
            f"{free:.1f} GiB are free"
        )
        fit = max(1, int(free / RANK_GIB / len(nodes)))
        cure = f"RANKS_PER_NODE={fit} sbatch ..., or launch/submit.py --ranks-per-node {fit}"
        tightest = min(tightest or (math.inf, "", ""), (free - needed, line, cure))
    assert tightest is not None
    spare, line, cure = tightest
    if spare < 0:
        raise UserError(f"memory: {line}; for fewer ranks a node: {cure}")
    return f"memory    {line}"
