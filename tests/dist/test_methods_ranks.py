"""The contract of every method over ranks: the loss of a global batch does not depend on the world size."""

from __future__ import annotations

import pytest
import torch

from tests.pool import RankPool
from wsol_dist.methods.base import Method
from wsol_dist.processes.ranks import Ranks
from wsol_dist.registry import METHODS, method_class

NUM_CLASSES, BATCH = 5, 8


def build(name: str) -> Method:
    torch.manual_seed(0)
    kind = method_class(name)
    return kind(kind.tiny_config(), NUM_CLASSES)


def loss_of_share(ranks: Ranks, name: str) -> tuple[float, list[float]]:
    """This rank's images through the method in training mode: loss and gradient norms, averaged over the ranks."""
    method = build(name)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(BATCH, 3, method.image_px, method.image_px, generator=generator)
    label = torch.arange(BATCH) % NUM_CLASSES
    given = [image, label]
    if method.tiny_config().takes_targets:
        # Unequal numbers of unknown pixels: the mean over known ones must be that of all ranks.
        target = torch.randint(0, NUM_CLASSES + 1, (BATCH, 64, 64), generator=generator, dtype=torch.uint8)
        target[0, :50], target[2] = 255, 255
        given.append(target)
    own = slice(ranks.rank, None, ranks.world)
    method.train()
    loss = method(*(one[own] for one in given))["loss"]
    loss.backward()
    gradients = [p.grad.flatten()[0].item() for p in method.parameters() if p.grad is not None]
    return ranks.mean([loss.item()])[0], ranks.mean(gradients)


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradient_of_a_global_batch(rank_pool: RankPool, name: str) -> None:
    alone_loss, alone_gradients = loss_of_share(Ranks(), name)
    for loss, gradients in rank_pool.run(loss_of_share, name):
        assert loss == pytest.approx(alone_loss, abs=1e-5)
        assert gradients == pytest.approx(alone_gradients, abs=1e-5)
