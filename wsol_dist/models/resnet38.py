"""ResNet38, model A1 of Wu et al.: wide, of stride 8, the usual backbone of weakly supervised segmentation.

Source: Z. Wu, C. Shen, A. van den Hengel, "Wider or deeper: revisiting the ResNet model for visual recognition", 2016,
table 1. Modules are called as in the public PyTorch port of its weights (`b4_2.conv_branch2b1.weight`), so files in
that layout load as they are; the original MXNet names (`arg:res4b2_branch2b1_weight`) are translated.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from wsol_dist.errors import UserError
from wsol_dist.models.weights import State, load_checked

_MXNET = re.compile(
    r"(?:arg|aux):(?P<kind>res|bn)(?P<block>\d)(?P<letter>[ab])(?P<number>\d*)_(?P<branch>branch\w+?)_(?P<what>\w+)"
)
_MXNET_NORM = re.compile(r"(?:arg|aux):bn7_(?P<what>\w+)")
_WHAT = {
    "weight": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}


class Block(nn.Module):
    """Pre-activation, two 3x3 convolutions; a 1x1 one beside them where the shape changes."""

    def __init__(
        self,
        fan_in: int,
        inner: int,
        fan_out: int,
        *,
        stride: int = 1,
        first_dilation: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(fan_in)
        self.conv_branch2a = _conv3x3(fan_in, inner, stride=stride, dilation=first_dilation)
        self.bn_branch2b1 = nn.BatchNorm2d(inner)
        self.conv_branch2b1 = _conv3x3(inner, fan_out, dilation=dilation)
        changes = fan_in != fan_out or stride > 1
        self.conv_branch1 = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn_branch2a(x))
        beside = x if self.conv_branch1 is None else self.conv_branch1(inner)
        return beside + self.conv_branch2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(inner))))


class Bottleneck(nn.Module):
    """Pre-activation, 1x1, 3x3 and 1x1 convolutions with dropout of whole channels between, a 1x1 one beside them."""

    def __init__(self, fan_in: int, fan_out: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(fan_in)
        self.conv_branch2a = nn.Conv2d(fan_in, fan_out // 4, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(fan_out // 4)
        self.conv_branch2b1 = _conv3x3(fan_out // 4, fan_out // 2, dilation=dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(fan_out // 2)
        self.conv_branch2b2 = nn.Conv2d(fan_out // 2, fan_out, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(fan_in, fan_out, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn_branch2a(x))
        beside = self.conv_branch1(inner)
        inner = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(inner))))
        inner = self.dropout(F.relu(self.bn_branch2b2(self.conv_branch2b1(inner))))
        return beside + self.conv_branch2b2(inner)


class ResNet38(nn.Module):
    """Image -> feature map of stride 8: (B, 3, H, W) -> (B, 64 width, ceil(H / 8), ceil(W / 8)), behind a ReLU.

    Args:
        width: channels of the first convolution; 64 is the published network, whose last map has 4096.
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        self.channels = 64 * width
        self.conv1a = _conv3x3(3, width)
        for block, (fan_in, fan_out, number) in enumerate(((1, 2, 3), (2, 4, 3), (4, 8, 6)), start=2):
            self._add(block, 0, Block(width * fan_in, width * fan_out, width * fan_out, stride=2))
            for at in range(1, number):
                self._add(block, at, Block(width * fan_out, width * fan_out, width * fan_out))
        self._add(5, 0, Block(width * 8, width * 8, width * 16, dilation=2))
        for at in (1, 2):
            self._add(5, at, Block(width * 16, width * 8, width * 16, first_dilation=2, dilation=2))
        self._add(6, 0, Bottleneck(width * 16, width * 32, dilation=4, dropout=0.3))
        self._add(7, 0, Bottleneck(width * 32, width * 64, dilation=4, dropout=0.5))
        self.bn7 = nn.BatchNorm2d(width * 64)

    def _add(self, block: int, number: int, module: nn.Module) -> None:
        self.add_module(f"b{block}_{number}" if number else f"b{block}", module)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        x = self.conv1a(image_BCHW)
        for module in self.children():
            if isinstance(module, Block | Bottleneck):
                x = module(x)
        return F.relu(self.bn7(x))

    def load_public(self, state: State, *, source: str) -> list[str]:
        """Load weights in the layout of the PyTorch port or of MXNet; a line each on what was not used.

        Raises:
            UserError: another network, or a part of this one.
        """
        named = {public_name(name): tensor for name, tensor in state.items()}
        own = {name: tensor for name, tensor in named.items() if name in self.state_dict()}
        if not own:
            raise UserError(
                f"{source}: no weights of ResNet38, first {next(iter(state), 'nothing')!r}; wanted are names such as "
                "'b2.conv_branch2a.weight' or 'arg:res2a_branch2a_weight'"
            )
        # Neither layout has the counters of batches that PyTorch keeps.
        counters = {k: v for k, v in self.state_dict().items() if k.endswith("num_batches_tracked")}
        load_checked(self, counters | own, source=source)
        return [f"not used: {name}" for name in named if name not in own]


def public_name(name: str) -> str:
    """A tensor's name in either public layout -> its name here; others stay as they are.

    `arg:res4b2_branch2b1_weight` -> `b4_2.conv_branch2b1.weight`; `aux:bn4a_branch2a_moving_mean` ->
    `b4.bn_branch2a.running_mean`.
    """
    name = name.removeprefix("module.")
    if name in ("arg:conv1a_weight", "conv1a_weight"):
        return "conv1a.weight"
    if (norm := _MXNET_NORM.fullmatch(name)) and norm["what"] in _WHAT:
        return f"bn7.{_WHAT[norm['what']]}"
    found = _MXNET.fullmatch(name)
    if found is None or found["what"] not in _WHAT:
        return name
    block = f"b{found['block']}" + (f"_{found['number']}" if found["number"] else "")
    kind = "conv" if found["kind"] == "res" else "bn"
    return f"{block}.{kind}_{found['branch']}.{_WHAT[found['what']]}"


def _conv3x3(fan_in: int, fan_out: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(fan_in, fan_out, 3, stride, padding=dilation, dilation=dilation, bias=False)
