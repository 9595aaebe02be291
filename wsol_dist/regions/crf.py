"""A conditional random field over the pixels of images: label maps that follow the borders in the colours.

Mean field with Potts potentials: P. Krähenbühl and V. Koltun, "Efficient inference in fully connected CRFs with
Gaussian edge potentials", NIPS 2011, algorithm 1. Where that sums over all pixels, this sums over a window, with a step
between the neighbours of the appearance kernel so that it still reaches far: exact sums in torch, batched, on any
device, without the permutohedral lattice. Truncated windows: M. Teichmann and R. Cipolla, "Convolutional CRFs for
semantic segmentation", BMVC 2019.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from wsol_dist.regions.config import CRFConfig

EPS = 1e-6


def mean_field(prob_BLHW: Tensor, image_BCHW: Tensor, config: CRFConfig) -> Tensor:
    """Probabilities of each label at each pixel after some mean-field steps: (B, L, H, W) float32.

    A kernel k is normalised symmetrically, k(p, q) / sqrt(n(p) n(q)) with n(p) = 1 + sum of k(p, q) over the window
    without p itself, so that a weight means the same for every window, and a pixel like no other is left alone.

    Args:
        prob_BLHW: probabilities that the unary potentials are the negative logarithms of.
        image_BCHW: colours from 0 to 255 at the same pixels.
    """
    assert prob_BLHW.shape[2:] == image_BCHW.shape[2:]
    log_BLHW = prob_BLHW.float().clamp_min(EPS).log()
    q_BLHW = log_BLHW.softmax(dim=1)
    if config.iterations == 0:
        return q_BLHW
    kernels = [
        (weight, kernel)
        for weight, kernel in (
            (config.smooth, _Kernel(image_BCHW, config, by_colour=False)),
            (config.appearance, _Kernel(image_BCHW, config, by_colour=True)),
        )
        if weight > 0
    ]
    for _ in range(config.iterations):
        # Potts: a label pays for all others around it, which is to gain from its own.
        gain_BLHW = sum((weight * kernel.spread(q_BLHW) for weight, kernel in kernels), torch.zeros(()))
        q_BLHW = (log_BLHW + gain_BLHW).softmax(dim=1)
    return q_BLHW


class _Kernel:
    """One kernel's values between each pixel and those of its window."""

    def __init__(self, image_BCHW: Tensor, config: CRFConfig, *, by_colour: bool) -> None:
        self.step = config.step_px if by_colour else 1
        self.radius = config.radius
        sigma_px = config.appearance_px if by_colour else config.smooth_px
        colour_BCHW = image_BCHW.float() / config.colour
        inside_11HW = torch.ones_like(colour_BCHW[:1, :1])
        neighbours = zip(self._offsets(), self._shifted(colour_BCHW), self._shifted(inside_11HW), strict=True)
        self.values = []
        for (dy, dx), there_BCHW, inside in neighbours:
            distance = torch.full_like(inside_11HW, (dy**2 + dx**2) / sigma_px**2)
            if by_colour:
                distance = distance + (there_BCHW - colour_BCHW).square().sum(dim=1, keepdim=True)
            self.values.append((-distance / 2).exp() * inside)
        self.scale_B1HW = (1 + sum(self.values, torch.zeros_like(inside_11HW))).rsqrt()

    def spread(self, q_BLHW: Tensor) -> Tensor:
        """Every pixel's normalised sum over its window."""
        total_BLHW = torch.zeros_like(q_BLHW)
        for value, there_BLHW in zip(self.values, self._shifted(q_BLHW * self.scale_B1HW), strict=True):
            total_BLHW.addcmul_(there_BLHW, value.expand_as(q_BLHW))
        return total_BLHW * self.scale_B1HW

    def _offsets(self) -> Iterator[tuple[int, int]]:
        steps = [at * self.step for at in range(-self.radius, self.radius + 1)]
        return ((dy, dx) for dy in steps for dx in steps if (dy, dx) != (0, 0))

    def _shifted(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        """What lies at each offset of each pixel, 0 outside of the image."""
        height, width = x_BCHW.shape[2:]
        reach = self.radius * self.step
        padded = F.pad(x_BCHW, (reach, reach, reach, reach))
        for dy, dx in self._offsets():
            yield padded[:, :, reach + dy : reach + dy + height, reach + dx : reach + dx + width]
