"""What the loader does only where there is a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.order import order_alone
from wsol_dist.config.data import DataConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import training_batches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]


def test_training_batches_arrive_in_pinned_memory(tiny_shards: Path) -> None:
    index, data = Index.load(tiny_shards), DataConfig(workers=2)
    order = order_alone(index, data, global_batch=12, last_step=30)
    batches = list(training_batches(index, data, order=order, image_px=24))
    assert len(batches) == 30
    assert all(batch.image_BCHW.is_pinned() and batch.label_B.is_pinned() for batch in batches)
