"""CAM: the classifier's weights of a class applied to the last feature map (Zhou et al., CVPR 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsol_dist.errors import UserError
from wsol_dist.methods.base import (
    Classes,
    Localization,
    Method,
    label_accuracy,
    label_loss,
    top_class,
)
from wsol_dist.methods.cam.config import CAMConfig
from wsol_dist.models.backbones import build_cnn
from wsol_dist.models.stems import keep_bn_eval
from wsol_dist.models.weights import load_checked

PROBE_PX = 64


class CAM(Method):
    """Plain class activation maps."""

    Config = CAMConfig

    def __init__(self, config: CAMConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.image_px, self.mean, self.std = config.image_px, config.mean, config.std
        self.model: Any = build_cnn(
            config.arch,
            config.model_kwargs,
            num_classes=num_classes,
            checkpoint=config.checkpoint,
            pretrained=config.pretrained,
            bn_checkpoint=config.bn_checkpoint,
        )
        _check_linear_on_average(self.model, config.arch)

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        logit_BC = self.model(image_BCHW)
        return {"loss": label_loss(logit_BC, label_B), "accuracy": label_accuracy(logit_BC, label_B)}

    def localize(self, image_BCHW: Tensor, class_BK: Classes = None) -> Localization:
        with self.evaluating():
            feature_BFhw = self.model.forward_features(image_BCHW)
            prob_BC = self.model.forward_head(feature_BFhw).float().softmax(dim=1)
            class_BK = top_class(prob_BC, class_BK)
            # Only the wanted classes: all C maps would cost C / K times as much.
            weight_BKF = self.model.get_classifier().weight[class_BK].float()
            map_BKhw = torch.einsum("bfhw,bkf->bkhw", feature_BFhw.float(), weight_BKF)
        return Localization(prob_BC=prob_BC, class_BK=class_BK, map_BKhw=map_BKhw)

    def patch_embeddings(self, image_BCHW: Tensor) -> Tensor:
        """The last feature map."""
        with self.evaluating():
            return self.model.forward_features(image_BCHW).float()

    def train(self, mode: bool = True) -> CAM:
        super().train(mode)
        if self.config.bn_eval:
            keep_bn_eval(self)
        return self

    def load_init(self, state: dict[str, Tensor]) -> list[str]:
        """A state dict of this method or of the timm CNN; every tensor must fit, the classifier too."""
        prefix = "model."
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        load_checked(self.model, inner, source="the weights")
        return []

    @classmethod
    def tiny_config(cls) -> CAMConfig:
        # Residual branches that start at 0 would hold back the first step's gradients; batch statistics would make
        # the loss depend on the number of ranks.
        return CAMConfig(arch="resnet10t", model_kwargs={"zero_init_last": False}, image_px=64, bn_eval=True)


def _check_linear_on_average(model: Any, arch: str) -> None:
    """CAM holds only where the logits are linear in the averaged features: compare them on one input."""
    if not (hasattr(model, "forward_features") and _is_linear_on_average(model)):
        raise UserError(
            f"method.arch: {arch!r} does not end in global average pooling and one linear layer, as "
            "CAM needs; try resnet50, mobilenetv2_100 or densenet121"
        )


def _is_linear_on_average(model: Any) -> bool:
    classifier = model.get_classifier()
    if not isinstance(classifier, nn.Linear):
        return False
    ramp_BCHW = torch.linspace(-1, 1, 3 * PROBE_PX * PROBE_PX).sin().view(1, 3, PROBE_PX, PROBE_PX)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        try:
            feature_BFhw = model.forward_features(ramp_BCHW)
        except AssertionError:  # a transformer of a fixed input size
            return False
        if feature_BFhw.ndim != 4 or feature_BFhw.shape[1] != classifier.in_features:
            return False
        by_hand_BC = classifier(feature_BFhw.mean(dim=(2, 3)))
        logit_BC = model.forward_head(feature_BFhw)
    model.train(was_training)
    return torch.allclose(logit_BC, by_hand_BC, rtol=1e-3, atol=1e-4)
