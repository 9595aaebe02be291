"""Config -> method with weights: the one place where training, evaluation and launch build a network."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.methods.base import Method
from wsol_dist.models.weights import read_state, without_checkpoints
from wsol_dist.recipe import Config
from wsol_dist.registry import method_class
from wsol_dist.runs import checkpoint
from wsol_dist.runs.opening import find_weights


def build_method(
    config: Config, *, num_classes: int, classes: Sequence[str] = (), read_files: bool = True
) -> Method:
    """The recipe's method.

    Args:
        classes: their names, for methods that start from what the names mean; none where that is not asked.
        read_files: also read the weight files that the method's own knobs name; not needed where a whole
            checkpoint is loaded next.
    """
    with contextlib.nullcontext() if read_files else without_checkpoints():
        method = method_class(config.method_name)(config.method, num_classes)
        if classes:
            assert len(classes) == num_classes
            method.take_class_names(classes)
        return method


def initialise(method: Method, config: Config) -> list[str]:
    """Load `train.init` into the method; several are merged, each giving the tensors that it trained.

    Returns:
        A line each on what was loaded and what was left out.
    """
    notes = []
    for name in config.train.init:
        path = find_weights(Path(name), step="last")
        check_belongs(path, config.method_name)
        state = read_state(path)
        metadata = checkpoint.weights_metadata(path)
        if len(config.train.init) > 1 and "trained" in metadata:
            state = {key: state[key] for key in json.loads(metadata["trained"])}
        unused = method.load_init(state)
        notes.append(f"starts from {path} ({len(state)} tensors)")
        notes += unused[:5] if len(config.train.init) == 1 else []
    return notes


def check_classes(path: Path, index: Index, *, cure: str) -> None:
    """Refuse a checkpoint of ours that was trained on other classes than the shards have.

    Args:
        cure: what to do about it.

    Raises:
        UserError: another number of classes, or the first class of another name.
    """
    names = trained_classes(path)
    if names is not None and len(names) != len(index.classes):
        raise UserError(
            f"{path} is for {len(names)} classes, the shards in {index.place} have {len(index.classes)}; {cure}"
        )
    for label, (there, here) in enumerate(zip(names or index.classes, index.classes, strict=True)):
        # A class that is only called by its number has no name to compare.
        if there != here and str(label) not in (there, here):
            raise UserError(
                f"{path}: class {label} is {there!r} there and {here!r} in the shards in {index.place}; {cure}"
            )


def trained_classes(path: Path) -> list[str] | None:
    """The names of the classes that a checkpoint of ours was trained on; None for a foreign file.

    Raises:
        UserError: it says so in a way that this version does not read.
    """
    metadata = checkpoint.weights_metadata(path)
    if "method" not in metadata:  # in a foreign file the other keys mean something else
        return None
    try:
        names = json.loads(metadata["classes"])
    except (KeyError, ValueError):
        names = None
    if not isinstance(names, list):
        raise UserError(f"{path}: damaged: its metadata has no list of classes; give another checkpoint")
    return [str(name) for name in names]


def check_belongs(path: Path, method_name: str) -> None:
    """Refuse a checkpoint that another method of ours wrote.

    Raises:
        UserError: the file names another method.
    """
    wrote = checkpoint.weights_metadata(path).get("method")
    if wrote not in (None, method_name):
        raise UserError(f"{path}: a checkpoint of method {wrote!r}, this recipe's is {method_name!r}")
