"""The order of an epoch: a pure function of seed, epoch and index, whatever the ranks and workers.

Shards are permuted and laid end to end; the row of samples is cut into lanes of equal length; each lane is
shuffled within a window; a global batch takes from the lanes in turn. A rank that takes every world-th position
owns whole lanes when the world size divides the lanes, and so reads no shard that another rank reads (but for the
few that a cut between lanes splits).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wsol_dist.config.data import DataConfig
from wsol_dist.data.stream.pairs import FOUR, class_fours
from wsol_dist.errors import UserError


def epoch_order(shard_of_row: np.ndarray, *, seed: int, epoch: int, lanes: int, window: int) -> np.ndarray:
    """Row numbers in the order in which this epoch visits them.

    Args:
        shard_of_row: (n,) ints, the shard of each row; rows of a shard are adjacent.
        lanes: number of sequential reads; capped at n.
        window: samples among which a lane shuffles.

    Returns:
        (n,) int64, a permutation of 0..n-1.
    """
    rng = np.random.default_rng([seed, epoch])
    laid = _permute_shards(shard_of_row, rng)
    num_lanes = min(lanes, len(laid))
    shuffled = [_shuffle_in_window(lane, window, rng) for lane in np.array_split(laid, num_lanes)]
    return _take_in_turn(shuffled)


def _permute_shards(shard_of_row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shards = np.unique(shard_of_row)
    place = np.empty(shards.max() + 1, dtype=np.int64)
    place[rng.permutation(shards)] = np.arange(len(shards))
    return np.argsort(place[shard_of_row], kind="stable")


def _shuffle_in_window(lane: np.ndarray, window: int, rng: np.random.Generator) -> np.ndarray:
    # A sample moves by less than `window` places: as random as a shuffle buffer of that size, but in one sort.
    return lane[np.argsort(np.arange(len(lane)) + rng.uniform(0, window, len(lane)), kind="stable")]


def _take_in_turn(lanes: list[np.ndarray]) -> np.ndarray:
    # array_split makes the first lanes one longer, so a column-wise read of the padded table has its gaps at the end.
    table = np.full((len(lanes), len(lanes[0])), -1, dtype=np.int64)
    for row, lane in zip(table, lanes, strict=True):
        row[: len(lane)] = lane
    order = table.T.ravel()
    return order[order >= 0]


def steps_per_epoch(num_samples: int, global_batch: int) -> int:
    """Whole global batches in an epoch; the rest, another one each epoch, is left out."""
    return num_samples // global_batch


def micro_batch(global_batch: int, *, world: int, accumulation: int, unit: int = 1) -> int:
    """Images of a rank between two backward passes.

    Args:
        unit: a micro-batch is a multiple of it: `FOUR` for the order class_pairs.

    Raises:
        UserError: the ranks cannot share the global batch.
    """
    share = world * accumulation * unit
    if global_batch % share:
        fours = " x fours of data.order class_pairs" if unit > 1 else ""
        raise UserError(
            f"train.global_batch: {global_batch} is no multiple of {share} ({world} ranks x accumulation "
            f"{accumulation}{fours}); try --train.global-batch {max(share, global_batch // share * share)}"
        )
    return global_batch // (world * accumulation)


def rank_rows(
    order: np.ndarray, *, step: int, global_batch: int, rank: int, world: int, unit: int = 1
) -> np.ndarray:
    """This rank's rows of one global step of the epoch: units rank, rank + world, ... of the batch.

    Args:
        unit: adjacent rows that stay on one rank.
    """
    assert global_batch % (world * unit) == 0
    batch = order[step * global_batch : (step + 1) * global_batch]
    return batch.reshape(-1, unit)[rank::world].ravel()


def rank_share(positions: np.ndarray, *, rank: int, world: int) -> np.ndarray:
    """This rank's positions of a split that is scored: over all ranks each is there once."""
    return positions[rank::world]


@dataclass(frozen=True, kw_only=True)
class TrainingOrder:
    """Which rows a rank reads from a global step on: the loader's batch sampler."""

    shard_of_row: np.ndarray
    data: DataConfig
    seed: int
    global_batch: int
    accumulation: int
    rank: int
    world: int
    first_step: int
    last_step: int
    """Exclusive."""
    label_of_row: np.ndarray | None = None
    """Class of each row; `class_pairs` needs it."""

    @property
    def micro_batch(self) -> int:
        """Images of one item of this order."""
        return micro_batch(self.global_batch, world=self.world, accumulation=self.accumulation)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = steps_per_epoch(len(self.shard_of_row), self.global_batch)
        known = (-1, np.empty(0, dtype=np.int64))
        for step in range(self.first_step, self.last_step):
            epoch, step_in_epoch = divmod(step, per_epoch)
            if known[0] != epoch:
                known = (epoch, self._epoch(epoch))
            rows = rank_rows(
                known[1],
                step=step_in_epoch,
                global_batch=self.global_batch,
                rank=self.rank,
                world=self.world,
                unit=FOUR if self.data.order == "class_pairs" else 1,
            )
            for micro in np.split(rows, self.accumulation):
                yield [(epoch, row) for row in micro.tolist()]

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation

    def _epoch(self, epoch: int) -> np.ndarray:
        order = epoch_order(
            self.shard_of_row, seed=self.seed, epoch=epoch, lanes=self.data.lanes, window=self.data.window
        )
        if self.data.order == "uniform":
            return order
        assert self.label_of_row is not None
        return class_fours(order, self.label_of_row, seed=self.seed, epoch=epoch)
