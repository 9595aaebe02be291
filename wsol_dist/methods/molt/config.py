"""The knobs of MOLT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from wsol_dist.methods.config import MethodConfig
from wsol_dist.models.config import Direction, ViTConfig

Combine = Literal["mean", "sum", "product", "max"]


@dataclass(frozen=True, kw_only=True)
class MOLTConfig(MethodConfig):
    """One TS-CAM transformer for each resolution of the image pyramid; they share no parameter."""

    scales_px: tuple[PositiveInt, ...] = (224, 336, 448)
    """Image sides of the pyramid in pixels; the largest is the method's input."""
    backbone: ViTConfig = field(default_factory=ViTConfig)
    """The transformer of every scale."""
    combine: Combine = "mean"
    """How the min-max normalised maps of the scales become one."""
    train_scales: tuple[int, ...] = ()
    """Numbers (from 0) of the scales to train; the others are frozen and skipped. Empty: all."""
    localize_scales: tuple[int, ...] = ()
    """Numbers of the scales that make maps and class probabilities. Empty: those that are trained."""
    norm_after_pos_embed: bool = False
    """Layer norm right after adding the position embedding, as the paper draws it; DeiT has none there."""
    attention_direction: Direction = "class_query"
    """class_query: the class token asks the patches, A[:, 0, 1:]; patch_query: they ask it, A[:, 1:, 0]."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Pixel mean of the backbone's weights, of values in 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Pixel standard deviation of the backbone's weights, of values in 0..1."""

    @property
    def takes_multi_label(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if not self.scales_px or len(set(self.scales_px)) < len(self.scales_px):
            raise ValueError(f"method.scales_px: {self.scales_px}; give at least one, each another size")
        for name in ("train_scales", "localize_scales"):
            wrong = [index for index in getattr(self, name) if not 0 <= index < len(self.scales_px)]
            if wrong:
                raise ValueError(f"method.{name}: {wrong[0]}; allowed: 0 to {len(self.scales_px) - 1}")
