"""The class token's row beside fused attention, held against materialised attention and against timm."""

import pytest
import timm
import torch

from wsol_dist.models import attention
from wsol_dist.models.attention import run_blocks_with_row

ARCHS = {
    "deit": ("deit_tiny_patch16_224", {}),
    "registers_layer_scale": ("vit_small_patch14_reg4_dinov2", {"patch_size": 16, "num_heads": 3}),
    "qk_norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
}


def small_vit(name: str) -> torch.nn.Module:
    arch, kwargs = ARCHS[name]
    torch.manual_seed(3)
    size = {"img_size": 64, "embed_dim": 48, "depth": 3} | ({} if "num_heads" in kwargs else {"num_heads": 3})
    vit = timm.create_model(arch, num_classes=0, **size, **kwargs).eval()
    with torch.no_grad():  # freshly initialised attention is nearly uniform, which would hide mistakes
        for block in vit.blocks:
            block.attn.qkv.weight.normal_(std=0.4)
            block.attn.qkv.bias.normal_(std=0.4)
    return vit


def embed(vit: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    return vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(image))))


def materialised_sum(vit: torch.nn.Module, token: torch.Tensor) -> torch.Tensor:
    """Sum over blocks of the head-mean attention (B, N, N), from timm's own modules, step by step."""
    total = torch.zeros(())
    for block in vit.blocks:
        attn, x = block.attn, block.norm1(token)
        B, N, _ = x.shape
        q, k, _ = attn.qkv(x).reshape(B, N, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (attn.q_norm(q) * attn.scale) @ attn.k_norm(k).transpose(-2, -1)
        total = total + weights.softmax(dim=-1).mean(dim=1)
        token = block(token)
    return total


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHS)
@pytest.mark.parametrize("direction", ["class_query", "patch_query"])
@pytest.mark.parametrize("chunk_elements", [1 << 24, 400])
@torch.no_grad()
def test_row_equals_the_materialised_sum(name, direction, chunk_elements, image, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_ELEMENTS", chunk_elements)
    vit = small_vit(name)
    prefix = vit.num_prefix_tokens
    full = materialised_sum(vit, embed(vit, image))
    wanted = full[:, 0, prefix:] if direction == "class_query" else full[:, prefix:, 0]

    _, row = run_blocks_with_row(vit.blocks, embed(vit, image), num_prefix=prefix, direction=direction)

    assert row.shape == (2, 16)
    assert wanted.std() > 0.2 * wanted.mean(), "the reference is flat, so the comparison proves nothing"
    torch.testing.assert_close(row, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ARCHS)
@torch.no_grad()
def test_tokens_equal_timm(name, image):
    vit = small_vit(name)
    token, _ = run_blocks_with_row(vit.blocks, embed(vit, image), num_prefix=vit.num_prefix_tokens)
    torch.testing.assert_close(vit.norm(token), vit.forward_features(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("direction", ["class_query", "patch_query"])
def test_gradient_through_the_row(direction, image):
    vit = small_vit("deit")
    token = embed(vit, image)
    _, row = run_blocks_with_row(vit.blocks, token, direction=direction)
    full = materialised_sum(vit, token)
    wanted = full[:, 0, 1:] if direction == "class_query" else full[:, 1:, 0]
    weight = torch.randn_like(row)
    parameter = vit.blocks[0].attn.qkv.weight
    (ours,) = torch.autograd.grad((row * weight).sum(), parameter, retain_graph=True)
    (theirs,) = torch.autograd.grad((wanted * weight).sum(), parameter)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("direction", ["class_query", "patch_query"])
def test_no_score_matrix_of_n_by_n(direction, monkeypatch):
    """The largest tensor that any operation makes stays far below H x N x N."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                Largest.numel = max(Largest.numel, out.numel())
            return out

    monkeypatch.setattr(attention, "CHUNK_ELEMENTS", 1 << 14)
    H, N, d = 2, 1025, 8
    q, k = torch.randn(2, 1, H, N, d).unbind(0)
    row_of = attention.class_query_row if direction == "class_query" else attention.patch_query_row
    with Largest(), torch.no_grad():
        row_of(q, k, scale=0.1)
    assert 0 < Largest.numel <= 2 * H * N * d < H * N * N / 50


def test_bounded_length_keeps_every_logit_within_the_bound():
    q, k = (torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(s)) * 50 for s in (0, 1))
    norm = attention.BoundedLength(bound=1.5, head_dim=16)
    logit = norm(q) @ norm(k).transpose(-2, -1) / 16**0.5
    assert torch.allclose(
        logit, 1.5 * torch.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1), atol=1e-5
    )
