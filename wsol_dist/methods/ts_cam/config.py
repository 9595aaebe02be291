"""The knobs of TS-CAM."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import PositiveFloat, PositiveInt

from wsol_dist.methods.config import MethodConfig
from wsol_dist.models.config import Direction, ViTConfig


@dataclass(frozen=True, kw_only=True)
class TSCAMConfig(MethodConfig):
    """One scale of a vision transformer with a convolutional head on its patch tokens."""

    image_px: PositiveInt = 224
    """Side of the input in pixels; a multiple of the backbone's stride."""
    backbone: ViTConfig = field(default_factory=ViTConfig)
    """The transformer."""
    attention_direction: Direction = "class_query"
    """class_query: the class token asks the patches, A[:, 0, 1:]; patch_query: they ask it, A[:, 1:, 0]."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Pixel mean of the backbone's weights, of values in 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Pixel standard deviation of the backbone's weights, of values in 0..1."""

    @property
    def takes_multi_label(self) -> bool:
        return True
