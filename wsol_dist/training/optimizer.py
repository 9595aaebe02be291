"""timm's optimizers, and what must hold of them before ZeRO may cut their parameters into slices."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from torch import Tensor, nn

from wsol_dist.config.train import TrainConfig
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.methods.base import Method

PROBE_SCALES = (1.0, 100.0, 0.01)
"""Of three tensors' weights, so that ratios of norms, clipped or not, differ between the tensors."""
PROBE_SIZE = (48, 40)
"""Large enough that optimizers which factor their state do so."""
PROBE_STEPS = 3
COUNTERS_LEFT_OUT = ("params", "lr")
"""Of a parameter group: what is no state of the optimizer, since the network and the schedule give it."""


def build_optimizer(method: Method, config: TrainConfig) -> torch.optim.Optimizer:
    """timm's optimizer of a name; biases, norms and what the method names are not decayed.

    Raises:
        UserError: timm has no such optimizer, ZeRO would change what it does, or the method has nothing to train.
    """
    if not any(parameter.requires_grad for parameter in method.parameters()):
        raise UserError(
            "method: every parameter is frozen, there is nothing to train; see train_scales and freeze_*"
        )
    known = [str(name) for name in list_optimizers()]
    if config.optimizer.lower() not in known:
        raise UserError(
            f"train.optimizer: given {config.optimizer!r}; {did_you_mean(config.optimizer, known)}"
        )
    if config.zero:
        _check_sliceable(config)
    groups = _groups_by_lr(method, config)
    return _create(groups or method, config)


def _groups_by_lr(method: Method, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameter groups of a method whose parts learn at several rates; none where all learn at one."""
    scales = method.lr_scales()
    if not scales:
        return []
    scale_of = {id(one): scales.get(name, 1.0) for name, one in method.named_parameters()}
    by_decay = param_groups_weight_decay(
        method, config.weight_decay, no_weight_decay_list=method.no_weight_decay()
    )
    found = []
    for group in by_decay:
        for scale in sorted({scale_of[id(one)] for one in group["params"]}):
            own = [one for one in group["params"] if scale_of[id(one)] == scale]
            # timm's schedulers multiply the lr of such a group.
            found.append(group | {"params": own, "lr_scale": scale})
    return found


def counters(group: dict[str, Any], initial: dict[str, Any]) -> dict[str, Any]:
    """What an optimizer keeps in a parameter group besides its knobs: a number or tensor, such as a count of steps."""
    return {
        name: value
        for name, value in group.items()
        if name not in COUNTERS_LEFT_OUT
        and (isinstance(value, Tensor) or (isinstance(value, int | float) and initial.get(name) != value))
    }


def state_per_element(config: TrainConfig) -> float:
    """Numbers that the optimizer keeps for each parameter element: 2 for AdamW, 1 for SGD with momentum."""
    parameter = nn.Parameter(torch.ones(PROBE_SIZE))
    optimizer = _create([parameter], config)
    parameter.grad = torch.ones(PROBE_SIZE)
    optimizer.step()
    kept = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    return sum(value.numel() for value in kept if value.numel() > 1) / parameter.numel()


def _create(target: Any, config: TrainConfig) -> torch.optim.Optimizer:
    try:
        return create_optimizer_v2(
            target,
            opt=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            filter_bias_and_bn=True,
        )
    except (AssertionError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"train.optimizer: {config.optimizer} cannot be used: {reason}; try adamw") from error


def _check_sliceable(config: TrainConfig) -> None:
    """Refuse optimizers whose step for an element depends on the rest of its tensor.

    ZeRO hands an optimizer flat slices that end anywhere: such an optimizer would train differently at every
    stage and every number of ranks, in silence. Trying it is surer than a list of names.
    """
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(PROBE_SIZE, generator=generator) * scale for scale in PROBE_SCALES]
    grads = [
        [_orthogonal(torch.randn(PROBE_SIZE, generator=generator), start) / 10 for start in starts]
        for _ in range(PROBE_STEPS)
    ]
    try:
        whole, group = _tried(starts, grads, config)
        sliced, _ = _tried([_flat(starts)], [[_flat(grad)] for grad in grads], config)
    except RuntimeError as error:
        raise UserError(
            f"train.optimizer: {config.optimizer} needs more than gradients, which training does not give it; "
            "use an optimizer such as adamw, sgd or lion"
        ) from error
    if not torch.allclose(_flat(whole), sliced[0], rtol=1e-4, atol=1e-6):
        raise UserError(
            f"train.optimizer: {config.optimizer} looks at whole tensors, which ZeRO {config.zero} cuts into slices; "
            "use --train.zero 0, or an optimizer such as adamw, sgd or lion"
        )
    if config.zero == 3 and group:
        raise UserError(
            f"train.optimizer: {config.optimizer} counts steps for a group of parameters, which ZeRO 3 breaks; "
            "use --train.zero 2, or an optimizer such as adamw, sgd or lion"
        )


def _tried(
    starts: list[Tensor], grads: list[list[Tensor]], config: TrainConfig
) -> tuple[list[Tensor], dict[str, Any]]:
    """The tensors after a few steps, and what the optimizer counted in its group."""
    parameters = [nn.Parameter(start.clone()) for start in starts]
    optimizer = _create(parameters, config)
    initial = dict(optimizer.param_groups[0])
    for step in grads:
        for parameter, grad in zip(parameters, step, strict=True):
            parameter.grad = grad.clone()
        optimizer.step()
    return [parameter.detach() for parameter in parameters], counters(optimizer.param_groups[0], initial)


def _orthogonal(grad: Tensor, start: Tensor) -> Tensor:
    """Row by row: the case in which some optimizers project the step."""
    along = (grad * start).sum(dim=1, keepdim=True) / start.square().sum(dim=1, keepdim=True)
    return grad - along * start


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
