"""The knobs of the weight map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from wsol_dist.methods.config import MethodConfig
from wsol_dist.models.config import CNNConfig


@dataclass(frozen=True, kw_only=True)
class WeightMapConfig(MethodConfig):
    """Both variants and both stages. Stage f of the classifier variant is the method `cam`."""

    variant: Literal["classifier", "siamese"] = "classifier"
    """What f is: a classifier (method I), or an embedding that was trained on triplets (method II)."""
    stage: Literal["f", "g"] = "g"
    """What this run trains: g over a frozen f, or the siamese f itself."""
    image_px: PositiveInt = 224
    """Side of the input in pixels."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Pixel mean, of values in 0..1, for f and g alike. 0.5 makes a weight of 0 mid-grey; 0.485 0.456 0.406 are the
    statistics of most networks trained on ImageNet."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5)
    """Pixel standard deviation, of values in 0..1; ImageNet's are 0.229 0.224 0.225."""
    classifier: CNNConfig = field(default_factory=CNNConfig)
    """Any classifier of timm: f of the classifier variant; for the siamese variant it names the class only."""
    embedder: CNNConfig = field(default_factory=CNNConfig)
    """f of the siamese variant; its last layer projects to `embedding_dim`."""
    embedding_dim: PositiveInt = 200
    """Width of the siamese embedding."""
    margin: NonNegativeFloat = 1.0
    """Of every triplet loss."""
    encoder: CNNConfig = field(default_factory=CNNConfig)
    """Encoder of g."""
    wwbl: bool = False
    """g as in the authors' later public code (WWbL) instead of as the paper says."""
    inner_relu: bool = True
    """A ReLU between the two convolutions of a block of g; the paper leaves it open."""
    out_stride: int = 1
    """Stride at which g's blocks end; the map is then enlarged bilinearly. At the paper's 1 a map can follow edges,
    which keep the class and weigh little; a coarse one has to cover whole parts."""
    out_lr: PositiveFloat = 1.0
    """Learning rate of g's last batch norm over train.lr. Its one gain and one bias decide how far from 0.5 the map can
    be; in a training of a few hundred steps they need a larger rate than the convolutions bear."""
    bn_eval: bool = False
    """Keep the batch norms of the network in training in eval mode. Batch statistics are those of a rank's
    micro-batch, so with false losses depend on the number of ranks."""
    regulariser: NonNegativeFloat = 1.0
    """Weight of R = mean |M|; 0 is the ablation without it."""
    inner: bool = True
    """siamese: the term that parts weighted image and weighted background (equation 3)."""
    outer: bool = True
    """siamese: the term that brings weighted images of a class together (equation 4)."""

    def __post_init__(self) -> None:
        if self.wwbl and self.out_stride != 1:
            raise ValueError("method.out_stride: `wwbl` has a stride of its own, give one of the two")
        if self.variant == "classifier" and self.stage == "f":
            raise ValueError(
                "method.stage: f of the classifier variant is trained by the method `cam`; see the recipe "
                "weight-map-classifier"
            )
        if self.stage == "g" and self.variant == "siamese" and not (self.inner or self.outer):
            raise ValueError("method: the siamese variant needs `inner` or `outer`, or both")

    def recipe_problem(self, *, order: str, num_before: int) -> str | None:
        if self.variant == "siamese" and order != "class_pairs":
            return (
                f"data.order: given {order!r}, but method.variant siamese compares images of a class with those of "
                "another: set --data.order class_pairs"
            )
        if self.stage == "f" or num_before:
            return None
        for name, net in self.networks_from_files().items():
            if not (net.checkpoint or net.pretrained):
                return (
                    f"method.{name}.checkpoint: g learns from a trained network: name its weights, or the recipe "
                    "that trains it in `before`"
                )
        return None

    def classifier_files(self) -> tuple[str, ...]:
        return (self.classifier.checkpoint,) if self.classifier.checkpoint and self.stage == "g" else ()

    def networks_from_files(self) -> dict[str, CNNConfig]:
        """The frozen networks of stage g by the name of their knobs."""
        frozen = {"classifier": self.classifier, "embedder": self.embedder}
        return frozen if self.variant == "siamese" else {"classifier": self.classifier}
