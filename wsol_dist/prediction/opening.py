"""A path -> a trained model that is checked and ready to be built: a run folder, or a folder of `wsol export`.

Neither may run code: weights are safetensors, configurations plain YAML and JSON. A model folder's files are held
against its SHA256SUMS.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.evaluator import record
from wsol_dist.evaluator.identity import Identity, curve_knobs
from wsol_dist.files import sha256_of
from wsol_dist.methods.base import Method
from wsol_dist.metrics.threshold import Threshold, fixed
from wsol_dist.models.weights import load_checked, read_state
from wsol_dist.recipe import Config, to_dict
from wsol_dist.regions.boxes import level_of
from wsol_dist.runs.model import build_method, check_belongs, trained_classes
from wsol_dist.runs.opening import MODEL_FILE, OpenedRun, folder_of, is_exported, open_run, read_about
from wsol_dist.runs.run_state import CONFIG_FILE


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A trained model, checked, its weights not read yet; picklable."""

    path: Path
    """The run or model folder."""
    config: Config
    """Without the runs before it."""
    classes: tuple[str, ...]
    weights: Path
    weights_sha256: str
    step: int
    chosen: str
    """A line on which weights these are, and why."""
    threshold: Threshold
    threshold_why: str
    """A line on where the threshold comes from."""
    is_run: bool

    @property
    def method_name(self) -> str:
        return self.config.method_name


def open_model(
    path: str | Path, *, step: str | None = None, threshold: float | None = None, trust_code: bool = False
) -> OpenedModel:
    """Find and check a model.

    Args:
        path: a run folder, one checkpoint of it, or a folder that `wsol export` wrote.
        step: of a run: as `choose_checkpoint` takes it.
        threshold: in [0, 1); None for the one that the run's held-out split chose, or without one the recipe's.
        trust_code: allow a configuration to name a method `module:Class` outside of the registry, which is imported.

    Raises:
        UserError: neither; a file that is missing, damaged or not the one that was exported; an unknown method.
    """
    folder = folder_of(path)
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"{folder}: {'no config.yaml in it' if folder.is_dir() else 'no such folder'}; give a run folder, "
            "or a folder that wsol export wrote"
        )
    run = open_run(path, step=step, trust_code=trust_code)
    assert run.weights is not None
    classes, sha256 = _classes_of(run.weights, run.config), sha256_of(run.weights)
    chosen, why = _choose_threshold(run, folder, given=threshold, weights_sha256=sha256)
    return OpenedModel(
        path=run.folder or folder,
        config=replace(run.config, before=()),
        classes=classes,
        weights=run.weights,
        weights_sha256=sha256,
        step=run.step,
        chosen=run.chosen,
        threshold=chosen,
        threshold_why=why,
        is_run=run.folder is not None,
    )


def build(opened: OpenedModel, device: torch.device) -> Method:
    """The method with its weights, in eval mode.

    Raises:
        UserError: the weights are not of this configuration.
    """
    method = build_method(
        opened.config, num_classes=len(opened.classes), classes=opened.classes, read_files=False
    )
    load_checked(method, read_state(opened.weights), source=str(opened.weights))
    return method.to(device).eval().requires_grad_(False)


def _choose_threshold(
    run: OpenedRun, folder: Path, *, given: float | None, weights_sha256: str
) -> tuple[Threshold, str]:
    """The threshold of boxes and masks, and a line on where it comes from."""
    if given is not None:
        if not 0 <= given < 1:
            raise UserError(f"--threshold: given {given:g}, a number must be in [0, 1)")
        return fixed(given), f"threshold {given:.3f} (fixed, as given)"
    if is_exported(folder):
        return _exported_threshold(folder)
    if run.folder:
        return _run_threshold(run.folder, run.config, step=run.step, weights_sha256=weights_sha256)
    value = run.config.evaluate.threshold
    why = f"threshold {value:.3f} (fixed, the recipe's): {folder} lies in no run folder that chose one"
    return fixed(value), why


def _exported_threshold(path: Path) -> tuple[Threshold, str]:
    """The threshold that an exported model brings along, and where it comes from."""
    given = read_about(path)["threshold"]
    value, source = given["value"], given["source"]
    threshold = Threshold(source=source, level=level_of(value), value=value, origin=given["from"])
    return threshold, f"threshold {value:.3f} ({source}, from {path / MODEL_FILE})"


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
