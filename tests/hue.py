"""A method without a network, runs of it as training leaves them, and what its evaluations are compared by."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsol_dist.data.shards.index import Index
from wsol_dist.methods.base import Localization, Method, pick_maps, top_class
from wsol_dist.methods.config import MethodConfig
from wsol_dist.recipe import Config, dump, from_dict
from wsol_dist.runs import checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class HueConfig(MethodConfig):
    """Nothing to set."""


class Hue(Method):
    """Scores each pixel by itself: what shares its batch changes no bit, as it may in a network."""

    Config = HueConfig
    image_px, mean, std = 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, config: HueConfig, num_classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.colour_C3 = torch.nn.Parameter(torch.rand(num_classes, 3, generator=generator) * 2 - 1)

    def localize(self, image_BCHW: Tensor, class_BK: Tensor | None = None) -> Localization:
        distance = (image_BCHW[:, None] - self.colour_C3[None, :, :, None, None]).abs().sum(dim=2)
        score_BChw = -torch.nn.functional.avg_pool2d(distance, 2)
        prob_BC = score_BChw.mean(dim=(2, 3)).softmax(dim=1)
        class_BK = top_class(prob_BC, class_BK)
        return Localization(prob_BC=prob_BC, class_BK=class_BK, map_BKhw=pick_maps(score_BChw, class_BK))


def config(shards: Path, *, workers: int = 0, **sections: Any) -> Config:
    """A recipe of the method above."""
    raw = {
        "name": "hue",
        "method": {"name": f"{__name__}:Hue"},
        "data": {"index": str(shards)},
        "evaluate": {"size_px": 32, "batch_size": 6, "workers": workers, "cases": 5},
        "track": {"wandb": "off"},
    }
    return from_dict(raw | sections, origin="test")


def write_run(folder: Path, recipe: Config) -> None:
    """A run folder before its first checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(recipe))


def write_checkpoint(folder: Path, recipe: Config, step: int, *, scale: float = 1.0) -> None:
    """What training leaves after a step: colours that are wrong by a factor."""
    classes = Index.load(recipe.data.index).classes
    weights = {name: value * scale for name, value in Hue(HueConfig(), len(classes)).state_dict().items()}
    metadata = {"method": recipe.method_name, "classes": json.dumps(classes), "trained": "[]"}
    state = checkpoint.TrainState(step=step, position=step, world=1, index_sha256="")
    checkpoint.begin(folder, step)
    checkpoint.finish(folder, state, weights, config_yaml=dump(recipe), metadata=metadata)
