"""What is checked and written before a training starts, on the login node and again on the ranks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.label_maps import LabelMaps
from wsol_dist.data.stream.order import micro_batch
from wsol_dist.data.stream.pairs import FOUR
from wsol_dist.data.stream.pairs import check_classes as check_pairs
from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.files import write_atomically
from wsol_dist.methods.config import GivenData
from wsol_dist.recipe import Config, dump, read_yaml, to_dict
from wsol_dist.runs.checkpoint import complete_checkpoints
from wsol_dist.runs.lock import RunLock
from wsol_dist.runs.run_state import CONFIG_FILE

MAY_CHANGE = (
    "track",
    "evaluate",
    "val",
    "data.index",
    "data.workers",
    "data.max_bad",
    "train.keep_checkpoints",
    "train.node_check",
    "train.hang_timeout_s",
    "train.max_requeues",
    "train.checkpoint_every_epochs",
    "train.accumulation",
    "train.zero",
    "train.compile",
)
"""What a run may be continued with another value of: it changes no step, or only its rounding and what a micro-batch
sees (batch norm, dropout). The number of ranks may change too. The shards' identity is checked apart."""


def check(config: Config, *, world: int, folder: Path) -> Index:
    """Every contradiction between recipe, shards and ranks that can be seen without building the network.

    Args:
        folder: of the run; one that has a checkpoint needs the weight files it started from no more.

    Raises:
        UserError: what does not fit, and how to mend it.
    """
    data = config.data
    if not data.index:
        raise UserError("data.index: no shards given; pack some (shards/pack.py) and add --data.index FOLDER")
    index = Index.load(data.index)
    if data.num_classes not in (None, len(index.classes)):
        raise UserError(
            f"data.num_classes: the recipe is for {data.num_classes} classes, the shards in {data.index} have "
            f"{len(index.classes)}; choose other shards or set --data.num-classes {len(index.classes)}"
        )
    _check_splits(config, index)
    problem = config.method.recipe_problem(order=data.order, num_before=len(config.before))
    if problem is not None:
        raise UserError(problem)
    check_data(config, index)
    _check_batch(config, index, world=world)
    if not complete_checkpoints(folder):
        _check_files(config, index)
    return index


def _check_splits(config: Config, index: Index) -> None:
    """Refuse splits to train on and to score in training that there are not."""
    index.check_splits([config.data.train_split], option="data.train_split")
    if config.val.every_epochs and config.val.split not in index.splits:
        raise UserError(
            f"val.split: no split {config.val.split!r} in {config.data.index} to score in training "
            f"(val.every_epochs); {did_you_mean(config.val.split, list(index.splits))}; hold one out of train when "
            "packing (shards/pack.py ... --val-fraction 0.1), or set --val.every-epochs 0"
        )


def _check_batch(config: Config, index: Index, *, world: int) -> None:
    """Refuse a global batch that the ranks cannot share, or that the split cannot fill."""
    split, batch, unit = config.data.train_split, config.train.global_batch, 1
    if config.data.order == "class_pairs":
        unit = FOUR
        check_pairs(index.rows(split).label, index.classes, split=split)
    micro_batch(batch, world=world, accumulation=config.train.accumulation, unit=unit)
    num_samples = index.splits[split].num_samples
    if num_samples < batch:
        raise UserError(
            f"train.global_batch: {batch} images a step, but split {split!r} has only {num_samples}"
        )


def check_data(config: Config, index: Index) -> None:
    """What of labels, class names, embeddings and label maps does not go with the method.

    Raises:
        UserError: several labels an image for a method of one, an image without any, embeddings or label maps that are
            not wanted, not there, or of something else.
    """
    data, method = config.data, config.method
    if index.multi_label:
        if not method.takes_multi_label:
            raise UserError(
                f"method.name: {config.method_name!r} learns from one label an image, images in {data.index} have "
                "several; choose another method, or shards with one label an image"
            )
        rows = index.rows(data.train_split)
        if (rows.label < 0).any():
            first = rows.ids[int((rows.label < 0).argmax())].as_py()
            raise UserError(f"{data.index}: {first} has no label at all; pack without such images")
    embedded, dim = None, None
    if data.embeddings:
        about = Column.open(Path(data.embeddings), index).about
        embedded, dim = about.settings.get("embedded"), about.settings.get("dim")
        if embedded is None or data.train_split not in about.splits:
            raise UserError(
                f"data.embeddings: {data.embeddings} is a column of {about.name!r} of {', '.join(about.splits)}; "
                f"wanted are embeddings of {data.train_split!r}, made by `wsol embed`"
            )
    _check_targets(config, index)
    given = GivenData(
        classes=tuple(index.classes), multi_label=index.multi_label, embedded=embedded, embedding_dim=dim
    )
    problem = method.data_problem(given)
    if problem is not None:
        raise UserError(problem)


def _check_targets(config: Config, index: Index) -> None:
    """Refuse label maps that are missing, not wanted, or not those of the split that is trained on."""
    targets, wanted = config.data.targets, config.method.takes_targets
    if wanted and not targets:
        raise UserError(
            f"data.targets: {config.method_name!r} learns from label maps, none are given; make some (wsol "
            "pseudo-label RUN --out LABELS) and name their folder"
        )
    if targets and not wanted:
        raise UserError(f"data.targets: {config.method_name!r} has no use for label maps; leave it out")
    if targets:
        try:
            LabelMaps.open(targets, index, config.data.train_split)
        except UserError as error:
            raise UserError(f"data.targets: {error}") from error


def check_network(config: Config, index: Index) -> None:
    """Build the network, with random weights, and its optimizer: what they refuse is then known before a job waits.

    Raises:
        UserError: an architecture, a size or an optimizer that does not exist or does not fit.
    """
    from wsol_dist.runs.model import build_method
    from wsol_dist.training.optimizer import build_optimizer

    method = build_method(config, num_classes=len(index.classes), read_files=False)
    build_optimizer(method, config.train)
    if config.data.resize_px is not None and config.data.resize_px < method.image_px:
        raise UserError(
            f"data.resize_px: given {config.data.resize_px}, but {method.image_px} px are cropped from it; "
            f"give at least {method.image_px}, or leave it out"
        )


def prepare_folder(config: Config, folder: Path, *, lock: RunLock | None = None) -> None:
    """Store the resolved configuration; one process calls it.

    Args:
        lock: taken before anything is changed, by a process that is going to train.

    Raises:
        UserError: the folder holds a run of another configuration, or is no folder; another training has the lock.
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
        if lock is not None:
            lock.take(folder)
        write_atomically(stored, dump(config).encode())
    except OSError as error:
        raise UserError(
            f"--out {folder}: cannot be written: {error.strerror}; choose another folder"
        ) from error


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys whose values differ and must not, as `key: old -> new`."""
    for key in sorted(old.keys() | new.keys()):
        before, after = _numbered(old.get(key)), _numbered(new.get(key))
        if re.sub(r"^before\.\d+\.", "", f"{prefix}{key}") in MAY_CHANGE:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before} -> {after}"


def _numbered(value: Any) -> Any:
    """A list of mappings (`before`) as a mapping by number, so that its keys are compared one by one."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return {str(number): one for number, one in enumerate(value)}
    return value


def _check_files(config: Config, index: Index) -> None:
    """Refuse weight files that are not there, that are needed and not named, or that belong to something else."""
    for name, value in _leaves(to_dict(config)["method"], "method"):
        if name.endswith("checkpoint") and value and not Path(value).is_file():
            raise UserError(f"{name}: there is no file {value}")
    from wsol_dist.runs.model import check_belongs, check_classes
    from wsol_dist.runs.opening import find_weights

    for file in config.method.classifier_files():
        check_classes(
            Path(file), index, cure="give weights of the same classes, or other shards as --data.index"
        )
    if not config.train.init:
        return _check_stems(to_dict(config)["method"], "method")
    for init in config.train.init:
        path = find_weights(Path(init), step="last")
        check_belongs(path, config.method_name)
        check_classes(path, index, cure="give weights of the same classes, or other shards as --data.index")


def _check_stems(tree: dict[str, Any], where: str) -> None:
    """Refuse a CNN stem with random weights that cannot become better: frozen, or with its batch norms held."""
    for key, value in tree.items():
        if isinstance(value, dict):
            _check_stems(value, f"{where}.{key}")
    if tree.get("stem") in (None, "conv") or tree.get("stem_checkpoint"):
        return
    for knob in ("freeze_stem", "stem_bn_eval"):
        if tree.get(knob):
            raise UserError(
                f"{where}.stem_checkpoint: not given, and {knob} keeps the random weights of stem {tree['stem']!r} as "
                f"they are; add --{where.replace('_', '-')}.stem-checkpoint FILE (weights of timm's {tree['stem']})"
            )


def _leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value
