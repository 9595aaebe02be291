"""The protocol of a method: it knows its loss and its maps, and nothing of data, training or report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsol_dist.errors import UserError
from wsol_dist.methods.config import MethodConfig

Classes = Tensor | int | None
"""Whose maps are wanted: (B, K) class numbers, the K most probable ones, or (None) the most probable one."""


@dataclass(frozen=True, kw_only=True)
class Localization:
    """Score maps of the wanted classes of a batch."""

    prob_BC: Tensor
    """(B, C) float32: class probabilities."""
    class_BK: Tensor
    """(B, K) int64: the classes whose maps these are."""
    map_BKhw: Tensor
    """(B, K, h, w) float32: raw signed scores on the method's own grid; the metrics resize and normalise."""
    segment_BChw: Tensor | None = None
    """(B, 1 + C, h, w) float32, of methods that segment: probabilities at each place, the background's first."""


class Method(nn.Module):
    """A localizer. Subclasses set `Config` and are built as `Class(config, num_classes)`."""

    Config: type[MethodConfig] = MethodConfig
    image_px: int
    """Side of the square input that the method wants, in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    class_agnostic: bool = False
    """An image has one map, whatever the class."""

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        """The training loss of a batch.

        Args:
            image_BCHW: normalised images, float.
            label_B: int64 class numbers; of a multi-label set (B, C) float32, 1 for each class of the image, else 0,
                which only methods get that take it. With `data.embeddings` the images' embeddings (B, E) float32
                follow as a third argument, with `data.targets` label maps (B, H, W) uint8 of the images' size: 0
                background, class + 1, 255 not to be learned.

        Returns:
            Scalars by name. `loss` is what is minimised, the others are logged beside it.
        """
        raise NotImplementedError

    def localize(self, image_BCHW: Tensor, class_BK: Classes = None) -> Localization:
        """Class probabilities and the maps of the wanted classes; without gradient, in eval mode.

        Args:
            image_BCHW: normalised images, float.
            class_BK: the wanted classes; K for the K most probable ones, in that order; None for the most probable one.
        """
        raise NotImplementedError

    def patch_embeddings(self, image_BCHW: Tensor) -> Tensor:
        """What the method sees at each place of its (finest) grid, for pixel clusters: (B, D, h, w) float32; without
        gradient, in eval mode.

        Args:
            image_BCHW: normalised images, float, of `image_px`.

        Raises:
            UserError: the method has none.
        """
        raise UserError(f"{type(self).__name__} gives no patch embeddings")

    def take_class_names(self, names: Sequence[str]) -> None:
        """Told once behind building, before weights are loaded, what the classes are called."""

    def lr_scales(self) -> dict[str, float]:
        """Parameter name -> its learning rate over `train.lr`, of those that have another than 1."""
        return {}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, besides biases and norms."""
        return set()

    def load_init(self, state: dict[str, Tensor]) -> list[str]:
        """Start from a state dict of this method or of its backbone; a line each on what was not used.

        Raises:
            UserError: no tensor of the state belongs to this method, or one has another shape.
        """
        own = self.state_dict()
        shared = [name for name in state if name in own]
        if not shared:
            first = next(iter(state), "nothing")
            raise UserError(
                f"the weights are not of {type(self).__name__}: they hold {first!r}, "
                f"wanted is {next(iter(own))!r}; give weights of this method or of its backbone"
            )
        for name in shared:
            if state[name].shape != own[name].shape:
                raise UserError(
                    f"the weights do not fit: {name!r} is {tuple(state[name].shape)} there and "
                    f"{tuple(own[name].shape)} here; check the class count, the image size and the backbone"
                )
        missing, unexpected = self.load_state_dict(state, strict=False)
        return [f"not in the file: {name}" for name in missing] + [f"not used: {name}" for name in unexpected]

    def load_before(self, state: dict[str, Tensor], *, source: str) -> None:
        """Take what a run that came first trained; only for methods that train in several stages.

        Args:
            source: what to call it in a message.

        Raises:
            UserError: it does not fit.
        """
        raise NotImplementedError

    def trained_keys(self) -> set[str]:
        """State-dict keys, buffers included, that a run of this configuration trains.

        They are what to take from it when runs that trained different parts are merged.
        """
        return set(self.state_dict())

    @classmethod
    def tiny_config(cls) -> MethodConfig:
        """A configuration that runs within a second on one CPU core: what the contract test builds."""
        return cls.Config()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode without gradient; the mode from before comes back."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)


def label_loss(logit_BC: Tensor, label_B: Tensor) -> Tensor:
    """Cross entropy of class numbers (B,); multi-label soft margin of ones and zeros (B, C)."""
    if label_B.ndim == 2:
        return F.multilabel_soft_margin_loss(logit_BC, label_B)
    return F.cross_entropy(logit_BC, label_B)


def label_accuracy(score_BC: Tensor, label_B: Tensor) -> Tensor:
    """Share of the images whose highest score is of a class that they have."""
    best_B = score_BC.detach().argmax(dim=1)
    if label_B.ndim == 2:
        return label_B.gather(1, best_B[:, None]).float().mean()
    return (best_B == label_B).float().mean()


def top_class(prob_BC: Tensor, class_BK: Classes) -> Tensor:
    """The wanted classes, or the K most probable ones, or the most probable one: (B, K) int64."""
    if isinstance(class_BK, int):
        return prob_BC.topk(class_BK, dim=1).indices
    return prob_BC.argmax(dim=1, keepdim=True) if class_BK is None else class_BK


def pick_maps(score_BChw: Tensor, class_BK: Tensor) -> Tensor:
    """The wanted classes' maps out of all: (B, K, h, w)."""
    # Not len(), which torch.export takes for a constant.
    rows = torch.arange(score_BChw.shape[0], device=score_BChw.device)[:, None]
    return score_BChw[rows, class_BK]
