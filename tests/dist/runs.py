"""Small training runs that the engine's tests start on ranks, and what they leave behind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsol_dist.data.shards.index import Index
from wsol_dist.methods.ts_cam.config import TSCAMConfig
from wsol_dist.methods.ts_cam.network import TSCAM
from wsol_dist.models.weights import read_state
from wsol_dist.processes import ranks
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import Config, from_dict
from wsol_dist.runs import checkpoint
from wsol_dist.training.preflight import prepare_folder
from wsol_dist.training.trainer import Trainer

BACKBONE = {
    "arch": "deit_tiny_patch16_224",
    "width": 32,
    "heads": 2,
    "depth": 2,
    "patch_px": 8,
    "stem": "conv",
    "drop_path": 0.2,
}
FROZEN_STEM = {"patch_px": None, "stem": "resnet10t", "stem_stride": 8, "freeze_stem": True}


class Spare(TSCAM):
    """Has parameters that train and that no loss depends on, before and behind those that it uses."""

    def __init__(self, config: TSCAMConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.spare = torch.nn.Linear(7, 3)


METHODS: dict[str, dict[str, Any]] = {
    "molt": {"name": "molt", "scales_px": [16, 32], "backbone": BACKBONE},
    # Little to compile.
    "short": {"name": "ts_cam", "image_px": 32, "backbone": BACKBONE | {"depth": 1}},
    # Frozen parameters, batch statistics, unused parameters, and sizes that no number of ranks divides.
    "spare": {"name": f"{__name__}:Spare", "image_px": 32, "backbone": BACKBONE | FROZEN_STEM},
}


def tiny(shards: Path, method: str = "molt", *, drop_path: float = 0.2, **train: Any) -> Config:
    """Six steps an epoch of 16 images, a checkpoint after three."""
    knobs = {
        "epochs": 1,
        "global_batch": 16,
        "lr": 1e-3,
        "schedule": "cosine",
        "checkpoint_every_epochs": 0.5,
        "clip": 1.0,
    }
    tree = METHODS[method]
    return from_dict(
        {
            "name": "tiny",
            "method": tree | {"backbone": tree["backbone"] | {"drop_path": drop_path}},
            "data": {"index": str(shards), "workers": 0},
            "train": knobs | train,
            "track": {"wandb": "off", "log_every_steps": 1},
        },
        origin="test",
    )


def train(own: Ranks, config: Config, folder: Path, stop_after: int | None = None) -> int:
    """Train, and say after which step it began.

    `stop_after` ends the work after that many steps as a kill between two steps does.
    """
    own.main_first(lambda: prepare_folder(config, folder))
    trainer = Trainer(config, folder, Index.load(config.data.index), own)
    if stop_after is not None:
        trainer.steps = dataclasses.replace(trainer.steps, total=stop_after)
        save = trainer.save
        trainer.save = lambda step: save(step) if step % trainer.steps.per_checkpoint == 0 else None
    trainer.run()
    return trainer.first_step


def losses(folder: Path) -> dict[int, float]:
    """The last loss logged for each step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["train/loss"] for row in rows}


def stored(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a run's newest checkpoint: weights, their average, the optimizer's state."""
    newest = checkpoint.complete_checkpoints(folder)[-1]
    return {
        f"{path.name}:{name}": value
        for path in sorted(newest.rglob("*.safetensors"))
        for name, value in read_state(path).items()
    }


def alone() -> Ranks:
    """This process as the only rank."""
    return ranks.from_environment()
