"""Pixels -> the square that a method wants. Random choices come from a generator made for each sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Squash to `resize_px`, random crop of `image_px`, random flip: the field's training transform."""

    resize_px: int
    image_px: int
    flip: bool
    resize_max_px: int | None = None
    """The side is drawn from `resize_px` to this one; None is always `resize_px`."""

    def __call__(self, rgb_HWC: np.ndarray, rng: np.random.Generator) -> Tensor:
        """(3, image_px, image_px) uint8."""
        side_px = self._side(rng)
        return self._crop(squash(rgb_HWC, side_px), side_px, rng)

    def labels(self, label_HW: np.ndarray, rng: np.random.Generator) -> Tensor:
        """A label map of the whole image, (image_px, image_px) uint8: as the image is with an equal generator."""
        side_px = self._side(rng)
        label_1HW = torch.from_numpy(np.require(label_HW, requirements=["C", "W"]))[None]
        resized = F.resize(label_1HW, [side_px, side_px], interpolation=InterpolationMode.NEAREST_EXACT)
        return self._crop(resized, side_px, rng)[0]

    def _side(self, rng: np.random.Generator) -> int:
        if self.resize_max_px is None:
            return self.resize_px
        return int(rng.integers(self.resize_px, self.resize_max_px + 1))

    def _crop(self, image: Tensor, side_px: int, rng: np.random.Generator) -> Tensor:
        top, left = rng.integers(0, side_px - self.image_px + 1, size=2).tolist()
        image = image[:, top : top + self.image_px, left : left + self.image_px]
        return image.flip(-1) if self.flip and rng.random() < 0.5 else image


def squash(rgb_HWC: np.ndarray, side_px: int) -> Tensor:
    """Resize to a square, bilinear with antialias, aspect not kept: (3, side_px, side_px) uint8."""
    # Pillow's arrays are read-only, which torch cannot express; a JPEG's pixels are used without a copy.
    image = torch.from_numpy(np.require(rgb_HWC, requirements=["C", "W"])).permute(2, 0, 1)
    return F.resize(image, [side_px, side_px], antialias=True)


def normalise(image_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 -> float32 by the method's statistics; done on the device, so that bytes cross the process border."""
    device = image_BCHW.device
    mean_C, std_C = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    return (image_BCHW.float() / 255 - mean_C[:, None, None]) / std_C[:, None, None]
