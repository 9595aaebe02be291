"""Config -> method with weights: the one place where training, evaluation and launch build a network."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from wsol_dist.config import Config
from wsol_dist.engine import checkpoint
from wsol_dist.errors import UserError
from wsol_dist.methods.base import Method
from wsol_dist.models.weights import read_state, without_checkpoints
from wsol_dist.registry import method_class


def build_method(config: Config, *, num_classes: int, read_files: bool = True) -> Method:
    """The recipe's method.

    Args:
        read_files: also read the weight files that the method's own knobs name; not needed where a whole
            checkpoint is loaded next.
    """
    with contextlib.nullcontext() if read_files else without_checkpoints():
        return method_class(config.method_name)(config.method, num_classes)


def initialise(method: Method, config: Config) -> list[str]:
    """Load `train.init` into the method; several are merged, each giving the tensors that it trained.

    Returns:
        A line each on what was loaded and what was left out.
    """
    notes = []
    for name in config.train.init:
        path = weights_file(Path(name))
        check_belongs(path, config.method_name)
        state = read_state(path)
        metadata = checkpoint.weights_metadata(path)
        if len(config.train.init) > 1 and "trained" in metadata:
            state = {key: state[key] for key in json.loads(metadata["trained"])}
        unused = method.load_init(state)
        notes.append(f"starts from {path} ({len(state)} tensors)")
        notes += unused[:5] if len(config.train.init) == 1 else []
    return notes


def weights_file(path: Path) -> Path:
    """The weights of a file, a checkpoint folder, or a run's newest checkpoint.

    Raises:
        UserError: there are none.
    """
    if path.is_file():
        return path
    if (path / checkpoint.WEIGHTS).is_file():
        return path / checkpoint.WEIGHTS
    found = checkpoint.complete_checkpoints(path) if path.is_dir() else []
    if not found:
        raise UserError(f"{path}: neither a weight file nor a run folder with a checkpoint in it")
    return found[-1] / checkpoint.WEIGHTS


def check_belongs(path: Path, method_name: str) -> None:
    """Refuse a checkpoint that another method of ours wrote.

    Raises:
        UserError: the file names another method.
    """
    wrote = checkpoint.weights_metadata(path).get("method")
    if wrote not in (None, method_name):
        raise UserError(f"{path}: a checkpoint of method {wrote!r}, this recipe's is {method_name!r}")
