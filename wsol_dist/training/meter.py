"""Speed and losses of the steps since the last log row."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from wsol_dist.processes.ranks import Ranks
from wsol_dist.runs.checkpoint import TrainState


class Meter:
    """Speed and losses since the last log row."""

    def __init__(self, ranks: Ranks, *, global_batch: int) -> None:
        self.ranks, self.global_batch = ranks, global_batch
        self._reset()

    def _reset(self) -> None:
        self.start, self.waited_s, self.num_steps, self.num_carried = time.monotonic(), 0.0, 0, 0
        self.losses: dict[str, Tensor] = {}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in this context counts as waiting for data."""
        start = time.monotonic()
        yield
        self.waited_s += time.monotonic() - start

    def carry(self, state: TrainState) -> None:
        """Begin with what was not yet logged when training stopped; speed is counted from now."""
        of_ranks = state.unlogged_losses
        self.num_carried = state.unlogged_steps
        for name in of_ranks[0] if of_ranks else ():
            sums = [losses[name] for losses in of_ranks]
            # Of another number of ranks each takes the mean: the row is a mean over ranks.
            own = sums[self.ranks.rank] if state.world == self.ranks.world else sum(sums) / len(sums)
            self.losses[name] = torch.tensor(own, device=self.ranks.device)

    def unlogged(self) -> tuple[int, list[dict[str, float]]]:
        """What `carry` takes, of a checkpoint between two log rows; every rank calls it."""
        own = {name: float(value) for name, value in self.losses.items()}
        return self.num_carried + self.num_steps, self.ranks.gather(own)

    def count(self, losses: dict[str, Tensor]) -> None:
        """Add a step's losses, without waiting for the device."""
        self.num_steps += 1
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0) + value

    def means(self) -> dict[str, float]:
        """Mean losses since the last row, over all ranks; every rank calls it."""
        steps = self.num_carried + self.num_steps
        means = self.ranks.mean([float(value) / steps for value in self.losses.values()])
        return dict(zip(self.losses, means, strict=True))

    def scalars(self, *, lr: float, epoch: float) -> dict[str, float]:
        """Means since the last call, over all ranks; every rank calls it."""
        row = {f"train/{name}": value for name, value in self.means().items()}
        seconds = time.monotonic() - self.start
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
