"""timm's optimizers, and what must hold of them before ZeRO may cut their parameters into slices."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from torch import Tensor, nn

from wsol_dist.config.train import TrainConfig
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.methods.base import Method

_NAMES = """
adabelief adadelta adagrad adam adamax adamc adamw adamwlegacy adan adanw adopt adoptc adoptw laprop lapropc lion
lionc madgrad madgradw momentum nadam nadamc nadamlegacy nadamw nesterov nesterovw radabelief radam radamlegacy
radamw rmsprop rmsproptf rmsproptfc rmsproptfw sgd sgdc sgdw
"""
BY_ELEMENT = frozenset(_NAMES.split())
"""timm's optimizers whose step for an element depends on that element alone: a test tries them all."""
COUNTING = frozenset({"adan", "adanw"})
"""Those of them that count steps in the parameter group."""
PROBE_SIZE = (48, 40)
"""Large enough that optimizers which factor their state do so."""
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
    _check_sliceable(config.optimizer.lower(), zero=config.zero)
    groups = _groups_by_lr(method, config)
    return _create(groups or method, config)


def _check_sliceable(name: str, *, zero: int) -> None:
    """Refuse optimizers whose step for an element depends on the rest of its tensor.

    ZeRO hands an optimizer flat slices that end anywhere: such an optimizer would train differently at every
    stage and every number of ranks, in silence.
    """
    if zero and name not in BY_ELEMENT:
        raise UserError(
            f"train.optimizer: {name} is none of those that step each element by itself, and ZeRO {zero} cuts tensors "
            "into slices; use --train.zero 0, or an optimizer such as adamw, sgd or lion"
        )
    if zero == 3 and name in COUNTING:
        raise UserError(
            f"train.optimizer: {name} counts steps for a group of parameters, which ZeRO 3 breaks; "
            "use --train.zero 2, or an optimizer such as adamw, sgd or lion"
        )


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
