"""The order in which one process trains, from the first step on."""

from __future__ import annotations

from wsol_dist.config.data import DataConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.order import TrainingOrder


def order_alone(
    index: Index, data: DataConfig, *, global_batch: int, last_step: int, seed: int = 0
) -> TrainingOrder:
    """Of the train split, in whole batches."""
    return TrainingOrder(
        shard_of_row=index.rows("train").shard,
        data=data,
        seed=seed,
        global_batch=global_batch,
        accumulation=1,
        rank=0,
        world=1,
        first_step=0,
        last_step=last_step,
    )
