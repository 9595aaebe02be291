"""A run -> a folder that can be shipped: weights, configuration, label names, card, ONNX and torch.export graphs.

The folder gets its name only when everything in it is written and was compared with the live model.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError

from wsol_dist.errors import UserError
from wsol_dist.exporting.card import write_card
from wsol_dist.exporting.graph import (
    INPUT,
    OUTPUTS,
    Deployed,
    cannot_export,
    save_onnx,
    save_program,
    to_program,
)
from wsol_dist.files import sha256_of
from wsol_dist.prediction.opening import OpenedModel, build
from wsol_dist.recipe import read_yaml, to_dict
from wsol_dist.runs.checkpoint import WEIGHTS, save_weights, sync
from wsol_dist.runs.opening import MODEL_FILE, MODEL_SCHEMA, SUMS_FILE
from wsol_dist.runs.run_state import CONFIG_FILE
from wsol_dist.version import __version__

FORMATS = ("onnx", "torch")
LABELS_FILE, CARD_FILE = "labels.json", "README.md"
FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
CHECK_BATCH = 3
"""Another than the graphs were traced with."""
SCORE_TOLERANCE, MAP_TOLERANCE = 1e-3, 2e-2
"""Greatest differences from the live model, of values in 0..1, with which a graph is still taken for the same."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    differences: dict[str, float]
    """By graph, the greatest difference of a class probability from the live model's."""
    sums_sha256: str
    """Of SHA256SUMS: stands for the whole folder."""


def export(opened: OpenedModel, out: Path, *, formats: tuple[str, ...] = FORMATS, top_k: int = 1) -> Exported:
    """Write the folder.

    Args:
        opened: of a run folder.
        top_k: of how many classes the graphs give heat maps.

    Raises:
        UserError: `out` is there; it cannot be written; a graph cannot be made, or differs from the model.
    """
    if out.exists():
        raise UserError(f"--out: {out} is there already; remove it, or give another folder")
    method = build(opened, torch.device("cpu"))
    evaluate = opened.config.evaluate
    deployed = Deployed(method, top_k=top_k, size_px=evaluate.size_px, normalise=evaluate.normalise).eval()
    about = _about(opened, deployed)
    with _folder(out) as part:
        differences = write_graphs(deployed, part, formats=formats)
        metadata = {"method": opened.method_name, "classes": json.dumps(opened.classes)}
        save_weights(part / WEIGHTS, method.state_dict(), metadata=metadata)
        (part / WEIGHTS).chmod(0o644)  # safetensors makes files for their owner only
        (part / CONFIG_FILE).write_text(_config_text(opened), encoding="utf-8")
        (part / MODEL_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        names = json.dumps(opened.classes, ensure_ascii=False, indent=0)
        (part / LABELS_FILE).write_text(names + "\n", encoding="utf-8")
        raw = read_yaml(opened.path / CONFIG_FILE)
        (part / CARD_FILE).write_text(write_card(opened, about, raw=raw, formats=formats), encoding="utf-8")
        files = sorted(path.name for path in part.iterdir())
        sums = "".join(f"{sha256_of(part / name)}  {name}\n" for name in files)
        (part / SUMS_FILE).write_text(sums, encoding="utf-8")
    return Exported(
        folder=out,
        files=(*files, SUMS_FILE),
        differences=differences,
        sums_sha256=sha256_of(out / SUMS_FILE),
    )


def write_graphs(deployed: Deployed, folder: Path, *, formats: tuple[str, ...]) -> dict[str, float]:
    """`model.onnx` and `model.pt2`, each read back and compared with the live model; the differences by format."""
    if not formats:
        return {}
    program = to_program(deployed)
    differences = {}
    for name in formats:
        path = folder / FILES[name]
        save_onnx(deployed, program, path) if name == "onnx" else save_program(program, path)
        run = run_onnx if name == "onnx" else run_program
        differences[name] = compare(deployed, run(path, deployed.example(CHECK_BATCH)), what=name)
    return differences


def run_onnx(path: Path, images: torch.Tensor) -> list[np.ndarray]:
    """`scores`, `classes`, `maps` by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(list(OUTPUTS), {INPUT: images.numpy()})


def run_program(path: Path, images: torch.Tensor) -> list[np.ndarray]:
    """The same by the saved `torch.export` program."""
    return [one.numpy() for one in torch.export.load(path).module()(images)]


def compare(deployed: Deployed, given: list[np.ndarray], *, what: str) -> float:
    """The greatest difference of a class probability on images of noise.

    Raises:
        UserError: it, or that of the maps of a class that both name, is too large.
    """
    with torch.inference_mode():
        live = [one.numpy() for one in deployed(deployed.example(CHECK_BATCH))]
    scores = float(np.abs(live[0] - given[0]).max())
    # Classes of equal probability may change places.
    same = live[1] == given[1]
    maps = float(np.abs(live[2] - given[2])[same].max(initial=0))
    if not (scores <= SCORE_TOLERANCE and maps <= MAP_TOLERANCE):
        reason = ValueError(f"its scores differ by {scores:.2g} and its maps by {maps:.2g} from the model's")
        raise cannot_export(deployed, what, reason)
    return scores


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder that is whole under its name, or not there."""
    part = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        part.mkdir(parents=True)
        yield part
        for path in part.iterdir():
            sync(path)
        os.rename(part, out)
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{out}: cannot be written ({reason}); free space there, or give another --out"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _about(opened: OpenedModel, deployed: Deployed) -> dict[str, Any]:
    """`model.json`: what a program needs to know beside the weights."""
    threshold = opened.threshold
    return {
        "schema": MODEL_SCHEMA,
        "created_by": f"wsol_dist {__version__}",
        "name": opened.config.name,
        "method": opened.method_name,
        "step": opened.step,
        "image_px": deployed.image_px,
        "size_px": deployed.size_px,
        "normalise": deployed.normalise,
        "top_k": deployed.top_k,
        # Of a map in 0..1: what 8 bits put above the threshold's level.
        "threshold": threshold.to_json() | {"keep_from": (threshold.level + 1) / 255},
    }


def _config_text(opened: OpenedModel) -> str:
    """What is needed to build the method again and to make boxes of its maps; nothing of the training."""
    plain = to_dict(opened.config)
    kept = {name: plain[name] for name in ("name", "seed", "method", "evaluate")}
    return yaml.safe_dump(kept, sort_keys=False)
