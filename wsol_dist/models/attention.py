"""Fused attention through a timm transformer, and beside it the class token's part of each block's attention.

Fused attention returns no weights, and the maps of TS-CAM need but one row of them. That row costs O(N) a
block, so nothing of size N x N is ever held.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from wsol_dist.models.config import Direction

CHUNK_ELEMENTS = 1 << 24
"""Most scores held at once for `patch_query`: 64 MiB in float32."""


class BoundedLength(nn.Module):
    """Queries or keys (B, H, N, d) at one length each, such that q k^T / sqrt(d) is `bound` times their cosine.

    Stands where timm has `q_norm` and `k_norm`; the cosine attention of Swin V2 with a fixed temperature.
    """

    def __init__(self, *, bound: float, head_dim: int) -> None:
        super().__init__()
        self.length = math.sqrt(bound * math.sqrt(head_dim))

    def forward(self, x_BHNd: Tensor) -> Tensor:
        return F.normalize(x_BHNd, dim=-1) * self.length


def run_blocks_with_row(
    blocks: Iterable[Any], token_BND: Tensor, *, num_prefix: int = 1, direction: Direction = "class_query"
) -> tuple[Tensor, Tensor]:
    """All blocks with fused attention, and the class token's attention summed over them.

    Args:
        blocks: timm `Block`s with timm `Attention`.
        token_BND: tokens, the class token first, then `num_prefix - 1` others, then the patches.
        num_prefix: tokens before the first patch.
        direction: which part of the attention is wanted.

    Returns:
        The tokens (B, N, D) after the last block; the row (B, N - num_prefix) float32: mean over heads of
        softmax(q k^T / sqrt(d)), before dropout, summed over blocks (TS-CAM, without rollout).
    """
    row_BN = torch.zeros(())
    for index, block in enumerate(blocks):
        token_BND, row = _block(block, token_BND, num_prefix, direction)
        row_BN = row if index == 0 else row_BN + row
    return token_BND, row_BN


def _block(block: Any, x: Tensor, num_prefix: int, direction: Direction) -> tuple[Tensor, Tensor]:
    out, row_BN = _attend(block.attn, block.norm1(x), num_prefix, direction)
    x = x + block.drop_path1(block.ls1(out))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x)))), row_BN


def _attend(attn: Attention, x: Tensor, num_prefix: int, direction: Direction) -> tuple[Tensor, Tensor]:
    """timm's `Attention.forward`, with the row taken from the same q and k."""
    B, N, _ = x.shape
    q, k, v = _queries_keys_values(attn, x)
    dropout = attn.attn_drop.p if attn.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=attn.scale)
    out = attn.norm(out.transpose(1, 2).reshape(B, N, attn.attn_dim))
    if attn.gate is not None:
        out = out * attn.gate(x).sigmoid()
    row_of = class_query_row if direction == "class_query" else patch_query_row
    return attn.proj_drop(attn.proj(out)), row_of(q, k, scale=attn.scale)[:, num_prefix - 1 :]


def _queries_keys_values(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, N, _ = x.shape
    q, k, v = attn.qkv(x).reshape(B, N, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    return attn.q_norm(q), attn.k_norm(k), v


def run_blocks_with_inputs(blocks: Iterable[Any], token_BND: Tensor) -> tuple[Tensor, list[Tensor]]:
    """All blocks, and what entered each of them, for `spread_by_attention`."""
    inputs = []
    for block in blocks:
        inputs.append(token_BND)
        token_BND = block(token_BND)
    return token_BND, inputs


def spread_by_attention(
    blocks: Iterable[Any], inputs: Iterable[Tensor], value_BKN: Tensor, *, num_prefix: int
) -> Tensor:
    """Maps times the patches' attention to the patches, mean over heads, summed over blocks: (B, K, N) float32.

    Fused attention is run once more with the maps as its values, and zero as the value of the tokens before the
    patches: rows are then not renormalised over the patches, and nothing of size N x N is held.

    Args:
        blocks: timm `Block`s with timm `Attention`.
        inputs: what entered each block, of `run_blocks_with_inputs`.
        value_BKN: a value for every patch; K maps.
        num_prefix: tokens before the first patch.
    """
    num_maps, num_patches = value_BKN.shape[1:]
    value_BNK = F.pad(value_BKN.transpose(1, 2), (0, 0, num_prefix, 0))
    total_BNK = torch.zeros_like(value_BKN.transpose(1, 2), dtype=torch.float32)
    for block, token_BND in zip(blocks, inputs, strict=True):
        attn = block.attn
        q, k, _ = _queries_keys_values(attn, block.norm1(token_BND))
        q = q[:, :, num_prefix:]
        # The fused kernels want values as wide as the queries; others would make the N x N scores.
        for start in range(0, num_maps, attn.head_dim):
            part_BNK = value_BNK[..., start : start + attn.head_dim]
            width = part_BNK.shape[-1]
            v = F.pad(part_BNK, (0, attn.head_dim - width)).to(q.dtype)
            v = v[:, None].expand(-1, attn.num_heads, -1, -1).contiguous()
            spread = F.scaled_dot_product_attention(q, k, v, scale=attn.scale)
            total_BNK[..., start : start + width] += spread[..., :width].float().mean(dim=1)
    assert total_BNK.shape[1] == num_patches
    return total_BNK.transpose(1, 2)


def class_query_row(q_BHNd: Tensor, k_BHNd: Tensor, *, scale: float) -> Tensor:
    """A[:, 0, 1:] of A = mean over heads of softmax(scale q k^T): (B, N - 1) float32."""
    score_BHN = (q_BHNd[:, :, :1] @ k_BHNd.transpose(-2, -1)).squeeze(2).float() * scale
    return score_BHN.softmax(dim=-1).mean(dim=1)[:, 1:]


def patch_query_row(q_BHNd: Tensor, k_BHNd: Tensor, *, scale: float) -> Tensor:
    """A[:, 1:, 0] of the same A: (B, N - 1) float32; exp(score of the class key - log-sum-exp)."""
    B, H, N, _ = q_BHNd.shape
    # A graph for any batch size takes all queries at once.
    chunk = N if torch.compiler.is_exporting() else max(1, CHUNK_ELEMENTS // (B * H * N))
    key_BHdN = k_BHNd.transpose(-2, -1)
    parts = []
    for q in q_BHNd[:, :, 1:].split(chunk, dim=2):
        score_BHcN = (q @ key_BHdN).float() * scale
        parts.append((score_BHcN[..., 0] - score_BHcN.logsumexp(dim=-1)).exp().mean(dim=1))
    return torch.cat(parts, dim=1)
