"""Backbones of timm behind one small protocol: a transformer with or without a CNN stem, and a plain CNN."""

from __future__ import annotations

import logging
import math
import re
from types import MethodType
from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models.vision_transformer import Attention, Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from wsol_dist.errors import UserError
from wsol_dist.models.attention import BoundedLength, run_blocks_with_row
from wsol_dist.models.config import CONV_STEM, Direction, ViTConfig
from wsol_dist.models.stems import StemEmbed, build_stem, build_timm
from wsol_dist.models.weights import (
    State,
    downloads_wanted,
    load_checked,
    read_state,
    shape_problems,
    wanted,
)

__all__ = ["ViT", "ViTConfig", "build_cnn", "build_vit", "download_state"]

log = logging.getLogger(__name__)


class ViT(nn.Module):
    """A timm VisionTransformer without classifier, for square images of one size; others get resized positions."""

    def __init__(self, vit: Any, *, image_px: int, stride_px: int) -> None:
        super().__init__()
        self.vit = vit
        # Calling the timm model embeds and no more: its own parameters are then used within its own call,
        # where hooks expect them (ZeRO 3 gathers them there).
        vit.forward = MethodType(_embed, vit)
        # Images of other sizes are for localizing at several scales.
        vit.dynamic_img_size, vit.patch_embed.strict_img_size = True, False
        self.image_px = image_px
        self.stride_px = stride_px
        self.width: int = vit.embed_dim
        self.classifier_bias: Tensor | None = None
        """The bias of the classifier in the loaded checkpoint, for a head that can start from it."""

    def grid(self, image_px: int | None = None) -> int:
        """Patches along a side."""
        return (image_px or self.image_px) // self.stride_px

    def forward_tokens(self, image_BCHW: Tensor) -> Tensor:
        """Class token and patch tokens behind the final norm: (B, 1 + N, D)."""
        return self._finish(self.vit.blocks(self.vit(image_BCHW)))

    def forward_tokens_and_row(
        self, image_BCHW: Tensor, *, direction: Direction = "class_query"
    ) -> tuple[Tensor, Tensor]:
        """The tokens (B, 1 + N, D), and the class token's attention summed over blocks: (B, N) float32."""
        token_BND, row_BN = run_blocks_with_row(
            self.vit.blocks,
            self.vit(image_BCHW),
            num_prefix=self.vit.num_prefix_tokens,
            direction=direction,
        )
        return self._finish(token_BND), row_BN

    def add_norm_after_pos_embed(self) -> None:
        """A layer norm between the position embedding and the first block, where there is none yet."""
        if isinstance(self.vit.norm_pre, nn.Identity):
            self.vit.norm_pre = nn.LayerNorm(self.width, eps=1e-6)

    def no_weight_decay(self) -> set[str]:
        """Names of the embeddings, which are not decayed."""
        names = ("pos_embed", "cls_token", "reg_token", "dist_token")
        return {f"vit.{name}" for name in names if getattr(self.vit, name, None) is not None}

    def load_backbone(self, state: State) -> list[str]:
        """Load a checkpoint of the plain timm model; returns a line each on what was not used.

        The patch grid of the position embeddings is resized bicubically, the class part kept apart. Behind a
        stem the checkpoint's own patch embedding has no place.

        Raises:
            UserError: it is not a checkpoint of this architecture at this depth and width.
        """
        own = self.vit.state_dict()
        has_stem = isinstance(self.vit.patch_embed, StemEmbed)
        kept = {k: v for k, v in state.items() if not (has_stem and k.startswith("patch_embed."))}
        if kept.get("pos_embed") is not None and kept["pos_embed"].shape[-1] != self.width:
            raise UserError(
                f"checkpoint: its width is {kept['pos_embed'].shape[-1]}, the backbone's {self.width}"
            )
        kept = checkpoint_filter_fn(kept, self.vit)
        allowed = ("patch_embed.", "norm_pre.") if has_stem else ("norm_pre.",)
        missing = [name for name in own if name not in kept and not name.startswith(allowed)]
        problems = [f"{len(missing)} tensors missing, first {missing[0]!r}"] if missing else []
        problems += shape_problems(own, kept)
        if problems:
            raise UserError(f"checkpoint: does not fit the backbone: {'; '.join(problems)}")
        self.vit.load_state_dict(kept, strict=False)
        self.classifier_bias = state.get("head.bias")
        return [f"not used: {name}" for name in state if name not in own or name not in kept]

    def resize_pos_embed(self, pos_embed_1ND: Tensor) -> Tensor:
        """A position embedding of another image size, brought to this backbone's grid."""
        return checkpoint_filter_fn({"pos_embed": pos_embed_1ND}, self.vit)["pos_embed"]

    def _finish(self, token_BND: Tensor) -> Tensor:
        token_BND = self.vit.norm(token_BND)
        extra = self.vit.num_prefix_tokens - 1
        return torch.cat([token_BND[:, :1], token_BND[:, 1 + extra :]], dim=1) if extra else token_BND


def _embed(vit: Any, image_BCHW: Tensor) -> Tensor:
    """Tokens with position embeddings, prefix tokens first, as they enter the first block.

    Of images of another size than the transformer was made for, the position embeddings are resized bicubically.
    """
    patch_BND = vit.patch_embed(image_BCHW)
    side = math.isqrt(patch_BND.shape[1])
    return vit.norm_pre(vit.patch_drop(vit._pos_embed(patch_BND.unflatten(1, (side, side)))))


def build_vit(config: ViTConfig, image_px: int) -> ViT:
    """The transformer of the config for square images of `image_px`, with its weights where files are named.

    Raises:
        UserError: unknown or unfit architecture, image size that the stride does not divide, unfit weights.
    """
    wanted_px = config.stem_stride if config.stem not in (None, CONV_STEM) else config.patch_px
    wishes = {
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": config.mlp_ratio,
        "patch_size": wanted_px,
    }
    kwargs = {name: value for name, value in wishes.items() if value is not None}
    try:
        vit = build_timm(
            config.arch, {"img_size": image_px, "drop_path_rate": config.drop_path} | kwargs, num_classes=0
        )
    except AssertionError as error:
        raise UserError(f"backbone {config.arch!r} with {kwargs}: {error}") from error
    _check_vit(vit, config.arch)
    if config.attn_drop_path is not None:
        for block in vit.blocks:
            block.drop_path1 = DropPath(config.attn_drop_path)
    if config.attn_bound is not None:
        for block in vit.blocks:
            block.attn.q_norm = BoundedLength(bound=config.attn_bound, head_dim=block.attn.head_dim)
            block.attn.k_norm = BoundedLength(bound=config.attn_bound, head_dim=block.attn.head_dim)
    stride_px: int = vit.patch_embed.patch_size[0]
    if image_px % stride_px:
        raise UserError(f"image size {image_px} px is not a multiple of the backbone's stride {stride_px} px")
    if config.stem is not None:
        stem = build_stem(config, stride_px=stride_px, width=vit.embed_dim)
        vit.patch_embed = StemEmbed(stem, width=vit.embed_dim, grid=image_px // stride_px)
    backbone = ViT(vit, image_px=image_px, stride_px=stride_px)
    _load_named_weights(backbone, config)
    return backbone


def build_cnn(
    arch: str,
    kwargs: dict[str, bool | int | float | str],
    *,
    num_classes: int,
    checkpoint: str | None = None,
    pretrained: bool = False,
    bn_checkpoint: str | None = None,
) -> Any:
    """A timm CNN; its weights must fit, except that a classifier of another class count is left out.

    Args:
        checkpoint: local weights in timm's format.
        pretrained: timm's own weights instead, through the network.
        bn_checkpoint: local batch-norm tensors that are loaded over them.

    Raises:
        UserError: unknown architecture or argument, or a file that does not fit.
    """
    cnn = build_timm(arch, dict(kwargs), num_classes=num_classes)
    if wanted(checkpoint):
        _load_but_classifier(cnn, read_state(str(checkpoint)), source=f"checkpoint {checkpoint}")
    elif downloads_wanted(pretrained):
        _load_but_classifier(cnn, download_state(arch), source=f"timm's weights of {arch}")
    if wanted(bn_checkpoint):
        source = f"bn_checkpoint {bn_checkpoint}"
        load_checked(cnn, read_state(str(bn_checkpoint)), source=source, partial=True)
    return cnn


def _load_but_classifier(cnn: Any, state: State, *, source: str) -> None:
    classifier = cnn.default_cfg["classifier"]
    own = cnn.state_dict()
    names = [name for name in state if name.startswith(f"{classifier}.") and name in own]
    other = [name for name in names if own[name].shape != state[name].shape]
    for name in other:
        log.info("%s: not used: %s (%d outputs wanted)", source, name, len(own[name]))
    kept = {name: tensor for name, tensor in state.items() if name not in other}
    load_checked(cnn, kept | {name: own[name] for name in other}, source=source)


def download_state(arch: str) -> State:
    """timm's pretrained weights of an architecture, through the network or its cache.

    Raises:
        UserError: there are none, or they cannot be had.
    """
    try:
        return timm.create_model(arch, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = re.sub(r"\s+", " ", str(error)).strip()[:160]
        raise UserError(
            f"no pretrained weights for {arch!r} ({reason}); without network bring timm's model.safetensors "
            f"of {arch!r} along and name it in `checkpoint` (and set pretrained: false)"
        ) from error


def _check_vit(vit: Any, arch: str) -> None:
    usable = (
        isinstance(vit, VisionTransformer)
        and getattr(vit, "cls_token", None) is not None
        and getattr(vit, "pos_embed", None) is not None
        and all(type(block) is Block and type(block.attn) is Attention for block in vit.blocks)
    )
    if not usable:
        raise UserError(
            f"backbone.arch: {arch!r} is not a timm VisionTransformer of plain blocks with a class token and "
            "learned position embeddings; try deit_small_patch16_224"
        )


def _load_named_weights(backbone: ViT, config: ViTConfig) -> None:
    if wanted(config.checkpoint):
        unused = backbone.load_backbone(read_state(str(config.checkpoint)))
        log.info("%s: %s", config.checkpoint, "; ".join(unused) or "all used")
    elif downloads_wanted(config.pretrained):
        backbone.load_backbone(download_state(config.arch))
