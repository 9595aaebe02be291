"""MMCST: multi-modal class-specific tokens for dense localization (Xu et al., CVPR 2023).

A class token and a text token for every class go through the transformer with the patches; each correlates with the
patches, once as what the data set taught it (global) and once as what this image made of it (local).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsol_dist.methods.base import (
    Classes,
    Localization,
    Method,
    label_accuracy,
    pick_maps,
    top_class,
)
from wsol_dist.methods.mmcst.config import MMCSTConfig
from wsol_dist.methods.mmcst.context_loss import contrastive_loss, l1_loss
from wsol_dist.methods.molt.network import combine_maps
from wsol_dist.methods.multiscale import localize_views, view_sides
from wsol_dist.methods.ts_cam.network import BACKBONE, POS_EMBED, TSCAM
from wsol_dist.models.attention import run_blocks_with_inputs, spread_by_attention
from wsol_dist.models.backbones import build_vit
from wsol_dist.models.clip import text_embeddings
from wsol_dist.models.config import TextConfig
from wsol_dist.models.weights import texts_wanted

CLASS_TOKEN, TEXT = "class_token_CD", "text_CE"


class MMCST(Method):
    """Class tokens, text tokens and patches through one transformer."""

    Config = MMCSTConfig

    def __init__(self, config: MMCSTConfig, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.image_px, self.mean, self.std = config.image_px, config.mean, config.std
        self.has_text = config.tokens != "visual"
        self.num_text = min(config.text_top or num_classes, num_classes) if self.has_text else 0
        self.backbone = build_vit(config.backbone, config.image_px)
        # The mean over the width behind a layer norm of gain 1 and bias 0 is 0: y_cls could not learn.
        self.backbone.vit.norm = nn.Identity()
        self.backbone.vit.cls_token.requires_grad_(False)
        width = self.backbone.width
        self.class_token_CD = nn.Parameter(torch.empty(num_classes, width))
        self._take_class_token()
        if self.has_text:
            self.text_CE = nn.Parameter(F.normalize(torch.randn(num_classes, config.text.dim), dim=1))
            self.text_in = nn.Linear(config.text.dim, width)
        if config.context_target != "none":
            self.context_out = nn.Linear(width, config.context_dim)

    def take_class_names(self, names: Sequence[str]) -> None:
        if self.has_text and self.config.text.source != "random" and texts_wanted():
            self.text_CE.data.copy_(text_embeddings(self.config.text, names))

    def forward(
        self, image_BCHW: Tensor, label_B: Tensor, target_BE: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Soft margin losses of the class tokens and both correlations, and the context's.

        Args:
            label_B: (B,) int64, or (B, C) float of 0 and 1.
            target_BE: the images' frozen embeddings, where `context_target` wants them.
        """
        label_BC = one_hot(label_B, self.num_classes)
        first_BC = self._first_pass(image_BCHW)
        text_BT = None if first_BC is None else self._chosen(first_BC, label_BC > 0)
        text_label_BT = label_BC if text_BT is None else label_BC.gather(1, text_BT)
        token_BMD, _ = self._run(image_BCHW, text_BT, keep=False)
        logits = self._logits(token_BMD, self._correlations(token_BMD, text_BT))
        losses = {
            f"loss_{name}": F.multilabel_soft_margin_loss(
                logit_BC.float(), text_label_BT if name == "t2p" else label_BC
            )
            for name, logit_BC in logits.items()
        }
        logged = {}
        if first_BC is not None:
            losses["loss_first"] = F.multilabel_soft_margin_loss(first_BC, label_BC)
            logged["text_found"] = self._share_found(first_BC, label_BC)
        if self.config.context_target != "none":
            assert target_BE is not None, "context_target without embeddings"
            losses["loss_context"] = self._context_loss(self._local_text(token_BMD), text_label_BT, target_BE)
        logged["accuracy"] = label_accuracy(self._prob(logits, first_BC), label_BC)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses, **logged}

    def localize(self, image_BCHW: Tensor, class_BK: Classes = None) -> Localization:
        sides_px = view_sides(self.image_px, scales=self.config.scales, stride_px=self.backbone.stride_px)
        with self.evaluating():
            return localize_views(
                self._localize_view, image_BCHW, class_BK, sides_px=sides_px, flip=self.config.flip
            )

    def no_weight_decay(self) -> set[str]:
        names = {BACKBONE + name for name in self.backbone.no_weight_decay()} | {CLASS_TOKEN}
        return names | {TEXT} if self.has_text else names

    def load_init(self, state: dict[str, Tensor]) -> list[str]:
        """A state dict of this method (of any image size) or of the plain timm transformer."""
        if not any(name.startswith(BACKBONE) for name in state):
            unused = self.backbone.load_backbone(state)
            self._take_class_token()
            return unused
        if POS_EMBED in state and state[POS_EMBED].shape[-1] == self.backbone.width:
            state = state | {POS_EMBED: self.backbone.resize_pos_embed(state[POS_EMBED])}
        return super().load_init(state)

    @classmethod
    def tiny_config(cls) -> MMCSTConfig:
        backbone = TSCAM.tiny_config().backbone
        return MMCSTConfig(
            image_px=32, backbone=backbone, text=TextConfig(dim=16), scales=(1.0, 0.75), flip=True
        )

    def _run(
        self, image_BCHW: Tensor, text_BT: Tensor | None = None, *, keep: bool, with_text: bool = True
    ) -> tuple[Tensor, list[Tensor]]:
        """C class tokens, T text tokens, N patches behind the last block (B, M, D); with `keep` each block's input.

        Args:
            text_BT: the classes whose text tokens take part; None for all.
            with_text: False leaves them all out.
        """
        vit = self.backbone.vit
        patch_BND = vit(image_BCHW)[:, vit.num_prefix_tokens :]
        first = [self.class_token_CD.expand(patch_BND.shape[0], -1, -1)]
        if self.has_text and with_text:
            first.append(self._global_text(text_BT).expand(patch_BND.shape[0], -1, -1))
        token_BMD = torch.cat([*(one.to(patch_BND.dtype) for one in first), patch_BND], dim=1)
        return run_blocks_with_inputs(vit.blocks, token_BMD) if keep else (vit.blocks(token_BMD), [])

    def _first_pass(self, image_BCHW: Tensor) -> Tensor | None:
        """The class tokens' scores without any text token (B, C), which choose those; None without a choice."""
        if self.num_text in (0, self.num_classes):
            return None
        token_BMD, _ = self._run(image_BCHW, keep=False, with_text=False)
        return self._class_scores(token_BMD)

    def _chosen(self, first_BC: Tensor, wanted_BC: Tensor) -> Tensor:
        """The classes whose text tokens take part: (B, T) int64, the wanted ones in front."""
        return first_BC.detach().masked_fill(wanted_BC, torch.inf).topk(self.num_text, dim=1).indices

    def _share_found(self, first_BC: Tensor, label_BC: Tensor) -> Tensor:
        """Of the images' own classes, the share that the first pass would choose unasked."""
        unasked_BT = self._chosen(first_BC, torch.zeros_like(label_BC, dtype=torch.bool))
        return label_BC.gather(1, unasked_BT).sum() / label_BC.sum().clamp_min(1)

    def _global_text(self, text_BT: Tensor | None = None) -> Tensor:
        """Of all classes (C, D), or of some for each image (B, T, D)."""
        return self.text_in(self.text_CE if text_BT is None else self.text_CE[text_BT])

    def _local_text(self, token_BMD: Tensor) -> Tensor:
        return token_BMD[:, self.num_classes : self._num_prefix]

    @property
    def _num_prefix(self) -> int:
        return self.num_classes + self.num_text

    def _correlations(self, token_BMD: Tensor, text_BT: Tensor | None = None) -> dict[str, Tensor]:
        """Of each class with each patch by kind of token: (B, C, N), of text tokens (B, T, N), signed."""
        patch_BDN = token_BMD[:, self._num_prefix :].transpose(1, 2)
        if self.config.scale_correlation:
            patch_BDN = patch_BDN / self.backbone.width**0.5
        class_BCD = token_BMD[:, : self.num_classes]
        found = {"c2p": self._mixed(self.class_token_CD, class_BCD, self.config.class_local) @ patch_BDN}
        if self.has_text:
            local_BTD = self._local_text(token_BMD)
            text_BTD = self._mixed(self._global_text(text_BT), local_BTD, self.config.text_local)
            found["t2p"] = text_BTD @ patch_BDN
        return found

    def _mixed(self, global_CD: Tensor, local_BCD: Tensor, weight: float) -> Tensor:
        if self.config.tokens == "local":
            return local_BCD
        return global_CD + weight * local_BCD if self.config.tokens == "global_local" else global_CD

    def _logits(self, token_BMD: Tensor, correlation: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the class tokens and of each correlation: (B, C), of text tokens (B, T), float32."""
        pooled = {name: gwrp(c_BCN.float(), self.config.gwrp_decay) for name, c_BCN in correlation.items()}
        return {"cls": self._class_scores(token_BMD), **pooled}

    def _class_scores(self, token_BMD: Tensor) -> Tensor:
        """The class tokens' mean over the width (MCTformer): (B, C) float32."""
        return token_BMD[:, : self.num_classes].float().mean(dim=2)

    def _prob(self, logits: dict[str, Tensor], first_BC: Tensor | None = None) -> Tensor:
        """Class probabilities; of the first pass where there is one: the other was told the wanted classes."""
        if first_BC is not None:
            return first_BC.detach().softmax(dim=1)
        return torch.stack(list(logits.values())).detach().mean(dim=0).softmax(dim=1)

    def _context_loss(self, text_BCD: Tensor, label_BC: Tensor, target_BE: Tensor) -> Tensor:
        """The context is the mean of the local text tokens of an image's classes."""
        share_BC = label_BC / label_BC.sum(dim=1, keepdim=True).clamp_min(1)
        context_BD = torch.einsum("bc,bcd->bd", share_BC.to(text_BCD.dtype), text_BCD)
        context_BE = F.normalize(self.context_out(context_BD).float(), dim=1)
        target_BE = F.normalize(target_BE.float(), dim=1)
        if self.config.context_loss == "l1":
            return l1_loss(context_BE, target_BE)
        return contrastive_loss(
            context_BE,
            target_BE,
            temperature=self.config.temperature,
            both_ways=self.config.contrast_both_ways,
        )

    def _localize_view(self, image_BCHW: Tensor, class_BK: Classes) -> Localization:
        first_BC = self._first_pass(image_BCHW)
        text_BT = None
        if first_BC is not None:
            class_BK = top_class(self._prob({}, first_BC), class_BK)
            wanted_BC = torch.zeros_like(first_BC, dtype=torch.bool).scatter(1, class_BK, True)
            text_BT = self._chosen(first_BC, wanted_BC)
        token_BMD, inputs = self._run(image_BCHW, text_BT, keep=self.config.affinity)
        correlation = self._correlations(token_BMD, text_BT)
        prob_BC = self._prob(self._logits(token_BMD, correlation), first_BC)
        class_BK = top_class(prob_BC, class_BK)
        place_BK = {"c2p": class_BK, "t2p": _places(class_BK, text_BT)}
        side = self.backbone.grid(image_BCHW.shape[2])
        maps = {
            name: pick_maps(c_BCN.float().relu().unflatten(2, (side, side)), place_BK[name])
            for name, c_BCN in correlation.items()
            if self.config.maps in ("fused", name)
        }
        map_BKhw = combine_maps(list(maps.values()), self.config.combine)
        if self.config.affinity:
            spread_BKN = spread_by_attention(
                self.backbone.vit.blocks, inputs, map_BKhw.flatten(2), num_prefix=self._num_prefix
            )
            map_BKhw = spread_BKN.unflatten(2, (side, side))
        return Localization(prob_BC=prob_BC, class_BK=class_BK, map_BKhw=map_BKhw)

    def _take_class_token(self) -> None:
        """Start every class's token from the transformer's, with its position."""
        vit = self.backbone.vit
        token_D = vit.cls_token.detach()[0, 0].clone()
        if not vit.no_embed_class:
            token_D += vit.pos_embed.detach()[0, 0]
        self.class_token_CD.data.copy_(token_D.expand_as(self.class_token_CD))


def _places(class_BK: Tensor, text_BT: Tensor | None) -> Tensor:
    """Where the wanted classes lie among those whose text tokens take part: (B, K)."""
    if text_BT is None:
        return class_BK
    return (text_BT[:, None] == class_BK[:, :, None]).int().argmax(dim=2)


def one_hot(label_B: Tensor, num_classes: int) -> Tensor:
    """Labels as (B, C) float32, whether given as numbers or as zeros and ones."""
    return label_B.float() if label_B.ndim == 2 else F.one_hot(label_B, num_classes).float()


def gwrp(score_BCN: Tensor, decay: float) -> Tensor:
    """Global weighted ranking pooling (Kolesnikov and Lampert, ECCV 2016): (B, C).

    The j-th highest score of a class weighs decay^(j-1); weights add up to 1.
    """
    weight_N = decay ** torch.arange(score_BCN.shape[2], device=score_BCN.device, dtype=score_BCN.dtype)
    return score_BCN.sort(dim=2, descending=True).values @ (weight_N / weight_N.sum())
