"""Checkpoints: folders `step-00001234` that are whole or absent.

A checkpoint holds `model.safetensors` (the weights in training), `ema.safetensors` (their average, where the recipe
has one), `optimizer/` (its state, in slices by parameter name), `state.json` (step and position in the data) and
`config.yaml`. None of it is code or a pickle, and none of it depends on the number of ranks or the ZeRO stage.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from wsol_dist.errors import UserError
from wsol_dist.runs.run_state import CONFIG_FILE, kept_steps

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "checkpoints"
WEIGHTS = "model.safetensors"
EMA_WEIGHTS = "ema.safetensors"
OPTIMIZER = "optimizer"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """Where training stands."""

    step: int
    """Optimizer steps done."""
    position: int
    """Samples consumed since the start, over all ranks; it stands for order and random numbers too."""
    world: int
    """Ranks that wrote it."""
    index_sha256: str
    """Of the shards' index: a run goes on with the very data that it started with."""
    unlogged_steps: int = 0
    """Steps since the last log row, of a training that was stopped between two."""
    unlogged_losses: list[dict[str, float]] = field(default_factory=list)
    """Each rank's losses by name, summed over those steps: the next row is their mean too."""


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps lies."""
    return run / FOLDER / f"step-{step:08d}"


def complete_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints, oldest first. A folder gets its name only when everything in it is written."""
    return sorted(filter(is_checkpoint, (run / FOLDER).glob("step-*")), key=step_of)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is called as a checkpoint."""
    return _NAME.fullmatch(path.name) is not None


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint folder's name."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])


def evaluated_weights(checkpoint: Path) -> Path:
    """What evaluation, and a run that starts from this one, read: the average of the weights where there is one."""
    averaged = checkpoint / EMA_WEIGHTS
    return averaged if averaged.is_file() else checkpoint / WEIGHTS


def begin(run: Path, step: int) -> Path:
    """An empty folder to write a checkpoint into; rank 0 calls it, before a barrier."""
    unfinished = step_folder(run, step).with_name(f".unfinished-{step:08d}")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / OPTIMIZER).mkdir(parents=True)
    return unfinished


def unfinished_folder(run: Path, step: int) -> Path:
    """The folder that `begin` made, for the other ranks."""
    return step_folder(run, step).with_name(f".unfinished-{step:08d}")


def sweep(run: Path) -> None:
    """Remove what writers left that were killed; nobody else may be writing checkpoints of this run."""
    for pattern in (".unfinished-*", ".removed-*"):
        for path in (run / FOLDER).glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def writing(run: Path, step: int) -> Iterator[None]:
    """Around everything that writes a checkpoint: where the disk does not take it, its space is given back.

    Raises:
        UserError: it cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished_folder(run, step), ignore_errors=True)
        whole = complete_checkpoints(run)[-1:]
        kept = f"the last whole one is {whole[0].name}" if whole else "there is none yet"
        raise UserError(
            f"{step_folder(run, step)}: this checkpoint cannot be written ({str(error).splitlines()[0]}); {kept}; "
            "free space there, and the same command goes on"
        ) from error


def finish(
    run: Path,
    state: TrainState,
    weights: dict[str, Tensor],
    *,
    config_yaml: str,
    metadata: dict[str, str],
    ema: dict[str, Tensor] | None = None,
) -> Path:
    """Complete and name a checkpoint; rank 0 calls it after every rank wrote its part and called `sync`."""
    unfinished, final = unfinished_folder(run, state.step), step_folder(run, state.step)
    (unfinished / "state.json").write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
    (unfinished / CONFIG_FILE).write_text(config_yaml, encoding="utf-8")
    save_weights(unfinished / WEIGHTS, weights, metadata=metadata)
    if ema is not None:
        save_weights(unfinished / EMA_WEIGHTS, ema, metadata=metadata)
    for path in unfinished.iterdir():
        sync(path)
    sync(unfinished / OPTIMIZER)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(unfinished, final)
    sync(final.parent)
    return final


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, the best, and those that another job reads."""
    for path in complete_checkpoints(run)[:-keep]:
        # Asked before each, as removing one takes a while: a job may have begun to read the next.
        if step_of(path) in kept_steps(run):
            continue
        # Renamed first: a deletion that is cut off must not leave half a checkpoint under a whole one's name.
        doomed = path.with_name(f".removed-{path.name}")
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def read_state(checkpoint: Path) -> TrainState:
    """Step and position of a checkpoint."""
    return TrainState(**json.loads((checkpoint / "state.json").read_text(encoding="utf-8")))


def save_weights(path: Path, weights: dict[str, Tensor], *, metadata: dict[str, str]) -> None:
    """A state dict as safetensors, with what it belongs to in the metadata."""
    from safetensors.torch import save_file  # brings torch

    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}, path, metadata
    )


def weights_metadata(path: Path) -> dict[str, str]:
    """What a .safetensors file says it belongs to (`method`, `classes`, `trained`); empty for foreign files."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        return {}


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; for a file, where it was written."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
