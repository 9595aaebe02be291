"""A path -> a trained model that is checked and ready to be built: a run folder, or a folder of `wsol export`.

Neither may run code: weights are safetensors, configurations plain YAML and JSON. A model folder's files are held
against its SHA256SUMS.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.evaluator import record
from wsol_dist.evaluator.identity import Identity, curve_knobs, sha256_of
from wsol_dist.methods.base import Method
from wsol_dist.metrics.threshold import Threshold, fixed
from wsol_dist.models.weights import load_checked, read_state
from wsol_dist.recipe import Config, from_dict, read_yaml, to_dict
from wsol_dist.regions.boxes import level_of
from wsol_dist.runs import checkpoint
from wsol_dist.runs.model import build_method, check_belongs, trained_classes
from wsol_dist.runs.run_state import BEST_FILE, read_best

CONFIG_FILE, MODEL_FILE, SUMS_FILE = "config.yaml", "model.json", "SHA256SUMS"
"""Of a model folder, beside `model.safetensors`."""
MODEL_SCHEMA = 1
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A trained model, checked, its weights not read yet; picklable."""

    path: Path
    """The run or model folder."""
    config: Config
    """Without the runs before it."""
    classes: tuple[str, ...]
    weights: Path
    weights_sha256: str
    step: int
    threshold: Threshold
    threshold_why: str
    """A line on where the threshold comes from."""
    is_run: bool

    @property
    def method_name(self) -> str:
        return self.config.method_name


def open_model(
    path: str | Path, *, step: str | None = None, threshold: float | None = None, trust_code: bool = False
) -> Opened:
    """Find and check a model.

    Args:
        path: a run folder, or a folder that `wsol export` wrote.
        step: of a run: the number of a checkpoint or `best`; None for the best where one is known, else the newest.
        threshold: in [0, 1); None for the one that the run's held-out split chose, or without one the recipe's.
        trust_code: allow a configuration to name a method `module:Class` outside of the registry, which is imported.

    Raises:
        UserError: neither; a file that is missing, damaged or not the one that was exported; an unknown method.
    """
    path = Path(path)
    if not (path / CONFIG_FILE).is_file():
        raise UserError(
            f"{path}: {'no config.yaml in it' if path.is_dir() else 'no such folder'}; give a run folder, "
            "or a folder that wsol export wrote"
        )
    if (path / SUMS_FILE).is_file():
        if step is not None:
            raise UserError(f"--step: chooses a checkpoint of a run; {path} is an exported model")
        opened = _open_exported(path, trust_code=trust_code)
    else:
        opened = _open_run(path, step=step, trust_code=trust_code)
    if threshold is None:
        return opened
    if not 0 <= threshold < 1:
        raise UserError(f"--threshold: given {threshold:g}, a number must be in [0, 1)")
    return replace(
        opened, threshold=fixed(threshold), threshold_why=f"threshold {threshold:.3f} (fixed, as given)"
    )


def build(opened: Opened, device: torch.device) -> Method:
    """The method with its weights, in eval mode.

    Raises:
        UserError: the weights are not of this configuration.
    """
    method = build_method(
        opened.config, num_classes=len(opened.classes), classes=opened.classes, read_files=False
    )
    load_checked(method, read_state(opened.weights), source=str(opened.weights))
    return method.to(device).eval().requires_grad_(False)


def read_config(path: Path, *, trust_code: bool) -> Config:
    """The configuration of a run or model folder, without the runs before it.

    Raises:
        UserError: no plain YAML, unknown keys, or a method that is not registered.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes, a configuration has at most {MAX_CONFIG_BYTES}"
        )
    try:
        raw = read_yaml(path)
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply; this is no configuration") from error
    raw.pop("before", None)
    method = raw.get("method")
    name = str(method.get("name")) if isinstance(method, dict) else ""
    if ":" in name and not trust_code:
        raise UserError(
            f"{path}: method.name: {name!r} would import code that the registry does not know; if you trust where this "
            "model comes from, say --trust-code (load(..., trust_code=True))"
        )
    return from_dict(raw, origin=str(path))


def check_sums(folder: Path, needed: tuple[str, ...]) -> None:
    """Hold files against SHA256SUMS, which lists `<sha256>  <name>`.

    Raises:
        UserError: a needed file is not listed, is missing, or is another.
    """
    path = folder / SUMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        sums = {name.lstrip(" *"): sum_ for sum_, _, name in (line.partition(" ") for line in lines if line)}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no list of checksums ({error.reason}); export the model again") from error
    for name in needed:
        if name not in sums:
            raise UserError(f"{path}: does not list {name}; export the model again")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; copy the model again")
        if sha256_of(folder / name) != sums[name]:
            raise UserError(
                f"{folder / name}: not the file that was exported ({SUMS_FILE} has another sha256): damaged or "
                "changed; copy the model again"
            )


def _open_exported(path: Path, *, trust_code: bool) -> Opened:
    weights = path / checkpoint.WEIGHTS
    check_sums(path, (checkpoint.WEIGHTS, CONFIG_FILE, MODEL_FILE))
    config = read_config(path / CONFIG_FILE, trust_code=trust_code)
    classes = _classes_of(weights, config)
    about = _read_about(path / MODEL_FILE)
    threshold = about["threshold"]
    return Opened(
        path=path,
        config=config,
        classes=classes,
        weights=weights,
        weights_sha256=sha256_of(weights),
        step=about["step"],
        threshold=Threshold(
            source=threshold["source"],
            level=level_of(threshold["value"]),
            value=threshold["value"],
            origin=threshold["from"],
        ),
        threshold_why=f"threshold {threshold['value']:.3f} ({threshold['source']}, from {path / MODEL_FILE})",
        is_run=False,
    )


def _read_about(path: Path) -> dict[str, Any]:
    """`model.json`, as far as it is needed: `step` and `threshold`."""
    try:
        about = json.loads(path.read_bytes())
        value, source = about["threshold"]["value"], about["threshold"]["source"]
        right = about["schema"] == MODEL_SCHEMA and type(about["step"]) is int and 0 <= float(value) < 1
        right &= source in ("fixed", "val", "oracle") and isinstance(about["threshold"]["from"], str | None)
    except (ValueError, KeyError, TypeError, RecursionError):
        right = False
    if not right:
        raise UserError(
            f"{path}: not the model.json of schema {MODEL_SCHEMA} that wsol export writes; export again"
        )
    return about


def _open_run(path: Path, *, step: str | None, trust_code: bool) -> Opened:
    steps = {checkpoint.step_of(one): one for one in checkpoint.complete_checkpoints(path)}
    if not steps:
        raise UserError(f"{path}: no complete checkpoint yet; train it")
    config = read_config(path / CONFIG_FILE, trust_code=trust_code)
    chosen = _chosen_step(path, steps, step)
    weights = checkpoint.evaluated_weights(steps[chosen])
    sha256 = sha256_of(weights)
    threshold, why = _run_threshold(path, config, step=chosen, weights_sha256=sha256)
    return Opened(
        path=path,
        config=config,
        classes=_classes_of(weights, config),
        weights=weights,
        weights_sha256=sha256,
        step=chosen,
        threshold=threshold,
        threshold_why=why,
        is_run=True,
    )


def _chosen_step(path: Path, steps: dict[int, Path], given: str | None) -> int:
    best = read_best(path)
    if given is None:
        return int(best["step"]) if best and int(best["step"]) in steps else max(steps)
    if given == "best":
        if best is None:
            raise UserError(
                f"--step best: {path} has no {BEST_FILE}; wsol evaluate {path} --follow finds the best"
            )
        given = str(best["step"])
    if not given.isdigit():
        raise UserError(f"--step: given {given!r}; allowed: the number of a step, or best")
    if int(given) not in steps:
        raise UserError(f"--step: {path} has no checkpoint {given}; it has {', '.join(map(str, steps))}")
    return int(given)


def _run_threshold(path: Path, config: Config, *, step: int, weights_sha256: str) -> tuple[Threshold, str]:
    """What the held-out split chose for these very weights and maps; without that the recipe's, and why."""
    val, select = config.val.split, config.evaluate.select
    file = path / record.FOLDER / f"{record.stem(val, step)}.json"
    identity = Identity(
        weights=weights_sha256,
        index_name="",
        index_sha256=_scored_index(file),
        # Without a refinement: it needs clusters of the images, which those to predict have not.
        settings=json.loads(
            json.dumps({"method": to_dict(config)["method"], "evaluate": curve_knobs(config.evaluate)})
        ),
    )
    chosen, why_not = record.read_threshold(file.parent, val, step=step, select=select, identity=identity)
    if chosen is not None:
        return chosen, f"threshold {chosen.value:.3f} (val, from {file})"
    otherwise = fixed(config.evaluate.threshold)
    cure = f"wsol evaluate {path} --split {val} --step {step} chooses one where {val} has boxes"
    return otherwise, f"threshold {otherwise.value:.3f} (fixed, the recipe's): {why_not}; {cure}"


def _scored_index(file: Path) -> str:
    """The shards that a record was made with: whatever they were, their threshold is the run's."""
    try:
        return str(json.loads(file.read_bytes())["index"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _classes_of(weights: Path, config: Config) -> tuple[str, ...]:
    check_belongs(weights, config.method_name)
    classes = trained_classes(weights)
    if not classes:
        raise UserError(
            f"{weights}: does not name its classes: no checkpoint of wsol train, nor an export of one"
        )
    return tuple(classes)


def class_number(classes: tuple[str, ...], name: str) -> int:
    """The number of a class by its name.

    Raises:
        UserError: there is no such class.
    """
    if name not in classes:
        raise UserError(f"class {name!r}: the model does not know it; {did_you_mean(name, list(classes))}")
    return classes.index(name)
