"""An evaluation -> files in a run's `eval` folder: the record, a row an image, pictures of the cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from wsol_dist.errors import UserError
from wsol_dist.evaluator.cases import Case
from wsol_dist.evaluator.evaluate import Evaluation
from wsol_dist.evaluator.identity import Identity
from wsol_dist.files import write_atomically
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.report.draw import draw_case
from wsol_dist.report.draw_clusters import MapBox, draw_clusters
from wsol_dist.runs.rows import write_rows

FOLDER = "eval"
JPEG_QUALITY = 82
BACKGROUND = "(background)"


def stem(split: str, step: int) -> str:
    """What the files of a scored split are called, without extension."""
    return f"{split}-step-{step:08d}"


def draw_cases(evaluation: Evaluation) -> list[np.ndarray]:
    """Each case as one picture, (H, W, 3) uint8 RGB: boxes and IoU beside the heat map."""
    return [_draw(case, evaluation) for case in evaluation.cases]


def save(
    evaluation: Evaluation,
    folder: Path,
    *,
    run: str,
    method: str,
    step: int,
    checkpoint: str,
    identity: Identity,
    pictures: list[np.ndarray],
) -> Path:
    """Write `SPLIT-step-N.json` into the folder, before it the parquet rows and the pictures; on one rank.

    The record is written last and in one step: where it is, everything it names is whole.

    Args:
        run: the run's name.
        method: the method's name.
        identity: what was scored.
        pictures: of `draw_cases`.
    """
    name = stem(evaluation.split, step)
    (folder / name).mkdir(parents=True, exist_ok=True)
    files = [f"{name}/case-{number:03d}.jpg" for number in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(picture), quality=JPEG_QUALITY, colorsubsampling="444"
        )
        write_atomically(folder / file, data)
    about = {"size_px": str(evaluation.size_px), "threshold": json.dumps(evaluation.threshold.to_json())}
    write_rows(folder / f"{name}.parquet", evaluation.rows, about=about)
    record = {"run": run, "split": evaluation.split, "step": step, "checkpoint": checkpoint, "method": method}
    record |= identity.to_json()
    record |= _numbers(evaluation)
    record["cases"] = [_case(case, file) for case, file in zip(evaluation.cases, files, strict=True)]
    path = folder / f"{name}.json"
    write_atomically(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return path


def read_threshold(
    folder: Path, split: str, *, step: int, select: str, identity: Identity
) -> tuple[Threshold | None, str]:
    """The threshold that a scored held-out split chooses, or None and why it chooses none for this evaluation.

    Args:
        identity: of the evaluation that wants it; a record of anything else is not used.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / f"{stem(split, step)}.json"
    if not path.is_file():
        return None, f"{split!r} was not scored at step {step} in {folder.parent}"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        curves, differing = record["curves"], identity.differences(record)
        if differing:
            more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
            return None, f"{path} scored something else ({'; '.join(differing[:3])}{more})"
        if select not in curves:
            return None, f"{path} has no curve {select!r} to choose a threshold by"
        return thresholds.from_curves(curves, select=select, origin=f"{FOLDER}/{path.name}"), ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: no threshold can be read from it ({error}); score {split!r} again"
        ) from error


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "classes": list(evaluation.classes),
        "num_images": len(evaluation.rows),
        "broken": evaluation.broken,
        "seconds": round(evaluation.seconds, 2),
        "image_px": evaluation.image_px,
        "size_px": evaluation.size_px,
        "threshold": evaluation.threshold.to_json(),
        "metrics": [record.to_json() for record in evaluation.records],
        "curves": {name: curve.tolist() for name, curve in evaluation.curves.items()},
        "by_class": by_class_json(evaluation),
    }


def by_class_json(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """What numbers are the means of, by their names: the background and each class; one that never occurs has none."""
    names = (BACKGROUND, *evaluation.classes)
    return {
        number: [
            {"class": name, "value": None if np.isnan(value) else float(value)}
            for name, value in zip(names, values, strict=True)
        ]
        for number, values in evaluation.by_class.items()
    }


def _draw(case: Case, evaluation: Evaluation) -> np.ndarray:
    box = case.row.get("box")
    scale = evaluation.image_px / evaluation.size_px
    if case.unrefined is not None:
        return _draw_refined(case, evaluation, scale)
    return draw_case(
        case.image_HWC,
        case.map_hw,
        gt_boxes=case.gt_boxes,
        predicted_box=None if box is None else [side * scale for side in box],
        iou=case.row.get("iou"),
    )


def _draw_refined(case: Case, evaluation: Evaluation, scale: float) -> np.ndarray:
    assert case.unrefined is not None
    box = case.row.get("box")
    box_before = case.unrefined.box_at(evaluation.threshold.level, size_px=evaluation.size_px)
    return draw_clusters(
        case.image_HWC,
        segment_HW=case.unrefined.segment_HW,
        label_HW=case.unrefined.label_HW,
        gt_boxes=case.gt_boxes,
        maps=(
            MapBox(map_hw=case.unrefined.map_hw, box=box_before * scale),
            MapBox(
                map_hw=case.map_hw,
                box=None if box is None else [side * scale for side in box],
                iou=case.row.get("iou"),
            ),
        ),
    )


def _case(case: Case, file: str) -> dict[str, Any]:
    predicted = case.row.get("predicted") or [None]
    return {
        "id": case.id,
        "label": case.label,
        "predicted": predicted[0],
        "iou": case.row.get("iou"),
        "error_kind": case.row.get("error_kind"),
        "groups": list(case.groups),
        "picture": file,
    }
