"""Which network a weight file belongs to, told by the names and shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wsol_dist.errors import UserError

KNOWN = (
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "convnext_tiny",
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
)
"""Tried in turn where no `--arch` is given; vit_*_patch16_224 have the tensors of deit_*."""
Rgb = tuple[float, float, float]
Family = Literal["cnn", "transformer"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A checkpoint in timm's format."""

    path: Path
    arch: str
    family: Family
    mean: Rgb
    """Of the pixels that it was trained with: as the file says, else timm's for the architecture."""
    std: Rgb
    folded: bool
    """Its batch norms were folded into the convolutions, as converters from TFLite do: they must stay in eval mode, and
    the convolutions pad as TensorFlow's."""


def recognise(path: Path, arch: str | None) -> Weights:
    """Read a weight file and name its network; nothing in the file is run.

    Raises:
        UserError: no such file, not readable, of another or of no known architecture.
    """
    import torch

    from wsol_dist.models.weights import read_state
    from wsol_dist.runs.checkpoint import weights_metadata

    state = read_state(path)
    for name in (arch,) if arch else KNOWN:
        model = _on_paper(name)
        if _fits(model, state):
            break
    else:
        tried = f"--arch {arch}" if arch else ", ".join(KNOWN)
        raise UserError(
            f"--weights {path}: its tensors are not those of {tried}; name timm's architecture with --arch"
        )
    metadata = weights_metadata(path) if path.suffix == ".safetensors" else {}
    means = [tensor for key, tensor in state.items() if key.endswith("running_mean")]
    return Weights(
        path=path,
        arch=name,
        family="transformer" if hasattr(model, "cls_token") else "cnn",
        mean=_rgb(metadata.get("mean"), model.default_cfg["mean"]),
        std=_rgb(metadata.get("std"), model.default_cfg["std"]),
        folded=bool(means) and not any(bool(torch.any(tensor != 0)) for tensor in means),
    )


def _on_paper(arch: str) -> Any:
    """The network without memory behind its tensors."""
    import timm
    import torch

    if not timm.is_model(arch):
        raise UserError(f"--arch: timm has no model {arch!r}; try one of {', '.join(KNOWN)}")
    with torch.device("meta"):
        return timm.create_model(arch, pretrained=False)


def _fits(model: Any, state: dict[str, Any]) -> bool:
    """All tensors but the classifier's are there, in their shapes, and no others."""
    classifier = f"{model.default_cfg['classifier']}."
    own = {key: value.shape for key, value in model.state_dict().items() if not key.startswith(classifier)}
    given = {key: value.shape for key, value in state.items() if not key.startswith(classifier)}
    return own == given


def _rgb(said: str | None, otherwise: Any) -> Rgb:
    try:
        numbers = tuple(float(word) for word in (said or "").split(","))
    except ValueError:
        numbers = ()
    red, green, blue = numbers if len(numbers) == 3 else otherwise
    return red, green, blue
