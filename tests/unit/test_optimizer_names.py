"""Which of timm's optimizers ZeRO may give slices: the names that are listed are those that a trial finds.

ZeRO hands an optimizer flat slices that end anywhere. Each one is tried on three tensors and on the same numbers in one
flat tensor: where the steps differ, an element's depends on the rest of its tensor.
"""

from __future__ import annotations

import pytest
import torch
from timm.optim import list_optimizers
from torch import Tensor, nn

from wsol_dist.config.train import TrainConfig
from wsol_dist.errors import UserError
from wsol_dist.training.optimizer import BY_ELEMENT, COUNTING, PROBE_SIZE, _create, counters

SCALES = (1.0, 100.0, 0.01)
"""Of three tensors' weights, so that ratios of norms, clipped or not, differ between the tensors."""
STEPS = 3
COMPILED = ("kron", "kronc", "kronw")
"""Those that take seconds to compile; they look at whole tensors."""


def steps(name: str, starts: list[Tensor], grads: list[list[Tensor]]) -> tuple[Tensor, bool]:
    """All numbers after a few steps, and whether the optimizer counted in its group."""
    parameters = [nn.Parameter(start.clone()) for start in starts]
    optimizer = _create(parameters, TrainConfig(optimizer=name))
    initial = dict(optimizer.param_groups[0])
    for step in grads:
        for parameter, grad in zip(parameters, step, strict=True):
            parameter.grad = grad.clone()
        optimizer.step()
    return flat([one.detach() for one in parameters]), bool(counters(optimizer.param_groups[0], initial))


def orthogonal(grad: Tensor, start: Tensor) -> Tensor:
    """Row by row: the case in which some optimizers project the step."""
    along = (grad * start).sum(dim=1, keepdim=True) / start.square().sum(dim=1, keepdim=True)
    return grad - along * start


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.fixture(scope="module")
def numbers() -> tuple[list[Tensor], list[list[Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(PROBE_SIZE, generator=generator) * scale for scale in SCALES]
    grads = [
        [orthogonal(torch.randn(PROBE_SIZE, generator=generator), start) / 10 for start in starts]
        for _ in range(STEPS)
    ]
    return starts, grads


@pytest.mark.parametrize("name", sorted(set(list_optimizers()) - set(COMPILED)))
def test_those_that_step_by_element_are_listed(
    name: str, numbers: tuple[list[Tensor], list[list[Tensor]]]
) -> None:
    starts, grads = numbers
    try:
        whole, counts = steps(name, starts, grads)
        sliced, _ = steps(name, [flat(starts)], [[flat(grad)] for grad in grads])
    except (RuntimeError, UserError):  # it needs more than gradients, or a library that is not here
        assert name not in BY_ELEMENT
        return
    assert torch.allclose(whole, sliced, rtol=1e-4, atol=1e-6) == (name in BY_ELEMENT)
    assert name not in BY_ELEMENT or counts == (name in COUNTING)
