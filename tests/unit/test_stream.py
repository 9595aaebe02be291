"""Index -> batches: the same samples whatever the ranks, the workers and the interruptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.damage import break_image
from wsol_dist.config.data import DataConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import TrainingOrder, evaluation_batches, training_batches


def order(
    index: Index, *, rank: int = 0, world: int = 1, first: int = 0, last: int = 14, accumulation: int = 1
) -> TrainingOrder:
    return TrainingOrder(
        shard_of_row=index.rows("train").shard,
        data=DataConfig(lanes=4, window=8),
        seed=5,
        global_batch=12,
        accumulation=accumulation,
        rank=rank,
        world=world,
        first_step=first,
        last_step=last,
    )


def test_ids_before_and_after_an_interruption_equal_the_uninterrupted_list(tiny_shards: Path) -> None:
    index = Index.load(tiny_shards)
    whole = list(order(index))
    assert list(order(index, last=5)) + list(order(index, first=5)) == whole
    # 14 steps of 12 from 96 images are 8 steps an epoch: every image once in the first epoch
    assert sorted(row for batch in whole[:8] for _, row in batch) == list(range(96))
    assert {epoch for batch in whole for epoch, _ in batch} == {0, 1}


@pytest.mark.parametrize("world", [2, 3, 4])
def test_a_global_step_is_the_same_at_any_world_size(tiny_shards: Path, world: int) -> None:
    index = Index.load(tiny_shards)
    parts = [list(order(index, rank=rank, world=world)) for rank in range(world)]
    for step, batch in enumerate(order(index)):
        assert sorted(batch) == sorted(row for part in parts for row in part[step])


def test_micro_batches_split_a_step(tiny_shards: Path) -> None:
    index = Index.load(tiny_shards)
    micro = list(order(index, accumulation=3))
    assert [micro[0] + micro[1] + micro[2]] == list(order(index, last=1))


def test_pixels_do_not_depend_on_workers_or_start(tiny_shards: Path) -> None:
    index = Index.load(tiny_shards)
    batches = {}
    for workers, first in ((0, 0), (2, 0), (0, 2)):
        data = DataConfig(workers=workers)
        loader = training_batches(index, data, order=order(index, first=first, last=4), image_px=24)
        batches[workers, first] = [batch.image_BCHW for batch in loader]
    assert len(batches[0, 0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(batches[0, 0], batches[2, 0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(batches[0, 0][2:], batches[0, 2], strict=True))


def test_a_batch_stays_as_it_was_while_later_ones_arrive(tiny_shards: Path) -> None:
    index = Index.load(tiny_shards)
    data = DataConfig(workers=1)
    alone = list(training_batches(index, DataConfig(workers=0), order=order(index, last=40), image_px=24))
    kept = list(training_batches(index, data, order=order(index, last=40), image_px=24))
    passing = [
        (batch.image_BCHW.clone(), batch.label_B)
        for batch in training_batches(index, data, order=order(index, last=40), image_px=24)
    ]
    assert len(alone) == len(kept) == len(passing) == 40  # more than the loader has slots
    for wanted, held, (image_BCHW, label_B) in zip(alone, kept, passing, strict=True):
        assert torch.equal(held.image_BCHW, wanted.image_BCHW)
        assert torch.equal(image_BCHW, wanted.image_BCHW)
        assert torch.equal(held.label_B, wanted.label_B)
        assert torch.equal(label_B, wanted.label_B)


def evaluated(folder: Path, *, world: int, workers: int = 0, batch_size: int = 7) -> list[list[str]]:
    ids = []
    for rank in range(world):
        batches = list(
            evaluation_batches(
                Index.load(folder),
                split="test",
                rank=rank,
                world=world,
                batch_size=batch_size,
                workers=workers,
                image_px=32,
            )
        )
        ids.append(
            [t.id for b in batches for t, valid in zip(b.truths, b.valid_B.tolist(), strict=True) if valid]
        )
    return ids


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 2), (3, 0), (4, 1), (50, 0)])
def test_evaluation_sees_every_image_once(tiny_shards: Path, world: int, workers: int) -> None:
    seen = evaluated(tiny_shards, world=world, workers=workers)
    expected = Index.load(tiny_shards).rows("test").ids.to_pylist()
    assert sorted(one for ids in seen for one in ids) == sorted(expected)


def test_a_broken_image_is_a_named_miss_in_evaluation(own_shards: Path) -> None:
    broken = break_image(own_shards, "test")
    batches = evaluation_batches(
        Index.load(own_shards), split="test", rank=0, world=1, batch_size=16, workers=0, image_px=32
    )
    decoded = {t.id: d for b in batches for t, d in zip(b.truths, b.decoded_B.tolist(), strict=True)}
    assert len(decoded) == 40
    assert [one for one, fine in decoded.items() if not fine] == [broken]


def test_a_broken_image_is_named_and_replaced_in_training(own_shards: Path) -> None:
    broken = break_image(own_shards, "train")
    index = Index.load(own_shards)
    batches = list(training_batches(index, DataConfig(workers=0), order=order(index, last=8), image_px=24))
    assert [one for batch in batches for one in batch.broken] == [broken]
    assert {len(batch.label_B) for batch in batches} == {12}
    labels = np.concatenate([batch.label_B.numpy() for batch in batches])
    assert len(labels) == 96
