"""Building backbones: any grid, local weights, stems that keep their batch norm, and mistakes in one line."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from wsol_dist.errors import UserError
from wsol_dist.models.backbones import ViTConfig, build_cnn, build_vit
from wsol_dist.models.weights import read_state, without_checkpoints
from wsol_dist.validation import validated

SMALL = {"width": 48, "heads": 3, "depth": 2, "drop_path": 0.0}


@pytest.fixture
def deit_file(tmp_path) -> Path:
    """A plain timm checkpoint for 64 px, patch 16, with a classifier of 7."""
    vit = timm.create_model(
        "deit_small_patch16_224", img_size=64, embed_dim=48, num_heads=3, depth=2, num_classes=7
    )
    nn.init.normal_(vit.head.bias)
    save_file(vit.state_dict(), tmp_path / "deit.safetensors")
    return tmp_path / "deit.safetensors"


@pytest.mark.parametrize(
    ("extra", "image_px", "grid"),
    [
        ({}, 64, 4),
        ({"patch_px": 8}, 96, 12),
        ({"stem": "conv", "patch_px": 8}, 64, 8),
        ({"stem": "mobilenetv2_035", "stem_stride": 16}, 96, 6),
        ({"stem": "mobilenetv2_035", "stem_stride": 8}, 64, 8),
        ({"stem": "resnet10t", "stem_stride": 16}, 64, 4),
    ],
)
def test_tokens_and_row_have_the_grid(extra, image_px, grid):
    backbone = build_vit(ViTConfig(**SMALL, **extra), image_px).eval()
    image = torch.randn(2, 3, image_px, image_px)
    with torch.no_grad():
        token, row = backbone.forward_tokens_and_row(image)
        alone = backbone.forward_tokens(image)
    assert backbone.grid(image_px) == grid
    assert backbone.stride_px == image_px // grid
    assert token.shape == (2, 1 + grid * grid, backbone.width)
    assert row.shape == (2, grid * grid)
    torch.testing.assert_close(token, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stem", ["resnet10t", "mobilenetv2_035"])
def test_every_parameter_behind_a_stem_gets_a_gradient(stem):
    backbone = build_vit(ViTConfig(**SMALL, stem=stem, stem_stride=8, stem_bn_eval=False), 64).train()
    (backbone.forward_tokens(torch.randn(2, 3, 64, 64)) ** 3).sum().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_checkpoint_at_its_own_size_is_timm(deit_file):
    backbone = build_vit(ViTConfig(**SMALL, checkpoint=str(deit_file)), 64).eval()
    peer = timm.create_model(
        "deit_small_patch16_224", img_size=64, embed_dim=48, num_heads=3, depth=2, num_classes=7
    ).eval()
    peer.load_state_dict(read_state(deit_file))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone.forward_tokens(image), peer.forward_features(image), atol=1e-5, rtol=0
        )
    assert backbone.classifier_bias.shape == (7,)


def test_position_embedding_is_resized_without_its_class_part(deit_file):
    state = read_state(deit_file)
    backbone = build_vit(ViTConfig(**SMALL, checkpoint=str(deit_file)), 112)
    old, new = state["pos_embed"], backbone.vit.pos_embed.detach()
    assert new.shape == (1, 1 + 7 * 7, 48)
    torch.testing.assert_close(new[:, 0], old[:, 0])
    grid = old[:, 1:].reshape(1, 4, 4, 48).permute(0, 3, 1, 2)
    wanted = nn.functional.interpolate(grid, size=(7, 7), mode="bicubic", antialias=True)
    torch.testing.assert_close(new[:, 1:].reshape(1, 7, 7, 48).permute(0, 3, 1, 2), wanted, atol=1e-5, rtol=0)


def test_checkpoint_under_a_stem_leaves_the_stem_alone(deit_file):
    config = ViTConfig(**SMALL, checkpoint=str(deit_file), stem="conv", patch_px=8)
    backbone = build_vit(config, 64)
    torch.testing.assert_close(
        backbone.vit.blocks[1].mlp.fc1.weight, read_state(deit_file)["blocks.1.mlp.fc1.weight"]
    )


def test_without_checkpoints_reads_no_file():
    config = ViTConfig(**SMALL, checkpoint="gone.safetensors")
    with pytest.raises(UserError, match="no such file"):
        build_vit(config, 64)
    with without_checkpoints():
        build_vit(config, 64)


@pytest.mark.parametrize(
    ("freeze", "bn_eval", "bn_trains"), [(True, False, False), (False, True, False), (False, False, True)]
)
def test_batch_norm_of_the_stem_in_training(freeze, bn_eval, bn_trains):
    config = ViTConfig(**SMALL, stem="mobilenetv2_035", freeze_stem=freeze, stem_bn_eval=bn_eval)
    backbone = build_vit(config, 64).train()
    before = {name: tensor.clone() for name, tensor in backbone.named_buffers()}
    backbone.forward_tokens(torch.randn(2, 3, 64, 64)).sum().backward()
    changed = [name for name, tensor in backbone.named_buffers() if not torch.equal(tensor, before[name])]
    assert bool(changed) == bn_trains
    stem = backbone.vit.patch_embed.stem
    assert all(p.requires_grad != freeze for p in stem.parameters())
    assert backbone.vit.patch_embed.proj.weight.grad is not None


@pytest.mark.parametrize(
    ("config", "image_px", "message"),
    [
        (ViTConfig(arch="deit_smal_patch16_224"), 64, "close: deit_small_patch16_224"),
        (ViTConfig(arch="resnet10t"), 64, "resnet10t"),
        (ViTConfig(arch="vit_base_patch16_siglip_224", width=48, heads=3, depth=1), 64, "class token"),
        (ViTConfig(**SMALL), 72, "72 px is not a multiple of the backbone's stride 16 px"),
        (ViTConfig(**(SMALL | {"heads": 5, "width": None})), 64, "divisible"),
        (ViTConfig(**SMALL, stem="mobilenetv2_035", stem_stride=32), 80, "multiple"),
        (ViTConfig(**SMALL, stem="resnet10t", stem_kwargs={"pad": 1}), 64, "refuses its arguments"),
        (ViTConfig(**SMALL, stem="vit_tiny_patch16_224", stem_stride=8), 64, "has strides 16, not 8"),
    ],
)
def test_mistakes_are_named(config, image_px, message):
    with pytest.raises(UserError, match=message):
        build_vit(config, image_px)


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 50, "heads": 3},
        {"pretrained": True, "checkpoint": "x"},
        {"stem": "conv", "freeze_stem": True},
        {"stem": "conv", "patch_px": 12},
        {"stem": "resnet18", "patch_px": 8},
        {"stem": "resnet18", "stem_stride": 10},
    ],
)
def test_config_refuses(wrong):
    with pytest.raises(ValueError, match="backbone"):
        ViTConfig(**wrong)


@pytest.mark.parametrize(
    ("knob", "given", "allowed"),
    [
        ("depth", 0, "1 or more"),
        ("mlp_ratio", 0.0, "above 0"),
        ("drop_path", 1.0, "from 0 to below 1"),
        ("attn_drop_path", -0.1, "from 0 to below 1"),
    ],
)
def test_a_number_out_of_range_is_refused(knob, given, allowed):
    with pytest.raises(UserError, match=f"^{knob}: given {given}; allowed: {allowed}$"):
        validated(ViTConfig, {knob: given})


def test_checkpoints_that_do_not_fit(deit_file, tmp_path):
    with pytest.raises(UserError, match="width is 48, the backbone's 96"):
        build_vit(ViTConfig(width=96, heads=3, depth=2, checkpoint=str(deit_file)), 64)
    with pytest.raises(UserError, match=r"12 tensors missing, first 'blocks\.2"):
        build_vit(ViTConfig(**(SMALL | {"depth": 3}), checkpoint=str(deit_file)), 64)
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "half.safetensors").write_bytes(deit_file.read_bytes()[:5000])
    torch.save({"model": timm.create_model}, tmp_path / "code.pth")
    for name in ("text.pth", "half.safetensors", "code.pth"):
        with pytest.raises(UserError, match=f"{name}: not a readable weight file"):
            read_state(tmp_path / name)


def test_pth_with_the_usual_wrapping(deit_file, tmp_path):
    torch.save({"model": read_state(deit_file)}, tmp_path / "deit.pth")
    wrapped, plain = (
        build_vit(ViTConfig(**SMALL, checkpoint=str(file)), 64).state_dict()
        for file in (tmp_path / "deit.pth", deit_file)
    )
    assert all(torch.equal(wrapped[name], plain[name]) for name in plain)


def test_no_network_names_the_file_to_bring(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="name it in `checkpoint`"):
        build_vit(ViTConfig(arch="vit_tiny_patch16_224", pretrained=True), 64)


def test_real_stem_is_the_real_network(real_data):
    """The hybrid's features equal those of the whole CNN at stride 16, in training mode too."""
    weights = f"{real_data}/weights/mobilenetv2_100.imagenet1k.safetensors"
    config = ViTConfig(
        **SMALL, stem="mobilenetv2_100", stem_kwargs={"pad_type": "same"}, stem_checkpoint=weights
    )
    stem = build_vit(config, 64).train().vit.patch_embed.stem
    whole = build_cnn("mobilenetv2_100", {"pad_type": "same"}, num_classes=1000, checkpoint=weights).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = whole.forward_intermediates(image, indices=[3], intermediates_only=True)[0]
        torch.testing.assert_close(stem(image), wanted, atol=1e-4, rtol=1e-4)


def test_real_batch_norm_statistics_keep_the_function(real_data):
    weights = f"{real_data}/weights/mobilenetv2_100.imagenet1k"
    config = {
        "stem": "mobilenetv2_100",
        "stem_kwargs": {"pad_type": "same"},
        "stem_checkpoint": f"{weights}.safetensors",
    }
    folded = build_vit(ViTConfig(**SMALL, **config), 64).eval().vit.patch_embed.stem
    measured = build_vit(ViTConfig(**SMALL, **config, stem_bn_checkpoint=f"{weights}.bn.safetensors"), 64)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        out = measured.eval().vit.patch_embed.stem(image)
        torch.testing.assert_close(out, folded(image), atol=1e-3, rtol=1e-3)
    assert not torch.equal(measured.vit.patch_embed.stem.cnn.bn1.running_mean, folded.cnn.bn1.running_mean)
