"""TS-CAM, token semantic coupled attention maps (Gao et al., ICCV 2021): attention times class scores."""

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
from wsol_dist.methods.ts_cam.config import TSCAMConfig
from wsol_dist.models.backbones import build_vit
from wsol_dist.models.config import ViTConfig

BACKBONE = "backbone."
POS_EMBED = "backbone.vit.pos_embed"


class TSCAM(Method):
    """The patch tokens classify through a 3x3 convolution and averaging; the class token only attends."""

    Config = TSCAMConfig

    def __init__(self, config: TSCAMConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.image_px, self.mean, self.std = config.image_px, config.mean, config.std
        self.backbone = build_vit(config.backbone, config.image_px)
        self.head = ScoreHead(self.backbone.width, num_classes, kernel_size=3, padding=1)
        self._take_classifier_bias()

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        logit_BC = self.logits(image_BCHW)
        return {"loss": label_loss(logit_BC, label_B), "accuracy": label_accuracy(logit_BC, label_B)}

    def logits(self, image_BCHW: Tensor) -> Tensor:
        """Class logits (B, C) without maps: the cheap way that training takes."""
        return self.head(self._patches(self.backbone.forward_tokens(image_BCHW)), pooled=True)

    def score_and_attention(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (B, C, h, w), their mean are the logits, and attention (B, 1, h, w); both float32."""
        token_BND, row_BN = self.backbone.forward_tokens_and_row(
            image_BCHW, direction=self.config.attention_direction
        )
        score_BChw = self.head(self._patches(token_BND)).float()
        return score_BChw, row_BN.reshape(row_BN.shape[0], 1, *score_BChw.shape[2:])

    def localize(self, image_BCHW: Tensor, class_BK: Classes = None) -> Localization:
        with self.evaluating():
            score_BChw, attention_B1hw = self.score_and_attention(image_BCHW)
            prob_BC = score_BChw.mean(dim=(2, 3)).softmax(dim=1)
            class_BK = top_class(prob_BC, class_BK)
            # Signed, without ReLU, as the public code has it.
            map_BKhw = pick_maps(score_BChw, class_BK) * attention_B1hw
        return Localization(prob_BC=prob_BC, class_BK=class_BK, map_BKhw=map_BKhw)

    def patch_embeddings(self, image_BCHW: Tensor) -> Tensor:
        """The patch tokens that the class scores are made of."""
        with self.evaluating():
            return self._patches(self.backbone.forward_tokens(image_BCHW)).float()

    def no_weight_decay(self) -> set[str]:
        return {BACKBONE + name for name in self.backbone.no_weight_decay()}

    def load_init(self, state: dict[str, Tensor]) -> list[str]:
        """A state dict of this method (of any image size) or of the plain timm transformer."""
        if not any(name.startswith(BACKBONE) for name in state):
            unused = self.backbone.load_backbone(state)
            self._take_classifier_bias()
            return unused
        if POS_EMBED in state and state[POS_EMBED].shape[-1] == self.backbone.width:
            state = state | {POS_EMBED: self.backbone.resize_pos_embed(state[POS_EMBED])}
        return super().load_init(state)

    @classmethod
    def tiny_config(cls) -> TSCAMConfig:
        backbone = ViTConfig(width=32, heads=2, depth=2, patch_px=8, drop_path=0.0, stem="conv")
        return TSCAMConfig(image_px=32, backbone=backbone)

    def _patches(self, token_BND: Tensor) -> Tensor:
        side = self.backbone.grid()
        return token_BND[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    def _take_classifier_bias(self) -> None:
        bias_C = self.backbone.classifier_bias
        assert self.head.bias is not None
        if bias_C is not None and bias_C.shape == self.head.bias.shape:
            self.head.bias.data.copy_(bias_C)


class ScoreHead(nn.Conv2d):
    """The 3x3 convolution from patch tokens (B, D, h, w) to class scores (B, C, h, w)."""

    def forward(self, feature_BDhw: Tensor, pooled: bool = False) -> Tensor:
        """The scores, or with `pooled` their mean over positions, (B, C), without making them."""
        return pooled_conv3x3(feature_BDhw, self) if pooled else super().forward(feature_BDhw)


def pooled_conv3x3(feature_BDhw: Tensor, conv: nn.Conv2d) -> Tensor:
    """The mean over positions of a zero-padded 3x3 convolution, without its (B, C, h, w) output.

    Averaging is linear, so each of the nine taps needs only the sum over the window that it sees: all rows
    and columns, or all but the first or last. O(D h w + 9 D C) instead of O(9 D C h w), which for DeiT-S at
    C = 1000 is 13 % of the whole forward.
    """
    h, w = feature_BDhw.shape[2:]
    first_BDw, last_BDw = feature_BDhw[:, :, 0].float(), feature_BDhw[:, :, -1].float()
    sum_BDw = feature_BDhw.sum(dim=2, dtype=torch.float32)
    row_BD3w = torch.stack([sum_BDw - last_BDw, sum_BDw, sum_BDw - first_BDw], dim=2)
    sum_BD3 = row_BD3w.sum(dim=3)
    tap_BD33 = torch.stack([sum_BD3 - row_BD3w[..., -1], sum_BD3, sum_BD3 - row_BD3w[..., 0]], dim=3)
    mean_BT = (tap_BD33.flatten(1) / (h * w)).to(conv.weight.dtype)
    return F.linear(mean_BT, conv.weight.flatten(1), conv.bias)
