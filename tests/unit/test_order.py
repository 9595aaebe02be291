"""The order of an epoch does not depend on ranks, and every sample has its place once."""

import numpy as np
import pytest

from wsol_dist.data.stream.order import epoch_order, rank_rows, steps_per_epoch


def shards_of(*sizes: int) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize(
    ("sizes", "lanes", "window"), [((5, 7, 1), 4, 3), ((100,) * 9, 64, 50), ((3,), 64, 1), ((17, 20), 1, 100)]
)
def test_is_a_permutation_that_seed_and_epoch_fix(sizes: tuple[int, ...], lanes: int, window: int) -> None:
    rows = shards_of(*sizes)
    order = epoch_order(rows, seed=3, epoch=2, lanes=lanes, window=window)
    assert sorted(order) == list(range(len(rows)))
    assert np.array_equal(order, epoch_order(rows, seed=3, epoch=2, lanes=lanes, window=window))


def test_epochs_and_seeds_differ() -> None:
    rows = shards_of(50, 50)
    orders = [epoch_order(rows, seed=s, epoch=e, lanes=4, window=20) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_ranks_partition_each_global_batch(world: int) -> None:
    order = epoch_order(shards_of(40, 30, 27), seed=0, epoch=0, lanes=8, window=10)
    for step in range(steps_per_epoch(97, 12)):
        parts = [
            rank_rows(order, step=step, global_batch=12, rank=rank, world=world) for rank in range(world)
        ]
        assert {len(part) for part in parts} == {12 // world}
        assert sorted(np.concatenate(parts)) == sorted(order[step * 12 : (step + 1) * 12])


def test_a_rank_reads_its_own_lanes_shards_only() -> None:
    rows = shards_of(*[20] * 16)
    order = epoch_order(rows, seed=1, epoch=0, lanes=8, window=10)
    read = [
        {
            rows[row]
            for step in range(20)
            for row in rank_rows(order, step=step, global_batch=16, rank=rank, world=4)
        }
        for rank in range(4)
    ]
    assert sum(len(shards) for shards in read) == len(set().union(*read)) == 16


def test_a_window_bounds_how_far_a_sample_moves() -> None:
    order = epoch_order(shards_of(1000), seed=0, epoch=0, lanes=1, window=32)
    assert np.abs(order - np.arange(1000)).max() < 64
    assert not np.array_equal(order, np.arange(1000))
