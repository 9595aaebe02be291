"""The lr falls at the first step of a milestone's epoch, epochs counted from 1."""

import pytest
import torch

from wsol_dist.config.train import TrainConfig
from wsol_dist.training.schedule import build_schedule


def lrs(config: TrainConfig, *, steps_per_epoch: int, num_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.lr)
    schedule = build_schedule(config, optimizer, steps_per_epoch=steps_per_epoch)
    found = []
    for step in range(num_steps):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_multistep() -> None:
    config = TrainConfig(lr=1.0, epochs=5, schedule="multistep", milestones=(3, 5), gamma=0.1)
    found = lrs(config, steps_per_epoch=4, num_steps=20)
    assert found == pytest.approx([1.0] * 8 + [0.1] * 8 + [0.01] * 4)


def test_cosine_with_warmup() -> None:
    config = TrainConfig(lr=1.0, epochs=5, schedule="cosine", warmup_epochs=1)
    found = lrs(config, steps_per_epoch=4, num_steps=20)
    assert found[:4] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert max(found) <= 1
    assert found[19] < 0.02
    assert found[4:] == sorted(found[4:], reverse=True)


def test_constant() -> None:
    assert lrs(TrainConfig(lr=0.3, schedule="constant"), steps_per_epoch=2, num_steps=6) == [0.3] * 6
