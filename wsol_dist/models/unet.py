"""A U-Net that gives one map an image: the decoder of the weight-map paper over any feature pyramid of timm."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsol_dist.errors import UserError
from wsol_dist.models.backbones import download_state
from wsol_dist.models.config import CNNConfig
from wsol_dist.models.stems import build_timm
from wsol_dist.models.weights import State, downloads_wanted, load_checked, read_state, wanted

LEAST_WIDTH = 16


class UNet(nn.Module):
    """Image -> logits of a map of its own size.

    Five blocks (for an encoder of stride 32) enlarge twofold each; a block takes the encoder's map of its own
    size beside what it enlarges. At the input's resolution there is none. Source: Shaharabany and Wolf, "Learning a
    weight map for weakly-supervised localization", section "Architecture".

    Args:
        wwbl: the variant of the authors' later public code (WWbL): two convolutions behind the encoder, blocks at
            strides 16, 8, 4, 4 and 2 (the fourth does not enlarge, its skip is the pooled stride-2 map), batch norm
            behind both convolutions of a block, and a plain twofold enlargement at the end.
        inner_relu: a ReLU between the two convolutions of a block.
        out_stride: the blocks end at this stride, and a bilinear enlargement does the rest; the paper's is 1.
    """

    def __init__(
        self, encoder: CNNConfig, *, wwbl: bool = False, inner_relu: bool = True, out_stride: int = 1
    ) -> None:
        super().__init__()
        self.wwbl = wwbl
        self.encoder: Any = build_encoder(encoder)
        channels = dict(
            zip(self.encoder.feature_info.reduction(), self.encoder.feature_info.channels(), strict=True)
        )
        deepest = max(channels)
        if wwbl and not {2, 4, 8, 16, 32} <= set(channels):
            raise UserError(
                f"method.wwbl: encoder {encoder.arch!r} has strides {sorted(channels)}, wanted are 2 to 32; "
                "try resnet18 or mobilenetv2_100"
            )
        halved = [deepest >> n for n in range(1, deepest.bit_length())]
        self.strides = [16, 8, 4, 4, 2] if wwbl else [stride for stride in halved if stride >= out_stride]
        if out_stride not in halved:
            raise UserError(
                f"method.out_stride: given {out_stride}, encoder {encoder.arch!r} allows {', '.join(map(str, halved))}"
            )
        skips = [channels.get(stride, 0) for stride in self.strides]
        if wwbl:
            skips[3] = channels[2]
        widths = [channels[deepest]]
        for skip in skips:
            widths.append(skip or max(LEAST_WIDTH, widths[-1] // 2))
        widths[-1] = 1
        self.bottom = Block(widths[0], widths[0], norm_both=True, inner_relu=True) if wwbl else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(fan_in + skip, fan_out, norm_both=wwbl, inner_relu=inner_relu)
            for (fan_in, fan_out), skip in zip(pairwise(widths), skips, strict=True)
        )

    @property
    def out_norm(self) -> nn.BatchNorm2d:
        """The batch norm of one channel behind everything."""
        *_, last = self.blocks[-1].children()
        assert isinstance(last, nn.BatchNorm2d)
        return last

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, 1, H, W)."""
        # Channels last makes the depthwise convolutions of a mobile encoder faster on a CPU.
        pyramid = self.encoder(image_BCHW.contiguous(memory_format=torch.channels_last))
        by_stride = dict(zip(self.encoder.feature_info.reduction(), pyramid, strict=True))
        x = self.bottom(pyramid[-1])
        height, width = image_BCHW.shape[2:]
        for number, (stride, block) in enumerate(zip(self.strides, self.blocks, strict=True)):
            skip = by_stride.get(stride)
            if self.wwbl and number == 3:
                skip = F.max_pool2d(by_stride[2], kernel_size=3, stride=2, padding=1)
            size = (-(-height // stride), -(-width // stride)) if skip is None else skip.shape[2:]
            x = _enlarge(x, size)
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
            if number + 1 < len(self.blocks):
                x = F.relu(x)
        return _enlarge(x, (height, width))


class Block(nn.Sequential):
    """Two 3x3 convolutions with zero padding; batch norm behind the last (or behind both). No activation behind."""

    def __init__(self, fan_in: int, fan_out: int, *, norm_both: bool, inner_relu: bool) -> None:
        between: list[nn.Module] = [nn.BatchNorm2d(max(fan_out, LEAST_WIDTH))] if norm_both else []
        between += [nn.ReLU()] if inner_relu else []
        inner = max(fan_out, LEAST_WIDTH)
        super().__init__(
            nn.Conv2d(fan_in, inner, 3, padding=1, bias=not norm_both),
            *between,
            nn.Conv2d(inner, fan_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(fan_out),
        )


def build_encoder(config: CNNConfig, *, pyramid: bool = True) -> Any:
    """timm's feature pyramid of an architecture, with its weights where the config names some.

    Args:
        pyramid: the maps must halve from one to the next; False takes dilated networks (`output_stride: 8`) too.

    Raises:
        UserError: unknown architecture, one without a pyramid of falling resolution, or weights that do not fit.
    """
    encoder = _features_only(config, pyramid=pyramid)
    if wanted(config.checkpoint):
        source = f"method.encoder.checkpoint {config.checkpoint}"
        _load(encoder, read_state(str(config.checkpoint)), source=source)
    elif downloads_wanted(config.pretrained):
        _load(encoder, download_state(config.arch), source=f"timm's weights of {config.arch}")
    if wanted(config.bn_checkpoint):
        source = f"method.encoder.bn_checkpoint {config.bn_checkpoint}"
        _load(encoder, read_state(str(config.bn_checkpoint)), source=source, partial=True)
    return encoder


def _features_only(config: CNNConfig, *, pyramid: bool) -> Any:
    whole = build_timm(
        config.arch, dict(config.model_kwargs), num_classes=0
    )  # refuses unknown names and arguments
    kwargs: dict[str, Any] = dict(config.model_kwargs)
    try:
        encoder: Any = timm.create_model(config.arch, pretrained=False, features_only=True, **kwargs)
        strides = encoder.feature_info.reduction()
    except (RuntimeError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"method.encoder.arch: {config.arch!r} ({type(whole).__name__}) gives no feature pyramid; try resnet18"
        ) from error
    if not pyramid:
        return encoder
    if strides != sorted(set(strides)) or any(stride & (stride - 1) for stride in strides):
        raise UserError(
            f"method.encoder.arch: {config.arch!r} has feature maps at strides {strides}; wanted are rising powers "
            "of two, as resnet18 or mobilenetv2_100 have them"
        )
    return encoder


def _load(encoder: Any, state: State, *, source: str, partial: bool = False) -> None:
    """The encoder's part of a whole network's weights; timm's pyramids may write `stages_0` for `stages.0`."""
    # One of ours, of the method that trained a whole CNN.
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    flat = {name.replace(".", "_"): tensor for name, tensor in state.items()}
    own = {
        name: flat[name.replace(".", "_")] for name in encoder.state_dict() if name.replace(".", "_") in flat
    }
    if not own:
        raise UserError(
            f"{source}: no tensor of it belongs to {type(encoder).__name__}, first {next(iter(state), 'nothing')!r}; "
            "give weights of method.encoder.arch"
        )
    load_checked(encoder, own, source=source, partial=partial)


def _enlarge(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
