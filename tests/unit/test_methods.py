"""The contract that every registered method keeps, and what each method promises beyond it."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from wsol_dist.errors import UserError
from wsol_dist.methods.base import Method
from wsol_dist.methods.cam.config import CAMConfig
from wsol_dist.methods.cam.network import CAM
from wsol_dist.methods.molt.config import MOLTConfig
from wsol_dist.methods.molt.network import MOLT, combine_maps, min_max, resize_square
from wsol_dist.methods.ts_cam.config import TSCAMConfig
from wsol_dist.methods.ts_cam.network import TSCAM, pooled_conv3x3
from wsol_dist.models.config import ViTConfig
from wsol_dist.registry import METHODS, config_class, method_class

NUM_CLASSES = 5
TINY_VIT = TSCAM.tiny_config().backbone


def build(cls: type[Method], config=None, num_classes: int = NUM_CLASSES) -> Method:
    torch.manual_seed(0)
    return cls(config or cls.tiny_config(), num_classes)


def batch(method: Method) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, method.image_px, method.image_px, generator=generator)
    return image, torch.tensor([0, 4, 2])


def inputs(method: Method) -> tuple[torch.Tensor, ...]:
    """What the loss takes: the batch, and label maps where they are wanted."""
    image, label = batch(method)
    if not method.tiny_config().takes_targets:
        return image, label
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randint(0, NUM_CLASSES + 1, (3, 2, 2), generator=generator, dtype=torch.uint8)
    return image, label, coarse.repeat_interleave(32, dim=1).repeat_interleave(32, dim=2)


@pytest.fixture(params=sorted(METHODS))
def method(request) -> Method:
    return build(method_class(request.param))


def test_contract_loss_is_finite_and_falls(method):
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    method.train()
    values = []
    for _ in range(8):
        out = method(*inputs(method))
        assert all(value.ndim == 0 and value.isfinite() for value in out.values())
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        values.append(out["loss"].item())
    assert values[-1] < 0.9 * values[0]


def test_contract_gradients_reach_every_trainable_parameter(method):
    method.train()
    method(*inputs(method))["loss"].backward()
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert trainable
    dead = [name for name, p in trainable.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("class_BK", [None, torch.tensor([[0, 3], [1, 1], [4, 2]])])
def test_contract_maps(method, class_BK):
    image, _ = batch(method)
    method.train()
    found = method.localize(image, class_BK)
    num_maps = 1 if class_BK is None else 2
    assert method.training, "localize must give the mode back"
    assert found.prob_BC.shape == (3, NUM_CLASSES)
    torch.testing.assert_close(found.prob_BC.sum(dim=1), torch.ones(3))
    assert found.class_BK.shape == (3, num_maps)
    assert found.map_BKhw.shape[:2] == (3, num_maps)
    assert found.map_BKhw.ndim == 4
    assert found.map_BKhw.dtype == found.prob_BC.dtype == torch.float32
    assert found.map_BKhw.isfinite().all()
    assert not found.map_BKhw.requires_grad
    if class_BK is None:
        assert torch.equal(found.class_BK[:, 0], found.prob_BC.argmax(dim=1))
    else:
        assert torch.equal(found.map_BKhw[1, 0], found.map_BKhw[1, 1])
        assert torch.equal(found.map_BKhw[0, 0], found.map_BKhw[0, 1]) == method.class_agnostic


def test_contract_maps_do_not_depend_on_the_batch(method):
    image, _ = batch(method)
    together, alone = method.localize(image), method.localize(image[1:2])
    torch.testing.assert_close(together.map_BKhw[1:2], alone.map_BKhw, atol=1e-5, rtol=1e-4)


def test_contract_state_round_trip(method, tmp_path):
    image, _ = batch(method)
    save_file(method.state_dict(), tmp_path / "state.safetensors")
    torch.manual_seed(9)
    other = type(method)(method.tiny_config(), NUM_CLASSES)
    assert not torch.equal(method.localize(image).map_BKhw, other.localize(image).map_BKhw)
    assert other.load_init(load_file(tmp_path / "state.safetensors")) == []
    assert torch.equal(method.localize(image).map_BKhw, other.localize(image).map_BKhw)
    assert torch.equal(method.localize(image).prob_BC, other.localize(image).prob_BC)


def test_contract_names(method):
    assert method.no_weight_decay() <= {name for name, _ in method.named_parameters()}
    assert method.trained_keys() <= set(method.state_dict())
    assert {name for name, p in method.named_parameters() if p.requires_grad} <= method.trained_keys()


def test_contract_foreign_weights_are_refused(method):
    with pytest.raises(UserError):
        method.load_init({"encoder.weight": torch.zeros(3)})
    other_classes = type(method)(method.tiny_config(), NUM_CLASSES + 1)
    with pytest.raises(UserError):
        method.load_init(other_classes.state_dict())


# CAM


def test_cam_map_averages_to_the_logit_without_bias():
    method = build(CAM).eval()
    image, _ = batch(method)
    every = torch.arange(NUM_CLASSES).expand(3, -1)
    with torch.no_grad():
        wanted = method.model(image) - method.model.get_classifier().bias
    torch.testing.assert_close(
        method.localize(image, every).map_BKhw.mean(dim=(2, 3)), wanted, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("arch", ["mobilenetv3_small_050", "convnext_atto", "deit_tiny_patch16_224"])
def test_cam_refuses_what_is_not_average_and_linear(arch):
    with pytest.raises(UserError, match="global average pooling"):
        CAM(CAMConfig(arch=arch), 3)


def test_cam_checkpoint_of_another_class_count_starts_the_features(tmp_path):
    source = build(CAM, num_classes=7)
    save_file(source.model.state_dict(), tmp_path / "cnn.safetensors")
    config = CAMConfig(
        arch="resnet10t", image_px=64, checkpoint=str(tmp_path / "cnn.safetensors"), bn_eval=True
    )
    method = CAM(config, NUM_CLASSES)
    assert torch.equal(method.model.conv1[0].weight, source.model.conv1[0].weight)
    assert method.model.get_classifier().out_features == NUM_CLASSES
    buffers = {name: tensor.clone() for name, tensor in method.named_buffers()}
    method.train()(*batch(method))
    assert all(torch.equal(tensor, buffers[name]) for name, tensor in method.named_buffers())


def test_cam_real_network_on_real_images(real_data):
    root = real_data
    config = CAMConfig(
        arch="mobilenetv2_100", model_kwargs={"pad_type": "same"}, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    method = CAM(config, 1000)
    method.load_init(load_file(root / "weights/mobilenetv2_100.imagenet1k.safetensors"))
    folder = root / "ilsvrc-val-300"
    with (folder / "metadata/ILSVRC/test/class_labels.txt").open() as file:
        rows = list(csv.reader(file))[:40]
    pixels = [
        Image.open(folder / "dataset/ILSVRC" / name).convert("RGB").resize((224, 224)) for name, _ in rows
    ]
    image = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) / 127.5 - 1 for p in pixels])
    found = method.localize(image)
    right = (found.class_BK[:, 0] == torch.tensor([int(label) for _, label in rows])).float().mean()
    assert found.map_BKhw.shape == (40, 1, 7, 7)
    assert right > 0.6


# TS-CAM


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (2, 5)])
def test_pooled_head_is_the_mean_of_the_convolution(size):
    conv = torch.nn.Conv2d(6, 3, 3, padding=1)
    feature = torch.randn(2, 6, *size)
    torch.testing.assert_close(
        pooled_conv3x3(feature, conv), conv(feature).mean(dim=(2, 3)), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("direction", ["class_query", "patch_query"])
def test_ts_cam_map_is_attention_times_score(direction):
    method = build(TSCAM, TSCAMConfig(image_px=32, backbone=TINY_VIT, attention_direction=direction)).eval()
    image, _ = batch(method)
    with torch.no_grad():
        token, row = method.backbone.forward_tokens_and_row(image, direction=direction)
        score = method.head(token[:, 1:].transpose(1, 2).reshape(3, -1, 4, 4))
        logit = method.logits(image)
    found = method.localize(image, torch.tensor([[2], [2], [2]]))
    torch.testing.assert_close(found.map_BKhw[:, 0], score[:, 2] * row.reshape(3, 4, 4))
    torch.testing.assert_close(found.prob_BC, logit.softmax(dim=1), atol=1e-6, rtol=1e-5)
    assert (found.map_BKhw < 0).any(), "the map is signed: no ReLU"


def test_ts_cam_takes_the_classifier_bias_only_where_it_fits(tmp_path):
    import timm

    plain = timm.create_model(
        "deit_small_patch16_224", img_size=32, patch_size=8, embed_dim=32, num_heads=2, depth=2, num_classes=5
    )
    torch.nn.init.normal_(plain.head.bias)
    save_file(plain.state_dict(), tmp_path / "vit.safetensors")
    vit = ViTConfig(width=32, heads=2, depth=2, patch_px=8, checkpoint=str(tmp_path / "vit.safetensors"))
    config = TSCAMConfig(image_px=32, backbone=vit)
    assert torch.equal(build(TSCAM, config).head.bias, plain.head.bias)
    other = build(TSCAM, config, num_classes=6)
    assert other.head.bias.shape == (6,)
    late = build(TSCAM, TSCAMConfig(image_px=32, backbone=ViTConfig(width=32, heads=2, depth=2, patch_px=8)))
    assert sorted(late.load_init(plain.state_dict())) == ["not used: head.bias", "not used: head.weight"]
    assert torch.equal(late.backbone.vit.blocks[0].attn.qkv.weight, plain.blocks[0].attn.qkv.weight)
    assert torch.equal(late.head.bias, plain.head.bias)


def test_ts_cam_starts_from_another_image_size():
    small, large = build(TSCAM), build(TSCAM, TSCAMConfig(image_px=64, backbone=TINY_VIT))
    assert large.load_init(small.state_dict()) == []
    assert large.backbone.vit.pos_embed.shape == (1, 65, 32)


# MOLT


def test_molt_three_grids_and_disjoint_parameters():
    method = build(MOLT)
    image, _ = batch(method)
    _, _, maps = method.scale_maps(image)
    assert {px: tuple(m.shape[2:]) for px, m in maps.items()} == {16: (2, 2), 24: (3, 3), 32: (4, 4)}
    assert method.localize(image).map_BKhw.shape == (3, 1, 4, 4)
    pointers = [{p.data_ptr() for p in branch.parameters()} for branch in method.branches]
    assert all(pointers)
    assert sum(map(len, pointers)) == len(set.union(*pointers)) == len(list(method.parameters()))


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_molt_trains_one_scale_alone(scale):
    config = MOLTConfig(scales_px=(16, 24, 32), backbone=TINY_VIT, train_scales=(scale,))
    method = build(MOLT, config).train()
    out = method(*batch(method))
    out["loss"].backward()
    with_gradient = {name for name, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {
        name for name, _ in method.named_parameters() if name.startswith(f"branches.{scale}.")
    }
    assert method.trained_keys() == {n for n in method.state_dict() if n.startswith(f"branches.{scale}.")}
    assert [branch.training for branch in method.branches] == [index == scale for index in range(3)]
    assert {"loss", f"loss_scale_{(16, 24, 32)[scale]}", "accuracy"} == set(out)


def test_molt_together_is_the_sum_of_the_scales_alone():
    together = build(MOLT)
    image, label = batch(together)
    alone = [
        build(MOLT, MOLTConfig(scales_px=(16, 24, 32), backbone=TINY_VIT, train_scales=(k,)))(image, label)[
            "loss"
        ]
        for k in range(3)
    ]
    torch.testing.assert_close(together(image, label)["loss"], torch.stack(alone).sum())


def test_molt_runs_trained_apart_merge_to_the_one_trained_together():
    def trained(train_scales: tuple[int, ...]) -> MOLT:
        config = MOLTConfig(scales_px=(16, 24, 32), backbone=TINY_VIT, train_scales=train_scales)
        method = build(MOLT, config).train()
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            method(*batch(method))["loss"].backward()
            optimizer.step()
        return method

    merged = build(MOLT).state_dict()
    for k in range(3):
        run = trained((k,))
        merged |= {name: tensor for name, tensor in run.state_dict().items() if name in run.trained_keys()}
    for name, tensor in trained(()).state_dict().items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-6, rtol=1e-5)


def test_molt_starts_every_scale_from_one_ts_cam():
    source, method = build(TSCAM), build(MOLT)
    assert method.load_init(source.state_dict()) == []
    for branch in method.branches:
        assert torch.equal(branch.head.weight, source.head.weight)


def test_molt_localizes_with_the_wanted_scales():
    def config(**more) -> MOLTConfig:
        return MOLTConfig(scales_px=(16, 24, 32), backbone=TINY_VIT, **more)

    image, _ = batch(build(MOLT))
    every = build(MOLT, config()).scale_maps(image)
    one = build(MOLT, config(train_scales=(1,))).scale_maps(image)
    assert list(one[2]) == [24]
    again = build(MOLT, config(train_scales=(1,), localize_scales=(0, 1, 2))).scale_maps(image)
    assert torch.equal(again[0], every[0])
    probs = [build(MOLT, config(localize_scales=(k,))).scale_maps(image)[0] for k in range(3)]
    torch.testing.assert_close(every[0], torch.stack(probs).mean(dim=0))


@pytest.mark.parametrize(
    ("combine", "value"), [("mean", [0.0, 0.75, 0.25, 1.0]), ("sum", [0.0, 1.5, 0.5, 2.0])]
)
def test_combine_linear(combine, value):
    first = torch.tensor([[[[-1.0, 1.0], [0.0, 1.0]]]])
    second = torch.tensor([[[[5.0, 7.0], [5.0, 9.0]]]])
    assert combine_maps([first, second], combine).flatten().tolist() == value


def test_combine_product_and_max():
    first = torch.tensor([[[[-1.0, 1.0], [0.0, 1.0]]]])
    second = torch.tensor([[[[5.0, 7.0], [5.0, 9.0]]]])
    assert combine_maps([first, second], "product").flatten().tolist() == [0.0, 0.5, 0.0, 1.0]
    assert combine_maps([first, second], "max").flatten().tolist() == [0.0, 1.0, 0.5, 1.0]


def test_min_max_of_a_constant_map_is_zero():
    assert torch.equal(min_max(torch.full((1, 1, 3, 3), 2.5)), torch.zeros(1, 1, 3, 3))


def test_norm_after_pos_embed_is_there_and_trains():
    config = MOLTConfig(scales_px=(16, 32), backbone=TINY_VIT, norm_after_pos_embed=True)
    method = build(MOLT, config)
    method(*batch(method))["loss"].backward()
    assert all(branch.backbone.vit.norm_pre.weight.grad.abs().sum() > 0 for branch in method.branches)
    assert not [name for name in build(MOLT).state_dict() if "norm_pre" in name]


def test_resize_leaves_a_fitting_image_alone():
    image = torch.randn(1, 3, 8, 8)
    assert resize_square(image, 8) is image
    assert resize_square(torch.ones(1, 3, 8, 8), 4).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    "wrong", [{"scales_px": ()}, {"scales_px": (64, 64)}, {"train_scales": (3,)}, {"localize_scales": (-1,)}]
)
def test_molt_config_refuses(wrong):
    with pytest.raises(ValueError, match="method"):
        MOLTConfig(**wrong)


@pytest.mark.parametrize("name", [*METHODS, "tests.hue:Hue"])
def test_the_knobs_that_a_recipe_is_read_with_are_the_methods_own(name: str) -> None:
    assert config_class(name) is method_class(name).Config
