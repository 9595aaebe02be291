"""Fours of two classes: every image has its positive and its negative beside it, whoever shares the batch."""

from __future__ import annotations

import numpy as np
import pytest

from wsol_dist.data.stream.order import epoch_order, rank_rows
from wsol_dist.data.stream.pairs import FOUR, check_classes, class_fours
from wsol_dist.errors import UserError


def fours(label: np.ndarray, *, epoch: int = 0, shards: int = 7) -> np.ndarray:
    shard = np.arange(len(label)) * shards // len(label)
    order = epoch_order(shard, seed=3, epoch=epoch, lanes=4, window=50)
    return class_fours(order, label, seed=3, epoch=epoch)


@pytest.mark.parametrize(
    "counts",
    [
        (2, 2),
        (3, 3),
        (2, 3, 5, 7, 11),
        (100, 2, 3),
        (50,) * 8,
        tuple(np.random.default_rng(0).integers(2, 30, 40)),
    ],
)
def test_every_image_is_there_with_a_positive_and_a_negative(counts: tuple[int, ...]) -> None:
    label = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    order = fours(label)
    assert len(order) % FOUR == 0
    assert set(order) == set(range(len(label)))
    a, b = label[order].reshape(-1, 2, 2).transpose(1, 0, 2)
    assert (a[:, 0] == a[:, 1]).all()
    assert (b[:, 0] == b[:, 1]).all()
    assert (a[:, 0] != b[:, 0]).all()
    pairs = order.reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all(), "an image is never its own positive"


def test_without_a_class_in_the_majority_hardly_an_image_comes_twice() -> None:
    label = np.repeat(np.arange(20), 30)
    assert len(fours(label)) <= len(label) + 2 * FOUR


def test_a_majority_class_meets_every_image_of_the_others_about_equally_often() -> None:
    label = np.array([0] * 80 + [1] * 4 + [2] * 4)
    times = np.bincount(fours(label), minlength=len(label))[80:]
    assert times.min() >= times.max() - 2


def test_seed_and_epoch_fix_the_order() -> None:
    label = np.arange(60) % 5
    assert np.array_equal(fours(label, epoch=2), fours(label, epoch=2))
    assert not np.array_equal(fours(label, epoch=2), fours(label, epoch=3))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_rank_gets_whole_fours_of_the_global_batch(world: int) -> None:
    label = np.random.default_rng(2).permutation(np.repeat(np.arange(6), 20))
    order = fours(label)
    for step in range(len(label) // 24):
        parts = [
            rank_rows(order, step=step, global_batch=24, rank=rank, world=world, unit=FOUR)
            for rank in range(world)
        ]
        for part in parts:
            a, b = label[part].reshape(-1, 2, 2).transpose(1, 0, 2)
            assert (a[:, 0] == a[:, 1]).all()
            assert (b[:, 0] == b[:, 1]).all()
            assert (a[:, 0] != b[:, 0]).all()
        assert sorted(np.concatenate(parts)) == sorted(order[step * 24 : (step + 1) * 24])


def test_a_class_whose_images_lie_in_two_shards_is_paired_across_them() -> None:
    label = np.array([0, 1, 1, 2, 2, 0])
    order = fours(label, shards=2)
    assert {0, 5} <= set(order)


def test_no_class_is_always_in_the_part_that_an_epoch_leaves_out() -> None:
    label = np.repeat(np.arange(10), 2)
    seen = [set(label[fours(label, epoch=epoch)[:16]]) for epoch in range(8)]
    assert set.union(*seen) == set(range(10))


def test_splits_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(UserError, match="split 'train' has a single one of 'cat'; pack more"):
        check_classes(np.array([0, 0, 1, 2, 2]), ("dog", "cat", "cow"), split="train")
    with pytest.raises(UserError, match="two classes or more are compared, split 'train' has 1"):
        check_classes(np.array([0, 0]), ("dog", "cat"), split="train")
    check_classes(np.array([0, 0, 2, 2]), ("dog", "cat", "cow"), split="train")
