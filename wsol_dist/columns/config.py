"""What columns are filled with. Free of torch: commands are read without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from wsol_dist.models.config import CLIPConfig, CNNConfig, TextConfig
from wsol_dist.regions.config import CRFConfig


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What is embedded, and by which network."""

    what: Literal["image", "caption"] = "image"
    """The images, or a caption of each made of its class names."""
    encoder: Literal["open_clip", "timm"] = "open_clip"
    """image: CLIP's image encoder, or the pooled features of a timm CNN."""
    clip: CLIPConfig = field(default_factory=CLIPConfig)
    """open_clip: the model; for captions its text encoder."""
    cnn: CNNConfig = field(default_factory=lambda: CNNConfig(arch="resnet50"))
    """timm: the network and its weights; its classifier is left out."""
    image_px: PositiveInt = 224
    """timm: side of its input in pixels; CLIP has its own."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """timm: pixel mean that it was trained with, of values in 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """timm: pixel standard deviation that it was trained with, of values in 0..1."""
    text: TextConfig = field(default_factory=lambda: TextConfig(source="open_clip"))
    """caption: text.source open_clip embeds the caption, `text.templates` of the names joined, by `text.clip`; file
    takes the mean of the classes' embeddings."""
    batch_size: PositiveInt = 64
    """Images in one pass."""

    def __post_init__(self) -> None:
        if self.what == "caption" and self.text.source == "random":
            raise ValueError("text.source: random has no meaning to learn; give open_clip or file")
        if (
            self.what == "image"
            and self.encoder == "timm"
            and not (self.cnn.checkpoint or self.cnn.pretrained)
        ):
            raise ValueError(
                "cnn.checkpoint: not given; the embeddings of a network with random weights mean nothing: name its "
                "weights, or set cnn.pretrained"
            )


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """How label maps are made of score maps."""

    size_px: Annotated[int | None, Field(ge=2)] = None
    """Side of the label maps, which span the whole image however oblong that is; None for the method's input."""
    ignore_margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Pixels whose highest score is within this of the background threshold are left unknown (255)."""
    crf: CRFConfig = field(default_factory=CRFConfig)
    """A CRF over the pixels; crf.iterations turns it on."""
