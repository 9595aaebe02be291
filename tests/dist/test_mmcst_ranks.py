"""The contrast over the global batch does not depend on the world size, and no rank holds all of its logits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from tests.dist.runs import BACKBONE, alone, losses, train
from tests.pool import RankPool
from tests.unit.test_multi_label import pack
from wsol_dist.methods.mmcst.context_loss import contrastive_loss
from wsol_dist.methods.mmcst.network import MMCST
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import from_dict

NUM_CLASSES, BATCH, DIM = 5, 8, 7


def whole_loss(ranks: Ranks, both_ways: bool) -> tuple[float, dict[str, list[float]]]:
    """Loss and gradients of MMCST with the contrast, averaged over the ranks."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        MMCST.tiny_config(), context_target="image", context_dim=DIM, contrast_both_ways=both_ways
    )
    method = MMCST(config, NUM_CLASSES).train()
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(BATCH, 3, method.image_px, method.image_px, generator=generator)
    label = (torch.rand(BATCH, NUM_CLASSES, generator=generator) < 0.5).float()
    label[:, 0] = 1
    target = torch.randn(BATCH, DIM, generator=generator)
    own = slice(ranks.rank, None, ranks.world)
    loss = method(image[own], label[own], target[own])["loss"]
    loss.backward()
    gradients = {
        name: ranks.mean(p.grad.flatten()[:5].tolist())
        for name, p in method.named_parameters()
        if p.grad is not None
    }
    return ranks.mean([loss.item()])[0], gradients


@pytest.fixture(params=["rank_pool", pytest.param("four_ranks", marks=pytest.mark.slow)])
def pool(request: pytest.FixtureRequest) -> RankPool:
    """Of each size."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("both_ways", [True, False])
def test_loss_and_gradient_of_a_global_batch_with_contrast(pool: RankPool, both_ways: bool) -> None:
    alone_loss, alone = whole_loss(Ranks(), both_ways)
    assert len(alone) > 20
    for loss, gradients in pool.run(whole_loss, both_ways):
        assert loss == pytest.approx(alone_loss, abs=1e-5)
        assert gradients.keys() == alone.keys()
        for name, values in gradients.items():
            assert values == pytest.approx(alone[name], abs=2e-5), name


def test_a_training_run_with_the_text_of_a_few_classes(
    rank_pool: RankPool, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    shards = pack(tmp_path_factory.mktemp("multi") / "shards")
    backbone = BACKBONE | {"drop_path": 0.0}
    config = from_dict(
        {
            "name": "few",
            "method": {"name": "mmcst", "image_px": 32, "backbone": backbone, "text_top": 3},
            "data": {"index": str(shards), "workers": 0},
            "train": {"epochs": 2, "global_batch": 8, "lr": 3e-3, "schedule": "constant"},
            "track": {"wandb": "off", "log_every_steps": 1},
        },
        origin="test",
    )
    train(alone(), config, tmp_path / "one")
    rank_pool.run(train, config, tmp_path / "two")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one == pytest.approx(two, abs=1e-4)
    assert one[len(one)] < one[1]
    rows = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    found = [row["train/text_found"] for row in rows]
    assert all(0 <= value <= 1 for value in found)
    assert 0 < sum(found) < len(found)


class Sizes(TorchFunctionMode):
    """The largest tensor that any function gave back."""

    largest = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **kwargs or {})
        if isinstance(found, torch.Tensor):
            self.largest = max(self.largest, found.numel())
        return found


def largest_tensor(ranks: Ranks, batch: int) -> tuple[int, int]:
    generator = torch.Generator().manual_seed(ranks.rank)
    local = batch // ranks.world
    context, target = (F.normalize(torch.randn(local, 4, generator=generator), dim=1) for _ in range(2))
    with Sizes() as sizes:
        contrastive_loss(context, target, temperature=0.07)
    return sizes.largest, local


def test_a_rank_holds_only_its_own_rows_of_the_similarities(pool: RankPool) -> None:
    for largest, local in pool.run(largest_tensor, 64):
        assert local < 64
        assert largest == local * 64
