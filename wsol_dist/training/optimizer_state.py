"""The optimizer's state by parameter name, as safetensors: a run goes on at any number of ranks and any ZeRO stage.

Each rank writes the slices that it holds, without talking to the others; a reader takes what it needs of all files.
Keys are `parameter/state/start` for the elements from `start` on of a flattened tensor, and `parameter/state` for
what has another shape than the parameter (a step count); `group N` stands for a parameter group.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wsol_dist.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive elements of a parameter inside a `Part`."""

    name: str
    """Of the parameter."""
    start: int
    """Number of the first element in the flattened parameter."""
    offset: int
    """Number of the first element in the part."""
    numel: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One tensor that this rank's optimizer steps, and the parameters it consists of."""

    tensor: Tensor
    pieces: tuple[Piece, ...]


def write(
    folder: Path,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Part],
    *,
    counters: Sequence[dict[str, Any]],
    rank: int,
    world: int,
) -> Path:
    """Write what this rank holds.

    Args:
        counters: what the optimizer counts in each parameter group; equal on all ranks.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}

    def keep(key: str, value: Any) -> None:
        if isinstance(value, Tensor):
            tensors[key] = value.cpu().clone()
        else:
            numbers[key] = value

    for index, counted in enumerate(counters):
        for state, value in counted.items():
            keep(f"group {index}/{state}", value)
    for part in parts:
        for state, value in optimizer.state.get(part.tensor, {}).items():
            for piece in part.pieces:
                key = f"{piece.name}/{state}"
                if isinstance(value, Tensor) and value.ndim and value.shape == part.tensor.shape:
                    own = value.flatten()[piece.offset : piece.offset + piece.numel]
                    keep(f"{key}/{piece.start}", own)
                else:
                    keep(key, value)
    path = folder / f"{rank:05d}-of-{world:05d}.safetensors"
    save_file(tensors, path, {"numbers": json.dumps(numbers)})
    return path


def read(folder: Path, optimizer: torch.optim.Optimizer, parts: Sequence[Part], *, world: int) -> None:
    """Put what any number of ranks wrote into an optimizer that has not stepped yet.

    Args:
        world: how many ranks wrote it.

    Raises:
        UserError: a file or a slice is missing, or a file is damaged.
    """
    paths = [folder / f"{rank:05d}-of-{world:05d}.safetensors" for rank in range(world)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is missing; continue from another checkpoint, or start anew")
    with ExitStack() as opened:
        try:
            files = [opened.enter_context(safe_open(path, framework="pt")) for path in paths]
            stored = _Stored(files, folder)
            for part in parts:
                if state := stored.state_of(part):
                    optimizer.state[part.tensor] = state
            for index, group in enumerate(optimizer.param_groups):
                group.update(stored.counters(index))
        except SafetensorError as error:
            raise UserError(
                f"{folder}: damaged ({error}); continue from another checkpoint, or start anew"
            ) from error


class _Stored:
    """All ranks' files as one."""

    def __init__(self, files: list[Any], folder: Path) -> None:
        self.folder = folder
        self.slices: dict[tuple[str, str], list[tuple[int, Any, str]]] = defaultdict(list)
        self.wholes: dict[tuple[str, str], tuple[Any, str]] = {}
        self.numbers: dict[tuple[str, str], float] = {}
        for file in files:
            for key, number in json.loads(file.metadata()["numbers"]).items():
                name, state = key.split("/")
                self.numbers[name, state] = number
            for key in list(file.keys()):
                name, state, *start = key.split("/")
                if start:
                    self.slices[name, state].append((int(start[0]), file, key))
                else:
                    self.wholes[name, state] = file, key
        self.states = sorted({state for _, state in [*self.slices, *self.wholes, *self.numbers]})
        self.sliced = {state for _, state in self.slices}

    def state_of(self, part: Part) -> dict[str, Any]:
        """The optimizer's dictionary for one of its tensors."""
        names = [piece.name for piece in part.pieces]
        found: dict[str, Any] = {}
        for state in self.states:
            known = [name for name in names if any((name, state) in kind for kind in self._kinds())]
            if not known:
                continue
            if state in self.sliced:
                found[state] = self._assembled(part, state)
            else:
                value = self._whole(known[0], state)
                on_device = isinstance(value, Tensor) and value.ndim  # a count stays on the CPU
                found[state] = value.to(part.tensor.device) if on_device else value
        return found

    def counters(self, index: int) -> dict[str, Any]:
        """What the optimizer counted in a parameter group."""
        name = f"group {index}"
        keys = [key for key in [*self.wholes, *self.numbers] if key[0] == name]
        return {state: self._whole(name, state) for _, state in keys}

    def _whole(self, name: str, state: str) -> Any:
        if (name, state) in self.numbers:
            return self.numbers[name, state]
        file, key = self.wholes[name, state]
        return file.get_tensor(key)

    def _kinds(self) -> tuple[dict[tuple[str, str], Any], ...]:
        return self.slices, self.wholes, self.numbers

    def _assembled(self, part: Part, state: str) -> Tensor:
        value: Tensor | None = None
        for piece in part.pieces:
            own = self._piece(piece, state)
            if value is None:  # what pads a part to its length stays 0
                value = torch.zeros(part.tensor.numel(), dtype=own.dtype)
            value[piece.offset : piece.offset + piece.numel] = own
        assert value is not None
        return value.view(part.tensor.shape).to(part.tensor.device)

    def _piece(self, piece: Piece, state: str) -> Tensor:
        end, taken = piece.start + piece.numel, []
        for start, file, key in sorted(self.slices[piece.name, state], key=lambda one: one[0]):
            stored = file.get_slice(key)
            low, high = max(piece.start, start), min(end, start + stored.get_shape()[0])
            if low < high:
                taken.append(stored[low - start : high - start])
        if (piece.name, state) in self.wholes:  # a parameter without dimensions
            taken.append(self._whole(piece.name, state).flatten())
        if sum(len(values) for values in taken) != piece.numel:
            raise UserError(
                f"{self.folder}: {state} of {piece.name} is not there whole; "
                "continue from another checkpoint, or start anew"
            )
        return torch.cat(taken)
