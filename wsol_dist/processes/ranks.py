"""Rank, world and the few collectives that the project needs; the lowest layer, over torch.distributed."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from wsol_dist.errors import UserError
from wsol_dist.processes.ports import free_port

TIMEOUT = timedelta(minutes=30)
STORE_S = 10.0
"""How long rank 0 waits at most for the others to read why there will be no group."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all: works the same with one process and no process group."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """True on the one rank that prints and writes shared files."""
        return self.rank == 0

    def all_sum(self, counts: np.ndarray) -> np.ndarray:
        """Integer counters summed over all ranks; the same array on every rank.

        Args:
            counts: int64, any shape, equal on all ranks.
        """
        if self.world == 1:
            return counts
        total = torch.from_numpy(counts.copy()).to(self.device)
        dist.all_reduce(total)
        return total.cpu().numpy()

    def mean(self, values: list[float]) -> list[float]:
        """Floats averaged over all ranks; for logs, not for results."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return (total / self.world).tolist()

    def begin_max(self, value: int) -> Callable[[], int]:
        """Ask for the largest of all ranks' values; calling what comes back gives it, later and without a wait by then.

        Every rank begins, and calls, at the same places among the other collectives.
        """
        if self.world == 1:
            return lambda: value
        found = torch.full((1,), value, dtype=torch.int32, device=self.device)
        if found.is_cpu:
            work = dist.all_reduce(found, op=dist.ReduceOp.MAX, async_op=True)
            return lambda: int(found) if work.wait() else value
        # In the GPU's own queue; the next step goes on behind it.
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        here = torch.empty(1, dtype=torch.int32, pin_memory=True).copy_(found, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def answer() -> int:
            copied.synchronize()
            return int(here)

        return answer

    def gather(self, thing: Any) -> list[Any]:
        """A picklable thing of every rank, in rank order, on every rank."""
        if self.world == 1:
            return [thing]
        things: list[Any] = [None] * self.world
        dist.all_gather_object(things, thing)
        return things

    def copy_from_main(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite tensors on this rank's device, of equal shapes on all ranks, with those of rank 0."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def main_first(self, work: Callable[[], None]) -> None:
        """Rank 0 does it, the others wait.

        Raises:
            UserError: on every rank, what rank 0 raised.
        """
        mistake = None
        if self.is_main:
            try:
                work()
            except UserError as error:
                mistake = str(error)
        mistake = self.gather(mistake)[0]
        if mistake is not None:
            raise UserError(mistake)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier()


def rank_of_group() -> int:
    """This process's rank in the process group; 0 without one."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_rows(part: torch.Tensor) -> torch.Tensor:
    """Tensors of equal shape of all ranks one below the other, in rank order, without gradient."""
    part = part.detach().contiguous()
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part)
    return torch.cat(parts)


def max_over_ranks(part: torch.Tensor) -> torch.Tensor:
    """The largest of all ranks' values, place by place, without gradient."""
    whole = part.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(whole, op=dist.ReduceOp.MAX)
    return whole


def sum_with_gradient(part: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks; what any rank's loss makes of it flows back to every rank's part."""
    return _SumOverRanks.apply(part) if dist.is_initialized() else part


class _SumOverRanks(torch.autograd.Function):
    """The gradient of a sum over ranks is the sum over ranks of the gradients."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor) -> torch.Tensor:
        whole = part.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        whole = gradient.clone()
        dist.all_reduce(whole)
        return whole


def from_environment() -> Ranks:
    """The ranks that torchrun, submitit or srun describe, with the process group started; alone without any.

    NCCL on GPUs, gloo on CPUs. Raises RuntimeError where the group does not come together in half an hour.
    """
    describe_slurm()
    for name, value in (
        ("RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("LOCAL_RANK", "0"),
        ("MASTER_ADDR", "127.0.0.1"),
    ):
        os.environ.setdefault(name, value)
    if "MASTER_PORT" not in os.environ:
        if os.environ["WORLD_SIZE"] != "1":
            raise UserError(
                f"{os.environ['WORLD_SIZE']} ranks, but MASTER_ADDR and MASTER_PORT are not set; start them with "
                "launch/submit.py, torchrun, or a job script like slurm/molt_64gpu.sh"
            )
        os.environ["MASTER_PORT"] = str(free_port())
    return start_group()


def describe_slurm() -> None:
    """Under a plain `srun`, say in torchrun's variables what SLURM says in its own.

    `MASTER_ADDR` and `MASTER_PORT` come from the job script, which runs before the ranks do.
    """
    if (
        "RANK" in os.environ
        or int(os.environ.get("SLURM_NTASKS", "1")) == 1
        or "SLURM_PROCID" not in os.environ
    ):
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]


def start_group() -> Ranks:
    """The process group of torchrun's environment variables."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu")
    if torch.cuda.is_available():
        # Under srun with one GPU bound to each task there is a single visible device, whatever the local rank.
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    if not dist.is_initialized():
        try:
            store, rank, world = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
            check_devices(store, rank, world, device)
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
        except dist.DistNetworkError as error:
            if "EADDRINUSE" not in str(error):
                raise
            raise UserError(
                f"MASTER_PORT: port {os.environ['MASTER_PORT']} is in use by another program on this machine; "
                "set MASTER_PORT to a free one, or leave it out where one process trains"
            ) from error
    return Ranks(rank=rank, world=world, device=device)


def check_devices(store: Any, rank: int, world: int, device: torch.device) -> None:
    """Refuse ranks with a GPU among ranks without: a group of both would wait half an hour for itself.

    Raises:
        UserError: on every rank, with the nodes that see no GPU.
    """
    if world == 1:
        return
    store.set(f"wsol/device/{rank}", json.dumps([device.type, socket.gethostname()]))
    if rank == 0:
        devices = [json.loads(store.get(f"wsol/device/{other}")) for other in range(world)]
        without = sorted({host for kind, host in devices if kind == "cpu"})
        mixed = len({kind for kind, _ in devices}) > 1
        store.set("wsol/without-gpu", ", ".join(without) if mixed else "")
    without_gpu = store.get("wsol/without-gpu").decode()
    if not without_gpu:
        return
    store.add("wsol/read", 1)
    until = time.monotonic() + STORE_S
    while rank == 0 and store.add("wsol/read", 0) < world and time.monotonic() < until:
        time.sleep(0.05)  # the store ends with rank 0
    raise UserError(
        f"node check: no GPU is visible on node {without_gpu}, other ranks have one; look at nvidia-smi and "
        "CUDA_VISIBLE_DEVICES there, or leave the node out (--exclude)"
    )


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, instead of giving large blocks back to the kernel at every step.

    The activations of a training step are such blocks: faulting their pages in again costs a CPU rank more time
    than the arithmetic of a small network.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def stop_group() -> None:
    """End the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
