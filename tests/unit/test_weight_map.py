"""What the weight map promises beyond the contract of every method: losses, frozen f, U-Net, bad weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from wsol_dist.errors import UserError
from wsol_dist.methods.cam.config import CAMConfig
from wsol_dist.methods.cam.network import CAM
from wsol_dist.methods.weight_map.config import WeightMapConfig
from wsol_dist.methods.weight_map.network import WeightMap
from wsol_dist.models.config import CNNConfig
from wsol_dist.models.unet import UNet
from wsol_dist.validation import validated

NUM_CLASSES = 5
FOURS = torch.tensor([0, 0, 3, 3, 1, 1, 0, 0])


def config(**knobs) -> WeightMapConfig:
    return replace(WeightMap.tiny_config(), **knobs)


def build(**knobs) -> WeightMap:
    torch.manual_seed(0)
    return WeightMap(config(**knobs), NUM_CLASSES)


def images(num: int = 8) -> Tensor:
    return torch.randn(num, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def fixed_map(method: WeightMap, level: float) -> None:
    method.weights = lambda image: torch.full_like(image[:, :1], level)  # type: ignore[method-assign]


def test_method_one_is_soft_cross_entropy_and_the_mean_of_the_map() -> None:
    method = build().train()
    image = images()
    out = method(image, FOURS)
    with torch.no_grad():
        weight = method.weights(image)
        p = method.classifier(image).softmax(dim=1)
        q = method.classifier(image * weight).log_softmax(dim=1)
    torch.testing.assert_close(out["loss"], -(p * q).sum(dim=1).mean() + weight.mean())
    without = build(regulariser=0.0).train()(image, FOURS)
    torch.testing.assert_close(without["loss"], out["same"])


def test_a_map_of_ones_costs_what_f_itself_is_unsure_of_and_the_regulariser() -> None:
    method = build().train()
    fixed_map(method, 1.0)
    out = method(images(), FOURS)
    p = method.classifier(images()).softmax(dim=1)
    torch.testing.assert_close(out["loss"], -(p * p.log()).sum(dim=1).mean() + 1)


def by_hand(method: WeightMap, image: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 3 and 4 image by image, with plain norms."""
    weight = method.weights(image)
    whole, front, back = (method.embedder(one) for one in (image, image * weight, image * (1 - weight)))
    inner = [max((w - f).norm() - (w - b).norm() + 1, 0) for w, f, b in zip(whole, front, back, strict=True)]
    positive, negative = [1, 0, 3, 2, 5, 4, 7, 6], [2, 3, 0, 1, 6, 7, 4, 5]
    assert torch.equal(FOURS[positive], FOURS)
    assert (FOURS[negative] != FOURS).all()
    outer = [
        max((f - front[p]).norm() - (f - front[n]).norm() + 1, 0)
        for f, p, n in zip(front, positive, negative, strict=True)
    ]
    return torch.stack(inner).mean(), torch.stack(outer).mean()


@pytest.mark.parametrize(("inner", "outer"), [(True, True), (True, False), (False, True)])
def test_method_two_is_its_two_triplet_terms_and_the_mean_of_the_map(inner: bool, outer: bool) -> None:
    method = build(variant="siamese", inner=inner, outer=outer).train()
    out = method(images(), FOURS)
    with torch.no_grad():
        wanted_inner, wanted_outer = by_hand(method, images())
        wanted = method.weights(images()).mean() + inner * wanted_inner + outer * wanted_outer
    torch.testing.assert_close(out["loss"], wanted, atol=1e-5, rtol=1e-5)
    assert {"inner", "outer"} & set(out) == {n for n, on in (("inner", inner), ("outer", outer)) if on}


def test_a_batch_without_a_positive_or_a_negative_is_impossible() -> None:
    method = build(variant="siamese").train()
    for wrong in (torch.tensor([0, 1, 3, 3, 1, 1, 0, 0]), torch.tensor([0, 0, 0, 0, 1, 1, 0, 0])):
        with pytest.raises(AssertionError, match=r"no (positive|negative)"):
            method(images(), wrong)


@pytest.mark.parametrize("variant", ["classifier", "siamese"])
def test_g_alone_trains_and_f_stays_in_eval_mode(variant: str) -> None:
    method = build(variant=variant, bn_eval=False)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    method.train()
    for network in (method.classifier, method.embedder):
        assert network is None or not any(part.training for part in network.modules())
    assert all(part.training for part in method.g.modules())
    method(images(), FOURS)["loss"].backward()
    optimizer.step()
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= method.trained_keys()
    assert {name for name, p in method.named_parameters() if p.grad is not None} <= method.trained_keys()
    assert all(name.startswith("g.") for name in method.trained_keys())


@pytest.mark.parametrize("wwbl", [False, True])
def test_the_rate_of_the_output_is_that_of_its_gain_and_bias(wwbl: bool) -> None:
    method = build(wwbl=wwbl, out_lr=20.0)
    scales = method.lr_scales()
    assert set(scales.values()) == {20.0}
    parameters = dict(method.named_parameters())
    assert sorted(name.rpartition(".")[2] for name in scales) == ["bias", "weight"]
    with torch.no_grad():
        for name in scales:
            parameters[name].fill_(2 if name.endswith("bias") else 0)
    assert torch.allclose(method.weights(images()), torch.tensor(2.0).sigmoid())  # nothing comes behind them
    assert not build(wwbl=wwbl).lr_scales()
    assert not build(variant="siamese", stage="f", out_lr=20.0).lr_scales()


def test_the_siamese_loss_of_fours_does_not_depend_on_who_holds_them() -> None:
    method = build(variant="siamese").train()
    whole = method(images(), FOURS)["loss"]
    halves = [method(images()[part], FOURS[part])["loss"] for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(whole, torch.stack(halves).mean(), atol=1e-5, rtol=1e-5)


def test_the_embedding_learns_and_its_weights_become_f(tmp_path: Path) -> None:
    stage_f = build(variant="siamese", stage="f").train()
    optimizer = torch.optim.AdamW(stage_f.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(stage_f(images(), FOURS)["loss"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    with pytest.raises(UserError, match="nothing to score before g is trained"):
        stage_f.localize(images())
    stage_g = build(variant="siamese")
    stage_g.load_before(stage_f.state_dict(), source="f")
    cam = CAM(CAM.tiny_config(), NUM_CLASSES)
    stage_g.load_before(cam.state_dict(), source="cam")
    state = stage_f.state_dict()
    assert all(
        torch.equal(value, state[f"embedder.{n}"]) for n, value in stage_g.embedder.state_dict().items()
    )
    assert torch.equal(stage_g.classifier.fc.weight, cam.model.fc.weight)


# weights


def save_cam(path: Path, *, num_classes: int, arch: str = "resnet10t") -> str:
    cam = CAM(CAMConfig(arch=arch, image_px=32), num_classes)
    save_file(cam.state_dict(), path)
    return str(path)


def test_f_from_a_checkpoint_of_ours_and_in_timms_format(tmp_path: Path) -> None:
    cam = CAM(CAM.tiny_config(), NUM_CLASSES)
    save_file(cam.state_dict(), tmp_path / "ours.safetensors")
    save_file(cam.model.state_dict(), tmp_path / "timm.safetensors")
    net = WeightMap.tiny_config().classifier
    for name in ("ours", "timm"):
        method = build(classifier=replace(net, checkpoint=str(tmp_path / f"{name}.safetensors")))
        torch.testing.assert_close(
            method.localize(images()).prob_BC, cam.eval().model(images()).softmax(dim=1)
        )


def test_an_f_of_other_classes_or_of_another_architecture_is_refused(tmp_path: Path) -> None:
    net = WeightMap.tiny_config().classifier
    other = replace(net, checkpoint=save_cam(tmp_path / "seven.safetensors", num_classes=7))
    with pytest.raises(
        UserError, match=r"seven.safetensors: has 7 classes, the shards 5; give the classifier"
    ):
        build(classifier=other)
    other = replace(net, checkpoint=save_cam(tmp_path / "r18.safetensors", num_classes=5, arch="resnet18"))
    with pytest.raises(UserError, match=r"does not fit ResNet: .*method.classifier.arch is 'resnet10t'"):
        build(classifier=other)


@pytest.mark.parametrize(
    ("knobs", "order", "num_before", "words"),
    [
        ({"variant": "siamese"}, "uniform", 2, "set --data.order class_pairs"),
        ({}, "uniform", 0, "method.classifier.checkpoint: g learns from a trained network"),
        ({"classifier": CNNConfig(checkpoint="f")}, "uniform", 0, None),
        ({"variant": "siamese", "stage": "f"}, "class_pairs", 0, None),
        ({}, "uniform", 1, None),
    ],
)
def test_what_does_not_go_with_the_rest_of_a_recipe(
    knobs: dict, order: str, num_before: int, words: str | None
) -> None:
    problem = config(**knobs).recipe_problem(order=order, num_before=num_before)
    assert problem is None if words is None else words in str(problem)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stage": "f"}, "method.stage: f of the classifier variant"),
        ({"variant": "siamese", "inner": False, "outer": False}, "method: the siamese variant needs"),
        ({"regulariser": -1}, "regulariser: given -1; allowed: 0 or more"),
        ({"out_lr": 0}, "out_lr: given 0; allowed: above 0"),
        ({"out_stride": 8, "wwbl": True}, "method.out_stride: `wwbl` has a stride of its own"),
        ({"std": (0, 1, 1)}, "std.0: given 0; allowed: above 0"),
    ],
)
def test_config_refuses(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        validated(WeightMapConfig, wrong)


# g


@pytest.mark.parametrize("wwbl", [False, True])
@pytest.mark.parametrize("arch", ["resnet18", "mobilenetv2_100"])
@pytest.mark.parametrize("side", [64, 72])
def test_unet_gives_a_map_of_the_images_size(arch: str, wwbl: bool, side: int) -> None:
    unet = UNet(CNNConfig(arch=arch), wwbl=wwbl).eval()
    with torch.no_grad():
        assert unet(torch.zeros(2, 3, side, side)).shape == (2, 1, side, side)


@pytest.mark.parametrize("stride", [1, 2, 8, 16])
def test_unet_of_a_coarser_stride_ends_there(stride: int) -> None:
    unet = UNet(CNNConfig(arch="resnet10t"), out_stride=stride).eval()
    ends: list[Tensor] = []
    unet.blocks[-1].register_forward_hook(lambda block, given, out: ends.append(out))
    with torch.no_grad():
        found = unet(images(2))
    assert ends[0].shape == (2, 1, 32 // stride, 32 // stride)
    torch.testing.assert_close(
        found, F.interpolate(ends[0], size=(32, 32), mode="bilinear", align_corners=False)
    )


def test_a_stride_that_the_encoder_does_not_have_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"method\.out_stride: given 3, encoder 'resnet10t' allows 16, 8, 4, 2, 1"
    ):
        UNet(CNNConfig(arch="resnet10t"), out_stride=3)


def test_unet_blocks_as_the_paper_and_as_wwbl_have_them() -> None:
    paper, wwbl = UNet(CNNConfig()), UNet(CNNConfig(), wwbl=True)
    assert paper.strides == [16, 8, 4, 2, 1]
    assert wwbl.strides == [16, 8, 4, 4, 2]
    fans = [[block[0].in_channels for block in unet.blocks] for unet in (paper, wwbl)]
    # ResNet-18 has 64, 64, 128, 256, 512 channels; at the input's resolution there is no skip.
    assert fans[0] == [512 + 256, 256 + 128, 128 + 64, 64 + 64, 64]
    assert fans[1] == [512 + 256, 256 + 128, 128 + 64, 64 + 64, 64 + 64]
    norms = [
        [sum(isinstance(part, torch.nn.BatchNorm2d) for part in block) for block in unet.blocks]
        for unet in (paper, wwbl)
    ]
    assert norms == [[1] * 5, [2] * 5]


def test_unet_over_a_pyramid_without_stride_two() -> None:
    unet = UNet(CNNConfig(arch="convnext_atto")).eval()
    assert unet.strides == [16, 8, 4, 2, 1]
    assert unet(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("arch", ["resnet10t", "mobilenetv2_100", "convnext_atto"])
def test_encoder_starts_from_a_whole_networks_file(arch: str, tmp_path: Path) -> None:
    import timm

    whole = timm.create_model(arch, num_classes=7)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    unet = UNet(CNNConfig(arch=arch, checkpoint=str(tmp_path / "whole.safetensors")))
    flat = {name.replace(".", "_"): value for name, value in whole.state_dict().items()}
    assert all(torch.equal(v, flat[n.replace(".", "_")]) for n, v in unet.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (CNNConfig(arch="vit_tiny_patch16_224"), "pyramid|strides"),
        (CNNConfig(arch="resnot18"), "timm has no model"),
    ],
)
def test_encoders_that_do_not_serve_are_refused(net: CNNConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        UNet(net)


def test_an_encoder_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = save_cam(tmp_path / "r18.safetensors", num_classes=5, arch="resnet18")
    with pytest.raises(UserError, match="tensors missing"):
        UNet(CNNConfig(arch="mobilenetv2_100", checkpoint=path))
