"""The knobs of the segmenter."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import PositiveFloat, PositiveInt

from wsol_dist.methods.config import MethodConfig
from wsol_dist.models.config import CNNConfig
from wsol_dist.regions.config import CRFConfig

RESNET38 = "resnet38"


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(MethodConfig):
    """A feature map, two dilated convolutions, and a class for every pixel, the background among them."""

    image_px: PositiveInt = 321
    """Side of the input in pixels."""
    encoder: CNNConfig = field(default_factory=lambda: CNNConfig(arch=RESNET38))
    """resnet38, model A1 of Wu et al., or any timm network that gives feature maps; its last map is used, of a CNN best
    at stride 8 (`model_kwargs: {output_stride: 8}`)."""
    head_width: PositiveInt = 512
    """Channels between the two convolutions."""
    head_dilation: PositiveInt = 12
    """Of both convolutions, in places of the feature map."""
    head_lr: PositiveFloat = 10.0
    """Learning rate of the two over `train.lr`, which the encoder has."""
    freeze_bn: bool = True
    """Keep the encoder's batch norms as they are, weights too, and of resnet38 the first convolution: for small batches
    on an encoder that is trained already."""
    scales: tuple[PositiveFloat, ...] = (1.0,)
    """Sizes to segment at, of `image_px`: the highest of their probabilities counts."""
    flip: bool = False
    """Segment mirrored images too."""
    crf: CRFConfig = field(default_factory=CRFConfig)
    """A CRF behind the probabilities, of the test only."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Pixel mean of the encoder's weights, of values in 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Pixel standard deviation of the encoder's weights, of values in 0..1."""

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError("method.scales: none given; give at least one")
        if self.encoder.arch == RESNET38 and self.encoder.pretrained:
            raise ValueError(
                "method.encoder.pretrained: timm has no resnet38 to download; bring its weights along and name them in "
                "method.encoder.checkpoint"
            )

    def recipe_problem(self, *, order: str, num_before: int) -> str | None:
        if self.freeze_bn and not (self.encoder.checkpoint or self.encoder.pretrained):
            return (
                "method.encoder.checkpoint: not given, and method.freeze_bn keeps batch norms that no data has seen; "
                f"name weights of {self.encoder.arch}, or set --method.no-freeze-bn"
            )
        return super().recipe_problem(order=order, num_before=num_before)

    @property
    def takes_multi_label(self) -> bool:
        return True

    @property
    def takes_targets(self) -> bool:
        return True
