"""What is checked and written before a training starts, on the login node and again on the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsol_dist.atomic import write_atomically
from wsol_dist.config import Config, dump, read_yaml, to_dict
from wsol_dist.data.index import Index
from wsol_dist.errors import UserError, did_you_mean

CONFIG_FILE = "config.yaml"
MAY_CHANGE = (
    "track",
    "evaluate",
    "data.index",
    "data.workers",
    "data.max_bad",
    "train.keep_checkpoints",
    "train.checkpoint_every_epochs",
)
"""What a run may be continued with another value of: it changes no step. The shards' identity is checked apart."""


def check(config: Config, *, world: int) -> Index:
    """Every contradiction between recipe, shards and ranks that can be seen without building the network.

    Raises:
        UserError: what does not fit, and how to mend it.
    """
    data, batch = config.data, config.train.global_batch
    if not data.index:
        raise UserError("data.index: no shards given; pack some (shards/pack.py) and add --data.index FOLDER")
    index = Index.load(data.index)
    if data.num_classes not in (None, len(index.classes)):
        raise UserError(
            f"data.num_classes: the recipe is for {data.num_classes} classes, the shards in {data.index} have "
            f"{len(index.classes)}; choose other shards or set --data.num-classes {len(index.classes)}"
        )
    if data.train_split not in index.splits:
        raise UserError(
            f"data.train_split: no split {data.train_split!r} in {data.index}; "
            f"{did_you_mean(data.train_split, list(index.splits))}"
        )
    share = world * config.train.accumulation
    if batch % share:
        raise UserError(
            f"train.global_batch: {batch} is no multiple of {share} ({world} ranks x accumulation "
            f"{config.train.accumulation}); try --train.global-batch {max(share, batch // share * share)}"
        )
    num_samples = index.splits[data.train_split].num_samples
    if num_samples < batch:
        raise UserError(
            f"train.global_batch: {batch} images a step, but split {data.train_split!r} has only {num_samples}"
        )
    _check_files(config)
    return index


def check_network(config: Config, index: Index) -> None:
    """Build the network, with random weights, and its optimizer: what they refuse is then known before a job waits.

    Raises:
        UserError: an architecture, a size or an optimizer that does not exist or does not fit.
    """
    from wsol_dist.engine.zero import build_optimizer
    from wsol_dist.model import build_method

    method = build_method(config, num_classes=len(index.classes), read_files=False)
    build_optimizer(method, config.train)
    if config.data.resize_px is not None and config.data.resize_px < method.image_px:
        raise UserError(
            f"data.resize_px: given {config.data.resize_px}, but {method.image_px} px are cropped from it; "
            f"give at least {method.image_px}, or leave it out"
        )


def prepare_folder(config: Config, folder: Path) -> None:
    """Store the resolved configuration; one process calls it.

    Raises:
        UserError: the folder holds a run of another configuration, or is no folder.
    """
    stored = folder / CONFIG_FILE
    if stored.is_file():
        differing = list(differences(read_yaml(stored), to_dict(config)))
        if differing:
            raise UserError(
                f"{folder}: holds a run of another configuration ({'; '.join(differing[:5])}); "
                "choose another --out, or remove the folder"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(stored, dump(config).encode())
    except OSError as error:
        raise UserError(
            f"--out {folder}: cannot be written: {error.strerror}; choose another folder"
        ) from error


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys whose values differ and must not, as `key: old -> new`."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if f"{prefix}{key}" in MAY_CHANGE:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before} -> {after}"


def _check_files(config: Config) -> None:
    """Refuse weight files that are not there, or that another method wrote."""
    for name, value in _leaves(to_dict(config)["method"], "method"):
        if name.endswith("checkpoint") and value and not Path(value).is_file():
            raise UserError(f"{name}: there is no file {value}")
    if not config.train.init:
        return
    from wsol_dist.model import check_belongs, weights_file

    for init in config.train.init:
        check_belongs(weights_file(Path(init)), config.method_name)


def _leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value
