"""Run folders as training leaves them, with untrained weights, and images to predict."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from wsol_dist.recipe import dump, from_dict
from wsol_dist.runs import checkpoint
from wsol_dist.runs.checkpoint import TrainState
from wsol_dist.runs.model import build_method

CLASSES = ("ant", "bee", "cat & dog")
CAM = {"name": "cam", "arch": "resnet10t", "model_kwargs": {"zero_init_last": False}, "image_px": 64}


def make_run(
    run: Path, method: dict[str, Any] = CAM, *, classes: tuple[str, ...] = CLASSES, **evaluate: Any
) -> Path:
    """A run of one checkpoint."""
    tree = {"name": "tiny", "method": method, "evaluate": {"size_px": 64, "workers": 0} | evaluate}
    config = from_dict(tree, origin="test")
    torch.manual_seed(0)
    built = build_method(config, num_classes=len(classes), classes=classes)
    checkpoint.begin(run, 3)
    checkpoint.finish(
        run,
        TrainState(step=3, position=48, world=1, index_sha256=""),
        built.state_dict(),
        config_yaml=dump(config),
        metadata={"method": config.method_name, "classes": json.dumps(classes)},
    )
    (run / "config.yaml").write_text(dump(config))
    return run


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """A smooth picture, so that JPEG keeps it."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def make_images(folder: Path, num: int = 5) -> Path:
    """Class folders with `num` JPEGs each of 40 x 30 pixels."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(num):
            picture = noise(40, 30, seed=10 * label + number)
            (folder / name / f"{number}.jpg").write_bytes(encoded(picture, "JPEG", quality=95))
    return folder
