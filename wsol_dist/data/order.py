"""The order of an epoch: a pure function of seed, epoch and index, whatever the ranks and workers.

Shards are permuted and laid end to end; the row of samples is cut into lanes of equal length; each lane is
shuffled within a window; a global batch takes from the lanes in turn. A rank that takes every world-th position
owns whole lanes when the world size divides the lanes, and so reads no shard that another rank reads (but for the
few that a cut between lanes splits).
"""

from __future__ import annotations

import numpy as np


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
