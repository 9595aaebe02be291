"""Speed and losses of the steps since the last log row."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from wsol_dist.ranks import Ranks


class Meter:
    """Speed and losses since the last log row."""

    def __init__(self, ranks: Ranks, *, global_batch: int) -> None:
        self.ranks, self.global_batch = ranks, global_batch
        self._reset()

    def _reset(self) -> None:
        self.start, self.waited_s, self.num_steps = time.monotonic(), 0.0, 0
        self.losses: dict[str, Tensor] = {}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in this context counts as waiting for data."""
        start = time.monotonic()
        yield
        self.waited_s += time.monotonic() - start

    def count(self, losses: dict[str, Tensor]) -> None:
        """Add a step's losses, without waiting for the device."""
        self.num_steps += 1
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0) + value

    def scalars(self, *, lr: float, epoch: float) -> dict[str, float]:
        """Means since the last call, over all ranks; every rank calls it."""
        means = self.ranks.mean([float(value) / self.num_steps for value in self.losses.values()])
        seconds = time.monotonic() - self.start
        row = {f"train/{name}": value for name, value in zip(self.losses, means, strict=True)}
        row |= {
            "train/lr": lr,
            "train/epoch": epoch,
            "train/images_per_s": self.num_steps * self.global_batch / seconds,
            "train/data_wait_pct": 100 * self.waited_s / seconds,
            "train/memory_gib": memory_gib(self.ranks.device),
        }
        self._reset()
        return row


def memory_gib(device: torch.device) -> float:
    """Peak memory of this rank: of its GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
