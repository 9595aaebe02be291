"""Reading weight files, and putting them into networks with an error that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wsol_dist.errors import UserError
from wsol_dist.models.mxnet_file import read_params

State = dict[str, Tensor]
_reading: ContextVar[bool] = ContextVar("reading", default=True)


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Build networks without reading the weight files that their configs name.

    For a run that is resumed or evaluated: its own checkpoint holds every weight, and the files it started
    from need not exist any more.
    """
    token = _reading.set(False)
    try:
        yield
    finally:
        _reading.reset(token)


def wanted(path: str | None) -> bool:
    """Whether the file is to be read now."""
    return path is not None and _reading.get()


def downloads_wanted(pretrained: bool) -> bool:
    """Whether weights are to be downloaded now."""
    return pretrained and _reading.get()


def texts_wanted() -> bool:
    """Whether embeddings of class names are to be read or made now; a checkpoint holds what became of them."""
    return _reading.get()


def read_state(path: str | Path) -> State:
    """Tensors by name from a .safetensors, .pth or .pt file, or MXNet's .params; no code in the file is run.

    Raises:
        UserError: no such file, another format, or a pickle that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".params":
            return read_params(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the safe unpickler trips over foreign bytes with any error there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"checkpoint {path}: not a readable weight file ({reason}); give .safetensors or .pth"
        ) from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"checkpoint {path}: holds no state dict (names -> tensors)")
    return state


def load_checked(module: nn.Module, state: State, *, source: str, partial: bool = False) -> None:
    """Load a state dict; every tensor of it must be used.

    Args:
        source: what to call it in an error.
        partial: allow tensors of the module that the state lacks.

    Raises:
        UserError: missing or unexpected names, or another shape; the first of each is named.
    """
    own = module.state_dict()
    problems = []
    if (missing := [name for name in own if name not in state]) and not partial:
        problems.append(f"{len(missing)} tensors missing, first {missing[0]!r}")
    if unexpected := [name for name in state if name not in own]:
        problems.append(f"{len(unexpected)} tensors unknown to the network, first {unexpected[0]!r}")
    problems += shape_problems(own, state)
    if problems:
        raise UserError(f"{source}: does not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(state, strict=False)


def shape_problems(own: State, state: State) -> list[str]:
    """The first tensor that has another shape in the file, as a list of at most one line."""
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            return [
                f"{name!r} is {tuple(tensor.shape)} in the file and {tuple(own[name].shape)} in the network"
            ]
    return []
