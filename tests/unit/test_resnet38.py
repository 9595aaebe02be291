"""ResNet38: shape, the published size, and the two layouts that its weights are found in."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from wsol_dist.errors import UserError
from wsol_dist.models.mxnet_file import V1, V2, read_params
from wsol_dist.models.resnet38 import ResNet38, public_name
from wsol_dist.models.weights import read_state

TINY = 2


def tiny(seed: int = 0) -> ResNet38:
    torch.manual_seed(seed)
    return ResNet38(width=TINY).eval()


def test_the_published_network_has_its_size_and_stride() -> None:
    with torch.device("meta"):
        network = ResNet38()
        found = network(torch.empty(1, 3, 321, 321))
    assert found.shape == (1, 4096, 41, 41)
    # 3 + 3 + 6 + 3 blocks of two convolutions, two of three; with the first and the classifier 38 layers deep
    convolutions = [name for name, one in network.named_modules() if isinstance(one, torch.nn.Conv2d)]
    assert len([name for name in convolutions if not name.endswith("branch1")]) == 1 + 15 * 2 + 2 * 3
    assert sum(one.numel() for one in network.parameters()) == 105_070_912


def test_the_last_map_sees_a_large_field() -> None:
    network = tiny()
    image = torch.randn(1, 3, 256, 256, requires_grad=True)
    network(image)[0, :, 16, 16].sum().backward()
    seen = image.grad[0].abs().sum(dim=0).nonzero()
    assert (seen.max(dim=0).values - seen.min(dim=0).values).min() > 150


@pytest.mark.parametrize(
    ("public", "ours"),
    [
        ("arg:conv1a_weight", "conv1a.weight"),
        ("arg:res2a_branch1_weight", "b2.conv_branch1.weight"),
        ("arg:res2b1_branch2a_weight", "b2_1.conv_branch2a.weight"),
        ("arg:res4b5_branch2b1_weight", "b4_5.conv_branch2b1.weight"),
        ("arg:bn5a_branch2a_gamma", "b5.bn_branch2a.weight"),
        ("arg:bn5b2_branch2b1_beta", "b5_2.bn_branch2b1.bias"),
        ("aux:bn6a_branch2b2_moving_mean", "b6.bn_branch2b2.running_mean"),
        ("aux:bn7a_branch2a_moving_var", "b7.bn_branch2a.running_var"),
        ("arg:bn7_gamma", "bn7.weight"),
        ("aux:bn7_moving_var", "bn7.running_var"),
        ("arg:linear1000_weight", "arg:linear1000_weight"),
        ("b4_2.conv_branch2b1.weight", "b4_2.conv_branch2b1.weight"),
        ("module.b7.bn_branch2b2.bias", "b7.bn_branch2b2.bias"),
    ],
)
def test_names_of_the_public_layouts(public: str, ours: str) -> None:
    assert public_name(public) == ours


def mxnet_name(name: str) -> str:
    """A name of ours as the MXNet file has it, written down from the file's own rule."""
    if name == "conv1a.weight":
        return "arg:conv1a_weight"
    what = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    block, *rest = name.split(".")
    last = rest[-1]
    kind = "aux" if last.startswith("running") else "arg"
    if block == "bn7":
        return f"{kind}:bn7_{what.get(last, 'gamma')}"
    number, _, repeat = block[1:].partition("_")
    where = f"{number}b{repeat}" if repeat else f"{number}a"
    layer, _, branch = rest[0].partition("_")
    if layer == "conv":
        return f"arg:res{where}_{branch}_weight"
    return f"{kind}:bn{where}_{branch}_{what.get(last, 'gamma')}"


def public_state(network: ResNet38, layout: str) -> dict[str, torch.Tensor]:
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    if layout == "torch":
        return state | {"fc8.weight": torch.zeros(20, network.channels, 1, 1)}
    renamed = {mxnet_name(name): tensor for name, tensor in state.items()}
    return renamed | {"arg:linear1000_weight": torch.zeros(1000, network.channels)}


@pytest.mark.parametrize("layout", ["torch", "mxnet"])
def test_either_layout_gives_the_same_features(layout: str, tmp_path: Path) -> None:
    source, other = tiny(0), tiny(1)
    torch.save(public_state(source, layout), tmp_path / "weights.pth")
    unused = other.load_public(read_state(tmp_path / "weights.pth"), source="weights.pth")
    assert len(unused) == 1
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(source(image), other(image))


def test_what_is_missing_or_foreign_is_named() -> None:
    state = public_state(tiny(), "mxnet")
    del state["arg:res4b3_branch2a_weight"]
    with pytest.raises(UserError, match=r"1 tensors missing, first 'b4_3\.conv_branch2a\.weight'"):
        tiny().load_public(state, source="w.pth")
    with pytest.raises(UserError, match="no weights of ResNet38, first 'layer1"):
        tiny().load_public({"layer1.0.conv1.weight": torch.zeros(3)}, source="w.pth")
    with pytest.raises(UserError, match="in the file and"):
        tiny().load_public(public_state(ResNet38(width=3), "torch"), source="w.pth")


# MXNet's own files


def params_bytes(arrays: dict[str, np.ndarray], version: int) -> bytes:
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        if version == 0:
            parts.append(struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape))
        else:
            parts.append(struct.pack("<I", version))
            parts += [struct.pack("<i", 0)] if version == V2 else []
            parts.append(struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape))
        parts += [struct.pack("<iii", 1, 0, {"f4": 0, "f2": 2}[array.dtype.str[1:]]), array.tobytes()]
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        parts.append(struct.pack("<Q", len(name)) + name.encode())
    return b"".join(parts)


@pytest.mark.parametrize("version", [0, V1, V2], ids=["2016", "2017", "later"])
def test_a_params_file_is_read_without_mxnet(version: int, tmp_path: Path) -> None:
    source, other = tiny(0), tiny(1)
    arrays = {name: tensor.numpy() for name, tensor in public_state(source, "mxnet").items()}
    (tmp_path / "a1.params").write_bytes(params_bytes(arrays, version))
    state = read_state(tmp_path / "a1.params")
    assert list(state) == list(arrays)
    other.load_public(state, source="a1.params")
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(source(image), other(image))


def test_a_damaged_params_file_is_refused(tmp_path: Path) -> None:
    whole = params_bytes({"arg:conv1a_weight": np.ones((2, 3), np.float16)}, 0)
    path = tmp_path / "a1.params"
    path.write_bytes(whole)
    assert read_params(path)["arg:conv1a_weight"].dtype == torch.float16
    huge = (
        struct.pack("<QQQ", 0x112, 0, 1)
        + struct.pack("<III", 2, 1 << 31, 1 << 31)
        + struct.pack("<iii", 1, 0, 0)
    )
    for broken in (whole[:-3], whole[:30], b"no params", huge, whole[:24] + b"\xff" * 20, b""):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="not a readable weight file"):
            read_state(path)
