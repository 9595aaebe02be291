"""Deep image clustering as public code has it: a network of torch.nn for one image, a Python loop over superpixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsol_dist.regions.dic import DICConfig, start_weights


class PlainDIC(nn.Module):
    """The network of one image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(*_block(3, 64), *_block(64, 64))
        self.second = nn.Sequential(nn.MaxPool2d(2), *_block(64, 128), *_block(128, 128))
        self.joint = nn.Sequential(*_block(192, 128), *_block(128, 128))
        self.last, self.last_bn = nn.Conv2d(128, 100, 1), nn.BatchNorm2d(100)
        self.em, self.out = nn.Conv2d(100, 100, 1), nn.Conv2d(100, 100, 1, bias=False)
        self.register_buffer("centres", torch.zeros(100, 32))

    def forward(self, image_1CHW: Tensor) -> Tensor:
        """(1, 100, H, W), not negative."""
        x1 = self.first(image_1CHW)
        x2 = F.interpolate(self.second(x1), x1.shape[2:], mode="bilinear", align_corners=True)
        x = self.last_bn(self.last(self.joint(torch.cat([x1, x2], dim=1))))
        with torch.no_grad():
            flat, mu = self.em(x)[0].flatten(1), self.centres / (1e-6 + self.centres.norm(dim=0))
            for _ in range(3):
                z = torch.softmax(flat.T @ mu, dim=1)
                mu = flat @ (z / (1e-6 + z.sum(dim=0)))
                mu = mu / (1e-6 + mu.norm(dim=0))
            mixed = (mu @ z.T).reshape(x.shape)
        return F.relu(self.out(F.relu(mixed)) + x)

    def take(self, start: dict[str, Tensor]) -> None:
        """Start from the weights that ours starts from."""
        parts = (self.first, self.second, self.joint)
        convs = [layer for part in parts for layer in part if isinstance(layer, nn.Conv2d)]
        names = ("fine0", "fine1", "coarse0", "coarse1", "joint0", "joint1")
        for conv, name in zip(convs, names, strict=True):
            conv.weight.data, conv.bias.data = start[f"{name}.weight"], start[f"{name}.bias"]
        for conv, name in ((self.last, "last"), (self.em, "em"), (self.out, "out")):
            conv.weight.data = start[f"{name}.weight"][..., None, None]
            if conv.bias is not None:
                conv.bias.data = start[f"{name}.bias"]
        self.centres = start["centres"]


def _block(wide_in: int, wide_out: int) -> list[nn.Module]:
    return [nn.Conv2d(wide_in, wide_out, 3, padding=1), nn.BatchNorm2d(wide_out), nn.ReLU()]


def plain_fit(
    image_CHW: Tensor, segment_HW: Tensor, *, config: DICConfig, seed: int
) -> list[tuple[float, Tensor]]:
    """Loss and (H, W) labels of each iteration."""
    network = PlainDIC()
    network.take({name: value.clone() for name, value in start_weights(config, seed).items()})
    network = network.to(image_CHW.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=config.lr, momentum=config.momentum)
    segments = [segment_HW == segment for segment in segment_HW.unique()]
    found = []
    for _ in range(config.iterations):
        out = network(image_CHW[None])
        target_HW = out.argmax(dim=1)[0]
        for inside_HW in segments:
            target_HW[inside_HW] = torch.bincount(target_HW[inside_HW]).argmax()
        loss = F.cross_entropy(out, target_HW[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((loss.item(), target_HW))
        if len(target_HW.unique()) < config.min_labels:
            break
    return found
