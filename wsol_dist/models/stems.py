"""Convolutional stems: feature maps that become the patch tokens of a transformer."""

from __future__ import annotations

import math
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsol_dist.errors import UserError
from wsol_dist.models.config import CONV_STEM, ViTConfig
from wsol_dist.models.weights import load_checked, read_state, wanted


class StemEmbed(nn.Module):
    """Stem, then a 1x1 convolution to the token width; stands where timm's PatchEmbed stood."""

    def __init__(self, stem: ConvStem | CNNStem, *, width: int, grid: int) -> None:
        super().__init__()
        self.stem = stem
        # What timm reads of a patch embedding when it resizes position embeddings.
        self.grid_size = (grid, grid)
        self.proj = nn.Conv2d(stem.channels, width, kernel_size=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D), row by row."""
        return self.proj(self.stem(image_BCHW)).flatten(2).transpose(1, 2)


class ConvStem(nn.Sequential):
    """3x3 stride-2 convolutions, each with norm and GELU, channels about doubling up to the width; then blocks."""

    def __init__(self, stride_px: int, width: int, *, num_blocks: int = 0, norm: str = "layer") -> None:
        num_convs = int(math.log2(stride_px))
        assert 2**num_convs == stride_px > 1, stride_px
        make_norm: type[nn.Module] = nn.BatchNorm2d if norm == "batch" else LayerNorm2d
        # Multiples of 16 fill the vector units; 24 channels at half resolution cost twice what 16 do.
        inner = [max(16, (width >> shift) // 16 * 16) for shift in range(num_convs - 1, 0, -1)]
        channels = [3, *inner, width]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(channels):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), make_norm(fan_out), nn.GELU()]
        layers += [ConvBlock(width, make_norm) for _ in range(num_blocks)]
        super().__init__(*layers)
        self.channels = channels[-1]

    def forward(self, image_BCHW: Tensor) -> Tensor:
        # Channels last makes the layer norms contiguous reads and the small convolutions faster.
        return super().forward(image_BCHW.contiguous(memory_format=torch.channels_last))


class ConvBlock(nn.Module):
    """x + GELU(conv3x3(norm(x)))."""

    def __init__(self, width: int, make_norm: type[nn.Module]) -> None:
        super().__init__()
        self.norm = make_norm(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.gelu(self.conv(self.norm(x)))


class CNNStem(nn.Module):
    """A timm CNN up to the last feature map of a stride."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        assert config.stem is not None
        self.cnn: Any = build_timm(config.stem, dict(config.stem_kwargs), num_classes=0)
        self.freeze, self.bn_eval = config.freeze_stem, config.stem_bn_eval
        self.index, self.channels = _feature_level(self.cnn, config)
        if wanted(config.stem_checkpoint):
            state = read_state(str(config.stem_checkpoint))
            classifier = self.cnn.default_cfg.get("classifier", "classifier")
            names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
            backbone = {k: v for k, v in state.items() if not k.startswith(tuple(f"{n}." for n in names))}
            load_checked(self.cnn, backbone, source=f"backbone.stem_checkpoint {config.stem_checkpoint}")
        if wanted(config.stem_bn_checkpoint):
            state = read_state(str(config.stem_bn_checkpoint))
            source = f"backbone.stem_bn_checkpoint {config.stem_bn_checkpoint}"
            load_checked(self.cnn, state, source=source, partial=True)
        # Layers behind the wanted map would train on nothing.
        self.cnn.prune_intermediate_layers([self.index])
        if self.freeze:
            self.requires_grad_(False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        # Channels last makes depthwise convolutions on a CPU about half again as fast.
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            maps = self.cnn.forward_intermediates(
                image_BCHW, indices=[self.index], intermediates_only=True, stop_early=True
            )
        return maps[0]

    def train(self, mode: bool = True) -> CNNStem:
        """Training mode, from which a frozen stem and (by the config) the batch norms are left out."""
        super().train(mode and not self.freeze)
        if self.bn_eval:
            keep_bn_eval(self)
        return self


def keep_bn_eval(module: nn.Module) -> None:
    """Put every batch norm into eval mode, so that it uses its running statistics."""
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.eval()


def build_stem(config: ViTConfig, *, stride_px: int, width: int) -> ConvStem | CNNStem:
    """The stem that the config names; weights from local files only."""
    if config.stem != CONV_STEM:
        return CNNStem(config)
    if stride_px & (stride_px - 1):
        raise UserError(f"backbone.patch_px: {stride_px} is not a power of two, as the conv stem needs")
    return ConvStem(stride_px, width, num_blocks=config.stem_blocks, norm=config.stem_norm)


def build_timm(name: str, kwargs: dict[str, Any], *, num_classes: int) -> Any:
    """A timm model with random weights.

    Raises:
        UserError: timm has no such model, or the model refuses an argument.
    """
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3)
        raise UserError(f"timm has no model {name!r}" + (f"; close: {', '.join(close)}" if close else ""))
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **kwargs)
    except TypeError as error:
        raise UserError(f"timm model {name!r} refuses its arguments {kwargs}: {error}") from error


def _feature_level(cnn: Any, config: ViTConfig) -> tuple[int, int]:
    """Index and channels of the last feature map at the wanted stride."""
    info = getattr(cnn, "feature_info", None)
    if not info or not hasattr(cnn, "prune_intermediate_layers"):
        raise UserError(f"backbone.stem: timm model {config.stem!r} gives no intermediate feature maps")
    levels = [(level["reduction"], level["num_chs"]) for level in info]
    fitting = [index for index, (stride, _) in enumerate(levels) if stride == config.stem_stride]
    if not fitting:
        strides = ", ".join(str(stride) for stride in sorted({stride for stride, _ in levels}))
        raise UserError(
            f"backbone.stem_stride: {config.stem!r} has strides {strides}, not {config.stem_stride}"
        )
    return fitting[-1], levels[fitting[-1]][1]
