"""Which network carries a method. Free of torch, so that `--help` stays instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

CONV_STEM = "conv"
Direction = Literal["class_query", "patch_query"]
"""`class_query`: A[:, 0, 1:], the class token asks, the patches are the keys. `patch_query`: A[:, 1:, 0]."""


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A vision transformer of timm, whole, resized, or behind a convolutional stem."""

    arch: str = "deit_small_patch16_224"
    """Name of a timm VisionTransformer with a class token and learned position embeddings."""
    pretrained: bool = False
    """Download timm's weights for `arch`; the only switch that uses the network."""
    checkpoint: str | None = None
    """Local .safetensors or .pth of `arch`; its position embeddings are resized bicubically to the grid."""
    depth: PositiveInt | None = None
    """Number of blocks; none keeps the architecture's."""
    width: PositiveInt | None = None
    """Token width; none keeps the architecture's."""
    heads: PositiveInt | None = None
    """Attention heads a block; none keeps the architecture's."""
    mlp_ratio: Annotated[float | None, Field(gt=0)] = None
    """Hidden width of the MLPs over the token width; none keeps the architecture's."""
    patch_px: PositiveInt | None = None
    """Patch side and stride in pixels; none keeps the architecture's. A CNN stem has `stem_stride`."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Stochastic depth at the last block, rising linearly from 0."""
    attn_drop_path: Annotated[float | None, Field(ge=0, lt=1)] = None
    """Stochastic depth of the attention branch alone, the same in every block; none follows `drop_path`. High values
    (0.8) make small models trained from scratch classify each patch by itself, which keeps the score map local."""
    attn_bound: Annotated[float | None, Field(gt=0)] = None
    """Bound on the attention logits: queries and keys are scaled to one length, the logits are this times their
    cosine (scaled cosine attention). Keeps attention maps trained from scratch from shrinking to a few patches."""
    stem: str | None = None
    """None: linear patches. `conv`: a small random-initialised stem of 3x3 stride-2 convolutions down to
    `patch_px`. Any other word: a timm CNN whose feature map at `stem_stride` becomes the patches."""
    stem_blocks: NonNegativeInt = 0
    """conv stem: residual 3x3 blocks at the patch stride, which widen what a patch sees before any attention."""
    stem_norm: Literal["layer", "batch"] = "layer"
    """conv stem: norm behind each convolution. batch learns several times faster from scratch, but its statistics
    are those of a rank's micro-batch, so losses depend on the number of ranks."""
    stem_stride: int = 16
    """Stride of the CNN feature map that becomes the patches; usually 16 or 8."""
    stem_kwargs: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Further arguments of the CNN, e.g. `pad_type: same`."""
    stem_checkpoint: str | None = None
    """Local weights of the whole CNN in timm's format; its classifier is not used."""
    stem_bn_checkpoint: str | None = None
    """Local file of batch-norm tensors that is loaded over `stem_checkpoint`."""
    freeze_stem: bool = False
    """Keep the CNN as it is; the 1x1 convolution behind it still trains."""
    stem_bn_eval: bool = True
    """Keep the CNN's batch norms in eval mode while training; needed where the checkpoint has batch norm
    folded into the convolutions (running variance 1)."""

    def __post_init__(self) -> None:
        if self.width and self.heads and self.width % self.heads:
            raise ValueError(f"backbone.width: {self.width} is not a multiple of heads = {self.heads}")
        if self.stem != CONV_STEM and self.stem_blocks:
            raise ValueError(f"backbone.stem_blocks: {self.stem_blocks}; only with `stem: conv`")
        if self.pretrained and self.checkpoint:
            raise ValueError("backbone: give either `pretrained` or `checkpoint`, not both")
        self._check_stem()

    def _check_stem(self) -> None:
        if self.stem in (None, CONV_STEM):
            given = [name for name in ("stem_checkpoint", "stem_bn_checkpoint") if getattr(self, name)]
            if given or self.freeze_stem:
                raise ValueError(f"backbone.{(given or ['freeze_stem'])[0]}: needs `stem` to name a timm CNN")
        elif self.patch_px is not None:
            raise ValueError(
                "backbone.patch_px: a CNN stem sets the stride by `stem_stride`; leave patch_px out"
            )
        if self.stem_stride not in (4, 8, 16, 32):
            raise ValueError(f"backbone.stem_stride: {self.stem_stride}; allowed: 4, 8, 16, 32")
        if self.stem == CONV_STEM and self.patch_px is not None and self.patch_px & (self.patch_px - 1):
            raise ValueError(
                f"backbone.patch_px: {self.patch_px} is not a power of two, as the conv stem needs"
            )


@dataclass(frozen=True, kw_only=True)
class CNNConfig:
    """A network of timm and the weights that it starts from."""

    arch: str = "resnet18"
    """Name of a timm model."""
    model_kwargs: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Further arguments of the model, e.g. `pad_type: same`."""
    pretrained: bool = False
    """Download timm's weights for `arch`; the only switch that uses the network."""
    checkpoint: str | None = None
    """Local weights: a file in timm's format, or `model.safetensors` of a checkpoint of ours."""
    bn_checkpoint: str | None = None
    """Local file of batch-norm tensors that is loaded over `checkpoint`."""

    def __post_init__(self) -> None:
        if self.pretrained and self.checkpoint:
            raise ValueError(f"{self.arch}: give either `pretrained` or `checkpoint`, not both")


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """A model of open_clip."""

    model: str = "ViT-B-32"
    """Name of the architecture, as open_clip lists it."""
    pretrained: str = "openai"
    """open_clip's tag of the weights, which are then downloaded; or a local file of them."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Where the embeddings of the class names come from."""

    source: Literal["random", "file", "open_clip"] = "random"
    """random: none, the text tokens start at random; file: `embeddings` with `names`; open_clip: `clip`'s text encoder
    on the class names."""
    dim: PositiveInt = 512
    """Width of the embeddings: ViT-B/32 and ViT-B/16 have 512."""
    embeddings: str | None = None
    """file: an .npy array, a row a name."""
    names: str | None = None
    """file: the rows' names, a line each. A class takes the row of its name, in whatever order they are; case, blanks
    and underscores do not matter."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Class -> what it is called in `names` or in a prompt, where that is something else."""
    clip: CLIPConfig = field(default_factory=CLIPConfig)
    """open_clip: the model."""
    templates: tuple[str, ...] = ("a photo of a {}",)
    """open_clip: prompts; a class's embedding is the mean of the normalised embeddings of its prompts."""

    def __post_init__(self) -> None:
        if self.source == "file" and not (self.embeddings and self.names):
            raise ValueError(
                "text.source file: give `embeddings`, an .npy file, and `names`, its rows' names"
            )
        if not self.templates or any(template.count("{}") != 1 for template in self.templates):
            raise ValueError(f"text.templates: {self.templates}; at least one, each with {{}} once")
