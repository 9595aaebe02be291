"""Deep image clustering: one small network fitted to each image, its argmax the clusters; many images at once.

The networks of a batch are one network of grouped convolutions, a group an image: own weights, own batch-norm
statistics (a batch of one over each group's channels), own loss, own end. Feature extractor and clustering block as
in DIC (Zhou and Wei 2020), whose block is the expectation-maximisation attention of Li et al. (ICCV 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsol_dist.regions.cluster import Backend, without_gaps
from wsol_dist.regions.config import DICConfig
from wsol_dist.regions.slic import superpixels

CONVS = {
    "fine0": (3, 64),
    "fine1": (64, 64),
    "coarse0": (64, 128),
    "coarse1": (128, 128),
    "joint0": (192, 128),
    "joint1": (128, 128),
}
"""Name -> channels of the 3x3 convolutions, each with batch norm and ReLU."""
LAST = 128
BN_EPS = 1e-5


class DIC(Backend):
    """Superpixels come from the loader processes while the batch before is fitted."""

    Config = DICConfig

    def prepare(self, image_HWC: np.ndarray) -> np.ndarray:
        """The superpixels on the square that the network sees."""
        small_HWC = self._small(image_HWC[None])[0].permute(1, 2, 0).numpy()
        small_HWC = np.rint(small_HWC * 255).astype(np.uint8)
        return superpixels(small_HWC, segments=self.config.segments, compactness=self.config.compactness)

    def label(
        self,
        image_BHWC: np.ndarray,
        prepared: Sequence[np.ndarray],
        *,
        seeds: Sequence[int],
        embedding_BDhw: Tensor | None = None,
    ) -> np.ndarray:
        assert embedding_BDhw is None
        image_BCHW = self._small(image_BHWC).to(self.device)
        segment_BHW = torch.from_numpy(np.stack(prepared)).to(self.device)
        # A CPU is busy with one image, and takes longer for the groups of one convolution (`bench/clustering.py`).
        block = len(seeds) if self.device.type == "cuda" else 1
        parts = [slice(at, at + block) for at in range(0, len(seeds), block)]
        label_BHW = torch.cat([self._fit(image_BCHW[at], segment_BHW[at], seeds[at]) for at in parts])
        large_BHW = enlarge_labels(label_BHW, self.config.size_px).cpu().numpy()
        return np.stack([without_gaps(label_HW) for label_HW in large_BHW])

    def _fit(self, image_BCHW: Tensor, segment_BHW: Tensor, seeds: Sequence[int]) -> Tensor:
        """The labels behind the last iteration of each image, on the square that the network sees."""
        fits = Fits(image_BCHW, segment_BHW, config=self.config, seeds=seeds)
        for _ in fits.steps():
            pass
        return fits.label_BHW

    def _small(self, image_BHWC: np.ndarray) -> Tensor:
        """(B, 3, F, F) float32 in 0..1, antialiased."""
        image_BCHW = torch.from_numpy(np.ascontiguousarray(image_BHWC)).permute(0, 3, 1, 2).float() / 255
        side = self.config.side_px
        if image_BCHW.shape[2:] == (side, side):
            return image_BCHW
        return F.interpolate(image_BCHW, (side, side), mode="bilinear", antialias=True).clamp(0, 1)


class Fits:
    """The networks of some images while they are fitted."""

    def __init__(
        self, image_BCHW: Tensor, segment_BHW: Tensor, *, config: DICConfig, seeds: Sequence[int]
    ) -> None:
        """Networks at their random start.

        Args:
            image_BCHW: float32 in 0..1.
            segment_BHW: int64 superpixels, from 0.
            seeds: of each image's network.
        """
        self.config = config
        self.image_BCHW, self.segment_BHW = image_BCHW, segment_BHW
        self.label_BHW = torch.zeros_like(segment_BHW)
        self.loss_B = image_BCHW.new_zeros(len(image_BCHW))
        """Of the last iteration of each image."""
        self._running_R = torch.arange(len(image_BCHW), device=image_BCHW.device)
        """Images that have not stopped; what follows is theirs."""
        weights = [start_weights(config, seed) for seed in seeds]
        stacked = {name: torch.stack([one[name] for one in weights]) for name in weights[0]}
        stacked = {name: value.to(image_BCHW.device) for name, value in stacked.items()}
        self._centre_RCk = l2_normalised(stacked.pop("centres"))
        # No gradient reaches it: what it gives is used inside the expectation-maximisation only.
        self._em_conv_RCC, self._em_bias_RC1 = stacked.pop("em.weight"), stacked.pop("em.bias")[..., None]
        self._weights = {name: value.requires_grad_() for name, value in stacked.items()}
        self._momentum = {name: torch.zeros_like(value) for name, value in stacked.items()}

    def steps(self) -> Iterator[Tensor]:
        """Fit, and give back the running images' numbers after each iteration."""
        for _ in range(self.config.iterations):
            running_R = self._running_R
            self._step()
            yield running_R
            if len(self._running_R) == 0:
                return

    def _step(self) -> None:
        image_RCHW, segment_RHW = (of_all[self._running_R] for of_all in (self.image_BCHW, self.segment_BHW))
        out_RCn = self._network(image_RCHW)
        with torch.no_grad():
            label_Rn = majority(
                out_RCn.argmax(dim=1), segment_RHW.flatten(1), num_labels=self.config.channels
            )
        loss_R = F.cross_entropy(out_RCn, label_Rn, reduction="none").mean(dim=1)
        # The networks share nothing, so each gets the gradient of its own loss.
        gradients = torch.autograd.grad(loss_R.sum(), list(self._weights.values()))
        self.loss_B[self._running_R] = loss_R.detach()
        self.label_BHW[self._running_R] = label_Rn.reshape(segment_RHW.shape)
        with torch.no_grad():
            momenta, weights = list(self._momentum.values()), list(self._weights.values())
            torch._foreach_mul_(momenta, self.config.momentum)
            torch._foreach_add_(momenta, list(gradients))
            torch._foreach_add_(weights, momenta, alpha=-self.config.lr)
        self._keep(count_labels(label_Rn, self.config.channels) >= self.config.min_labels)

    def _keep(self, goes_on_R: Tensor) -> None:
        """Leave out the images that have stopped."""
        if goes_on_R.all():
            return
        self._running_R = self._running_R[goes_on_R]
        self._centre_RCk = self._centre_RCk[goes_on_R]
        self._em_conv_RCC, self._em_bias_RC1 = self._em_conv_RCC[goes_on_R], self._em_bias_RC1[goes_on_R]
        self._weights = {
            name: value.detach()[goes_on_R].requires_grad_() for name, value in self._weights.items()
        }
        self._momentum = {name: value[goes_on_R] for name, value in self._momentum.items()}

    def _network(self, image_RCHW: Tensor) -> Tensor:
        """The clustering's output of each image: (R, channels, n), not negative."""
        R, _, H, W = image_RCHW.shape
        x1 = self._conv("fine1", self._conv("fine0", image_RCHW.reshape(1, R * 3, H, W)))
        x2 = self._conv("coarse1", self._conv("coarse0", F.max_pool2d(x1, 2)))
        x2 = F.interpolate(x2, (H, W), mode="bilinear", align_corners=True)
        joint_RCHW = torch.cat([x1.reshape(R, -1, H, W), x2.reshape(R, -1, H, W)], dim=1)
        joint = self._conv("joint1", self._conv("joint0", joint_RCHW.reshape(1, -1, H, W)))
        weight_RCD, bias_RC = self._weights["last.weight"], self._weights["last.bias"]
        x_RCn = torch.baddbmm(bias_RC[..., None], weight_RCD, joint.reshape(R, LAST, H * W))
        x_RCn = self._norm("last", x_RCn.reshape(1, -1, H, W)).reshape(R, -1, H * W)
        return F.relu(torch.baddbmm(x_RCn, self._weights["out.weight"], F.relu(self._attended(x_RCn))))

    def _attended(self, x_RCn: Tensor) -> Tensor:
        """Each pixel as a mixture of the centres, after some steps of expectation-maximisation; no gradient."""
        with torch.no_grad():
            x_RCn = torch.baddbmm(self._em_bias_RC1, self._em_conv_RCC, x_RCn)
            centre_RCk = self._centre_RCk
            for _ in range(self.config.em_steps):
                share_Rnk = torch.softmax(x_RCn.transpose(1, 2) @ centre_RCk, dim=2)
                centre_RCk = l2_normalised(x_RCn @ (share_Rnk / (1e-6 + share_Rnk.sum(dim=1, keepdim=True))))
            return centre_RCk @ share_Rnk.transpose(1, 2)

    def _conv(self, name: str, image_1DHW: Tensor) -> Tensor:
        """A 3x3 convolution of every image's channels with its own weights, batch norm, ReLU."""
        weight_ROC33, bias_RO = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        out_1DHW = F.conv2d(
            image_1DHW, weight_ROC33.flatten(0, 1), bias_RO.flatten(), padding=1, groups=len(weight_ROC33)
        )
        return F.relu(self._norm(name, out_1DHW))

    def _norm(self, name: str, x_1DHW: Tensor) -> Tensor:
        """Batch norm by the image's own pixels: of a batch of one, each channel has its own statistics."""
        gain, shift = (self._weights[f"{name}.bn.{part}"].flatten() for part in ("weight", "bias"))
        return F.batch_norm(x_1DHW, None, None, gain, shift, training=True, eps=BN_EPS)


def start_weights(config: DICConfig, seed: int) -> dict[str, Tensor]:
    """The random start of one image's network, always drawn on the CPU: the same on every device.

    Convolutions start as PyTorch's own do, those of the clustering block normal with a deviation of
    sqrt(2 / out_channels).
    """
    generator = torch.Generator().manual_seed(seed)
    C = config.channels
    start: dict[str, Tensor] = {}
    for name, (wide_in, wide_out) in CONVS.items():
        bound = (wide_in * 9) ** -0.5
        start[f"{name}.weight"] = _uniform((wide_out, wide_in, 3, 3), bound, generator)
        start[f"{name}.bias"] = _uniform((wide_out,), bound, generator)
    start["last.weight"] = _uniform((C, LAST), LAST**-0.5, generator)
    start["last.bias"] = _uniform((C,), LAST**-0.5, generator)
    for name, wide in {**{name: wide for name, (_, wide) in CONVS.items()}, "last": C}.items():
        start[f"{name}.bn.weight"], start[f"{name}.bn.bias"] = torch.ones(wide), torch.zeros(wide)
    deviation = (2 / C) ** 0.5
    start["em.weight"] = torch.randn((C, C), generator=generator) * deviation
    start["em.bias"] = _uniform((C,), C**-0.5, generator)
    start["out.weight"] = torch.randn((C, C), generator=generator) * deviation
    start["centres"] = torch.randn((C, config.centres), generator=generator)
    return start


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def l2_normalised(x_BCk: Tensor) -> Tensor:
    """Each centre at length 1."""
    return x_BCk / (1e-6 + x_BCk.norm(dim=1, keepdim=True))


def majority(label_Bn: Tensor, segment_Bn: Tensor, *, num_labels: int) -> Tensor:
    """Every pixel gets the label that most pixels of its superpixel have, the smallest of equals: (B, n) int64."""
    B = len(label_Bn)
    num_segments = int(segment_Bn.max()) + 1
    segment_Bn = segment_Bn + torch.arange(B, device=label_Bn.device)[:, None] * num_segments
    votes_SL = torch.bincount(
        (segment_Bn * num_labels + label_Bn).flatten(), minlength=B * num_segments * num_labels
    ).reshape(B * num_segments, num_labels)
    return votes_SL.argmax(dim=1)[segment_Bn]  # argmax gives the first of equals


def count_labels(label_Bn: Tensor, most: int) -> Tensor:
    """How many labels each image has: (B,) int64."""
    there_BL = torch.zeros(len(label_Bn), most, dtype=torch.bool, device=label_Bn.device)
    return there_BL.scatter_(1, label_Bn, torch.ones_like(label_Bn, dtype=torch.bool)).sum(dim=1)


def enlarge_labels(label_BHW: Tensor, size_px: int) -> Tensor:
    """Nearest neighbour: (B, size_px, size_px) uint8."""
    large_B1HW = F.interpolate(label_BHW[:, None].to(torch.uint8), (size_px, size_px), mode="nearest-exact")
    return large_B1HW[:, 0]
