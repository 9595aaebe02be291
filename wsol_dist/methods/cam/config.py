"""The knobs of CAM."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import PositiveFloat, PositiveInt

from wsol_dist.methods.config import MethodConfig


@dataclass(frozen=True, kw_only=True)
class CAMConfig(MethodConfig):
    """Any timm CNN that ends in global average pooling and one linear layer."""

    arch: str = "resnet50"
    """Name of a timm CNN."""
    model_kwargs: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Further arguments of the CNN, e.g. `pad_type: same`."""
    image_px: PositiveInt = 224
    """Side of the input in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Pixel mean that the network was trained with, of values in 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Pixel standard deviation that the network was trained with, of values in 0..1."""
    pretrained: bool = False
    """Download timm's weights for `arch`; the only switch that uses the network."""
    checkpoint: str | None = None
    """Local weights in timm's format; a classifier of another class count is left out."""
    bn_checkpoint: str | None = None
    """Local file of batch-norm tensors that is loaded over `checkpoint`."""
    bn_eval: bool = False
    """Keep batch norms in eval mode while training; needed where the checkpoint has batch norm folded into
    the convolutions (running variance 1)."""

    @property
    def takes_multi_label(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if self.pretrained and self.checkpoint:
            raise ValueError("method: give either `pretrained` or `checkpoint`, not both")
