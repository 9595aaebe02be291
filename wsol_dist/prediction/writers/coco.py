"""COCO JSON: `coco.json`, for pycocotools and detectors. Boxes are x, y, width, height; categories count from 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsol_dist.files import write_atomically
from wsol_dist.prediction.writers import Labels


def write(out: Path, labels: Labels) -> None:
    """Images that decoded, with `score` in each annotation, so that the same list serves as detections."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(labels.images(), start=1):
        images.append({"id": number, "file_name": image.id, "width": image.width, "height": image.height})
        for box in image.boxes:
            x0, y0, x1, y1 = box.xyxy
            bbox = [round(side, 2) for side in (x0, y0, x1 - x0, y1 - y0)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": box.label + 1,
                    "bbox": bbox,
                    "area": round(bbox[2] * bbox[3], 2),
                    "segmentation": [],
                    "iscrowd": 0,
                    "score": round(box.score, 6),
                }
            )
    tree = {
        "info": {"description": labels.about},
        "licenses": [],
        "categories": [
            {"id": label + 1, "name": name, "supercategory": ""} for label, name in enumerate(labels.classes)
        ],
        "images": images,
        "annotations": annotations,
    }
    write_atomically(
        out / "coco.json", json.dumps(tree, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    )
