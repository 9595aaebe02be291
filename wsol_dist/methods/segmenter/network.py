"""DeepLab V1 with a large field of view, trained on label maps: the second stage of weakly supervised segmentation.

Source: L.-C. Chen et al., "Semantic image segmentation with deep convolutional nets and fully connected CRFs", ICLR
2015; the head is the one of MCTformer's public code: two 3x3 convolutions of dilation 12 on ResNet38.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsol_dist.errors import UserError
from wsol_dist.methods.base import Classes, Localization, Method, pick_maps, top_class
from wsol_dist.methods.molt.network import resize_square
from wsol_dist.methods.segmenter.config import RESNET38, SegmenterConfig
from wsol_dist.models.config import CNNConfig
from wsol_dist.models.resnet38 import ResNet38
from wsol_dist.models.stems import keep_bn_eval
from wsol_dist.models.unet import build_encoder
from wsol_dist.models.weights import read_state, wanted
from wsol_dist.processes.ranks import gather_rows
from wsol_dist.regions.crf import mean_field
from wsol_dist.regions.label_maps import IGNORE


class Segmenter(Method):
    """DeepLab-LargeFOV."""

    Config = SegmenterConfig

    def __init__(self, config: SegmenterConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.image_px, self.mean, self.std = config.image_px, config.mean, config.std
        self.encoder, channels = _build_encoder(config.encoder)
        self.head = nn.Sequential(
            _dilated(channels, config.head_width, config.head_dilation),
            nn.ReLU(),
            _dilated(config.head_width, 1 + num_classes, config.head_dilation),
        )
        if config.freeze_bn:
            self._freeze()

    def forward(
        self, image_BCHW: Tensor, label_B: Tensor, target_BHW: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy of every known pixel, the mean over those of all ranks' images.

        Args:
            label_B: not used.
            target_BHW: uint8 label maps: 0 background, class + 1, 255 unknown.
        """
        assert target_BHW is not None, "a segmenter without label maps"
        logit_BLHW = _enlarge(self._logits(image_BCHW).float(), target_BHW.shape[1:])
        known_BHW = target_BHW != IGNORE
        # With a mean of its own a rank of few known pixels would weigh as much as one of many.
        counts = gather_rows(known_BHW.sum()[None])
        total = F.cross_entropy(logit_BLHW, target_BHW.long(), ignore_index=IGNORE, reduction="sum")
        right = (logit_BLHW.detach().argmax(dim=1) == target_BHW) & known_BHW
        return {
            "loss": total * len(counts) / counts.sum().clamp_min(1),
            "pixel_accuracy": right.sum() / known_BHW.sum().clamp_min(1),
        }

    def localize(self, image_BCHW: Tensor, class_BK: Classes = None) -> Localization:
        """Maps are the classes' probabilities; an image's class probabilities are their means over the pixels."""
        with self.evaluating():
            segment_BLHW = self._segment(image_BCHW)
            mean_BC = segment_BLHW[:, 1:].mean(dim=(2, 3))
            prob_BC = mean_BC / mean_BC.sum(dim=1, keepdim=True)
            class_BK = top_class(prob_BC, class_BK)
            maps = pick_maps(segment_BLHW[:, 1:], class_BK)
        return Localization(prob_BC=prob_BC, class_BK=class_BK, map_BKhw=maps, segment_BChw=segment_BLHW)

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if self.config.freeze_bn:
            keep_bn_eval(self.encoder)
        return self

    def lr_scales(self) -> dict[str, float]:
        if self.config.head_lr == 1:
            return {}
        return {name: self.config.head_lr for name, _ in self.named_parameters() if name.startswith("head.")}

    @classmethod
    def tiny_config(cls) -> SegmenterConfig:
        # Residual branches that start at 0 would hold back the first step's gradients.
        encoder = CNNConfig(arch="resnet10t", model_kwargs={"zero_init_last": False, "output_stride": 8})
        return SegmenterConfig(
            image_px=64, encoder=encoder, head_width=16, head_dilation=2, scales=(1.0, 0.5), flip=True
        )

    def _logits(self, image_BCHW: Tensor) -> Tensor:
        """(B, 1 + C, h, w), background first."""
        found = self.encoder(image_BCHW)
        return self.head(found if isinstance(found, Tensor) else found[-1])

    def _segment(self, image_BCHW: Tensor) -> Tensor:
        """Probabilities of all views at the image's size: (B, 1 + C, H, W) float32."""
        size = image_BCHW.shape[2:]
        best_BLHW: Tensor | None = None
        for scale in self.config.scales:
            view_BCHW = resize_square(image_BCHW, max(1, round(size[0] * scale)))
            for mirrored in (False, True) if self.config.flip else (False,):
                logit = self._logits(view_BCHW.flip(-1) if mirrored else view_BCHW).float()
                prob_BLHW = _enlarge(logit.flip(-1) if mirrored else logit, size).softmax(dim=1)
                best_BLHW = prob_BLHW if best_BLHW is None else torch.maximum(best_BLHW, prob_BLHW)
        assert best_BLHW is not None
        best_BLHW = best_BLHW / best_BLHW.sum(dim=1, keepdim=True)
        if not self.config.crf.iterations:
            return best_BLHW
        std_C11, mean_C11 = (image_BCHW.new_tensor(value)[:, None, None] for value in (self.std, self.mean))
        return mean_field(best_BLHW, (image_BCHW * std_C11 + mean_C11) * 255, self.config.crf)

    def _freeze(self) -> None:
        for module in self.encoder.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)
        if isinstance(self.encoder, ResNet38):
            self.encoder.conv1a.requires_grad_(False)


def _build_encoder(config: CNNConfig) -> tuple[Any, int]:
    """The network, with its weights where a file is named, and the channels of its last map."""
    if config.arch != RESNET38:
        encoder = build_encoder(config, pyramid=False)
        return encoder, encoder.feature_info.channels()[-1]
    encoder = _resnet38(config)
    if wanted(config.checkpoint):
        source = f"method.encoder.checkpoint {config.checkpoint}"
        encoder.load_public(read_state(str(config.checkpoint)), source=source)
    return encoder, encoder.channels


def _resnet38(config: CNNConfig) -> ResNet38:
    try:
        return ResNet38(**config.model_kwargs)  # type: ignore[arg-type]
    except TypeError as error:
        raise UserError(
            f"method.encoder.model_kwargs: resnet38 refuses {config.model_kwargs}; it knows width only"
        ) from error


def _dilated(fan_in: int, fan_out: int, dilation: int) -> nn.Conv2d:
    conv = nn.Conv2d(fan_in, fan_out, 3, padding=dilation, dilation=dilation)
    nn.init.xavier_uniform_(conv.weight)
    return conv


def _enlarge(x_BLhw: Tensor, size: Any) -> Tensor:
    return F.interpolate(x_BLhw, size=tuple(size), mode="bilinear", align_corners=False)
