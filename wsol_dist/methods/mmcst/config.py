"""The knobs of MMCST."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from wsol_dist.methods.config import GivenData, MethodConfig
from wsol_dist.methods.molt.config import Combine
from wsol_dist.models.config import TextConfig, ViTConfig

Tokens = Literal["visual", "global", "local", "global_local"]
Maps = Literal["fused", "t2p", "c2p"]


@dataclass(frozen=True, kw_only=True)
class MMCSTConfig(MethodConfig):
    """A vision transformer with class and text tokens, and every ablation of the poster."""

    image_px: PositiveInt = 224
    """Side of the input in pixels; a multiple of the backbone's stride."""
    backbone: ViTConfig = field(default_factory=lambda: ViTConfig(arch="vit_base_patch16_224"))
    """The transformer; its final norm is not used."""
    text: TextConfig = field(default_factory=TextConfig)
    """The class names' embeddings, which the text tokens start from."""
    text_top: PositiveInt | None = None
    """Text tokens of so many classes an image, for sets of many classes: the wanted ones (in training the image's own),
    filled up with those that a first pass without text ranks highest. That pass then gives the probabilities and has
    a loss of its own; logged is the share of own classes that it found (text_found). None has all classes'."""
    tokens: Tokens = "global_local"
    """What correlates with the patches: visual the class tokens before the blocks, and no text; global both before,
    local both behind the blocks; global_local the sum."""
    text_local: float = 1.0
    """global_local: weight of the text tokens behind the blocks (lambda 1)."""
    class_local: float = 1.0
    """global_local: weight of the class tokens behind the blocks (lambda 2)."""
    scale_correlation: bool = False
    """Divide the correlations by the square root of the width; the paper has plain dot products."""
    gwrp_decay: Annotated[float, Field(ge=0, le=1)] = 0.996
    """d of global weighted ranking pooling: 0 takes the highest correlation, 1 the mean."""
    context_target: Literal["none", "caption", "image"] = "none"
    """What the text tokens' context is drawn to: nothing, or the column `data.embeddings` of captions or of images."""
    context_loss: Literal["l1", "ce"] = "ce"
    """l1: distance from the image's own target; ce: contrast over all ranks' images of a micro-batch: with
    `train.accumulation` 1 the global batch."""
    context_dim: PositiveInt = 512
    """Width of the column's embeddings."""
    temperature: PositiveFloat = 0.07
    """ce: of the similarities."""
    contrast_both_ways: bool = True
    """ce: also each target against all contexts, as CLIP does; else each context against all targets."""
    maps: Maps = "fused"
    """Text-to-patch (t2p) or class-to-patch (c2p) correlations, or both by `combine`."""
    combine: Combine = "mean"
    """fused: how, each scaled to 0..1 first."""
    affinity: bool = True
    """Spread maps by the patches' attention to each other, summed over the blocks, once."""
    scales: tuple[PositiveFloat, ...] = (1.0,)
    """Sizes to localize at, of `image_px`, the maps summed; the first gives the probabilities."""
    flip: bool = False
    """Localize mirrored images too."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Pixel mean of the backbone's weights, of values in 0..1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Pixel standard deviation of the backbone's weights, of values in 0..1."""

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError("method.scales: none given; give at least one")
        if self.text_top is not None and self.tokens == "visual":
            raise ValueError(f"method.text_top: {self.text_top}; give tokens that have text, or leave it out")
        if self.tokens == "visual" and (self.context_target != "none" or self.maps == "t2p"):
            raise ValueError(
                "method.tokens: visual has no text tokens; set context_target none and maps fused or c2p"
            )

    def data_problem(self, data: GivenData) -> str | None:
        wanted = self.context_target
        if wanted == "none" and data.embedded is not None:
            return "data.embeddings: method.context_target none has no use for it; leave it out, or set the target"
        if wanted != "none" and data.embedded != wanted:
            what = f"are of {data.embedded}s" if data.embedded else "are not given"
            return (
                f"data.embeddings: method.context_target {wanted} learns from embeddings of {wanted}s, these {what}; "
                f"make them (wsol embed ... --what {wanted}) and name their folder, or set --method.context-target none"
            )
        if wanted != "none" and data.embedding_dim != self.context_dim:
            return (
                f"method.context_dim: {self.context_dim}, but the embeddings of data.embeddings are "
                f"{data.embedding_dim} wide; set --method.context-dim {data.embedding_dim}"
            )
        if self.tokens != "visual" and self.text.source == "file":
            from wsol_dist.models.clip import text_embeddings  # imports torch, which a recipe does without

            text_embeddings(self.text, data.classes)  # says itself what is wrong with a table
        return None

    @property
    def takes_multi_label(self) -> bool:
        return True
