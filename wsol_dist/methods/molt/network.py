"""MOLT, the multiscale object localization transformer: one transformer a level of an image pyramid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsol_dist.methods.base import (
    Classes,
    Localization,
    Method,
    label_accuracy,
    label_loss,
    pick_maps,
    top_class,
)
from wsol_dist.methods.molt.config import Combine, MOLTConfig
from wsol_dist.methods.ts_cam.config import TSCAMConfig
from wsol_dist.methods.ts_cam.network import TSCAM


class MOLT(Method):
    """The pyramid is made of the input batch on its device, so the data stream knows one size only."""

    Config = MOLTConfig

    def __init__(self, config: MOLTConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.image_px, self.mean, self.std = max(config.scales_px), config.mean, config.std
        every = tuple(range(len(config.scales_px)))
        self.trained = tuple(sorted(set(config.train_scales))) or every
        self.localizing = tuple(sorted(set(config.localize_scales))) or self.trained
        self.branches = nn.ModuleList(
            TSCAM(
                TSCAMConfig(
                    image_px=scale_px,
                    backbone=config.backbone,
                    attention_direction=config.attention_direction,
                ),
                num_classes,
            )
            for scale_px in config.scales_px
        )
        for index in every:
            if config.norm_after_pos_embed:
                self._branch(index).backbone.add_norm_after_pos_embed()
            if index not in self.trained:
                self._branch(index).requires_grad_(False)

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        """Sum over the trained scales of the cross entropy, and each scale's own as `loss_scale_<px>`."""
        losses = {}
        prob_BC = torch.zeros((), device=image_BCHW.device)
        for index in self.trained:
            scale_px = self.config.scales_px[index]
            logit_BC = self._branch(index).logits(resize_square(image_BCHW, scale_px))
            losses[f"loss_scale_{scale_px}"] = label_loss(logit_BC, label_B)
            prob_BC = prob_BC + logit_BC.detach().float().softmax(dim=1)
        accuracy = label_accuracy(prob_BC, label_B)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses, "accuracy": accuracy}

    def localize(self, image_BCHW: Tensor, class_BK: Classes = None) -> Localization:
        prob_BC, class_BK, maps = self.scale_maps(image_BCHW, class_BK)
        return Localization(
            prob_BC=prob_BC,
            class_BK=class_BK,
            map_BKhw=combine_maps(list(maps.values()), self.config.combine),
        )

    def scale_maps(
        self, image_BCHW: Tensor, class_BK: Classes = None
    ) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """What `localize` combines, apart: for figures.

        Returns:
            Mean of the scales' softmaxes (B, C); the classes (B, K); by scale in pixels the raw signed
            maps (B, K, h_k, w_k).
        """
        with self.evaluating():
            scored = {}
            for index in self.localizing:
                scale_px = self.config.scales_px[index]
                image = resize_square(image_BCHW, scale_px)
                scored[scale_px] = self._branch(index).score_and_attention(image)
            probs = [score.mean(dim=(2, 3)).softmax(dim=1) for score, _ in scored.values()]
            prob_BC = torch.stack(probs).mean(dim=0)
            class_BK = top_class(prob_BC, class_BK)
            maps = {px: pick_maps(score, class_BK) * row for px, (score, row) in scored.items()}
        return prob_BC, class_BK, maps

    def patch_embeddings(self, image_BCHW: Tensor) -> Tensor:
        """Those of the largest scale that localizes."""
        largest = max(self.localizing, key=lambda index: self.config.scales_px[index])
        image = resize_square(image_BCHW, self.config.scales_px[largest])
        return self._branch(largest).patch_embeddings(image)

    def no_weight_decay(self) -> set[str]:
        return {
            f"branches.{index}.{name}"
            for index in range(len(self.branches))
            for name in self._branch(index).no_weight_decay()
        }

    def trained_keys(self) -> set[str]:
        prefixes = tuple(f"branches.{index}." for index in self.trained)
        return {name for name in self.state_dict() if name.startswith(prefixes)}

    def load_init(self, state: dict[str, Tensor]) -> list[str]:
        """A state dict of this method, or one of TS-CAM or the timm transformer, which starts every scale."""
        if any(name.startswith("branches.") for name in state):
            return super().load_init(state)
        lines = []
        for index, scale_px in enumerate(self.config.scales_px):
            lines += [f"scale {scale_px}: {line}" for line in self._branch(index).load_init(state)]
        return lines

    def train(self, mode: bool = True) -> MOLT:
        super().train(mode)
        for index in range(len(self.branches)):
            if index not in self.trained:
                self.branches[index].eval()
        return self

    @classmethod
    def tiny_config(cls) -> MOLTConfig:
        return MOLTConfig(scales_px=(16, 24, 32), backbone=TSCAM.tiny_config().backbone)

    def _branch(self, index: int) -> TSCAM:
        branch = self.branches[index]
        assert isinstance(branch, TSCAM)
        return branch


def resize_square(image_BCHW: Tensor, side_px: int) -> Tensor:
    """The batch at side x side, bilinear with antialiasing; as it is where the size fits already."""
    if image_BCHW.shape[2:] == (side_px, side_px):
        return image_BCHW
    return F.interpolate(image_BCHW, size=(side_px, side_px), mode="bilinear", antialias=True)


def combine_maps(maps: list[Tensor], combine: Combine) -> Tensor:
    """Maps (B, K, h_k, w_k) on the largest grid, min-max normalised each, and combined: (B, K, h, w)."""
    assert maps
    size = max((tuple(map_BKhw.shape[2:]) for map_BKhw in maps), key=lambda hw: hw[0] * hw[1])
    stacked = torch.stack([min_max(F.interpolate(m, size=size, mode="bilinear")) for m in maps])
    if combine == "sum":
        return stacked.sum(dim=0)
    if combine == "product":
        return stacked.prod(dim=0)
    return stacked.amax(dim=0) if combine == "max" else stacked.mean(dim=0)


def min_max(map_BKhw: Tensor) -> Tensor:
    """Each map to 0..1; a constant one to 0."""
    low = map_BKhw.amin(dim=(2, 3), keepdim=True)
    span = map_BKhw.amax(dim=(2, 3), keepdim=True) - low
    return (map_BKhw - low) / span.clamp_min(torch.finfo(map_BKhw.dtype).tiny)
