"""Fused attention with the class token's row against attention whose N x N weights are kept for the maps.

The peer is the plain form of public TS-CAM and DINO code: softmax(q k^T / sqrt(d)) v in every block, the weights of
all blocks stacked, averaged over heads, summed over blocks, and one row of that taken. Both run the same timm
blocks with the same weights; that they give the same tokens, map and gradients is asserted before anything is
timed. `train` is a forward pass with the map and a backward pass of a loss on the tokens, `extract` a forward pass
without gradients. Memory: on a CPU the growth of the resident set in a process of its own, on a GPU what the
allocator held beyond weights and input.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import timm
import torch
import tyro
from _measure import in_turn, machine, median_ratio, print_ratio, seconds, wait_for
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wsol_dist.models.attention import run_blocks_with_row

PATCH_PX = 16
PEER = "materialised-NxN"
MATMUL_SIDE = 8192
"""Of the square product whose rate stands for what the card can do."""
MEBI = 2**20
Forward = Callable[[Any, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and where."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu, or cuda."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of weights and activations; by default bfloat16 on a GPU and float32 on a CPU."""
    px: tuple[int, ...] = (224, 336, 448)
    """Sides of the image; patches are 16 px."""
    batch: int | None = None
    """Images at once; by default 64 on a GPU and 2 on a CPU."""
    repeats: int = 5
    """Measurements of each, taken in turn; the median of the turns' ratios counts."""
    blocks: int = 12
    """Transformer blocks of width 384 with 6 heads (ViT-S)."""
    quick: bool = False
    """One tiny measurement of each, to see that the script runs."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size and pass, for ours and the peer."""

    options: Options
    image_px: int
    training: bool

    @property
    def name(self) -> str:
        return f"attention-{'train' if self.training else 'extract'}-{self.image_px}"

    def build(self) -> tuple[nn.Module, Tensor]:
        """The blocks, and tokens to feed them."""
        torch.manual_seed(0)
        vit = timm.create_model(
            "deit_small_patch16_224", img_size=self.image_px, depth=self.options.blocks, num_classes=0
        )
        num_tokens = 1 + (self.image_px // PATCH_PX) ** 2
        token_BND = torch.randn(self.options.batch, num_tokens, vit.embed_dim)
        where = {"device": self.options.device, "dtype": getattr(torch, self.options.dtype)}
        return vit.blocks.train(self.training).to(**where), token_BND.to(**where)

    def run(self, forward: Forward, blocks: nn.Module, token_BND: Tensor) -> None:
        """One pass."""
        with torch.set_grad_enabled(self.training):
            token_BND, _ = forward(blocks, token_BND)
            if self.training:
                blocks.zero_grad(set_to_none=True)
                loss(token_BND).backward()


def loss(token_BND: Tensor) -> Tensor:
    """A scalar that gives every token a gradient. TS-CAM's loss sees tokens only, though the map is made as well."""
    return token_BND.float().square().mean()


def materialised(blocks: Any, token_BND: Tensor) -> tuple[Tensor, Tensor]:
    """The peer: every block returns its (B, H, N, N) weights, kept until the map is made of them."""
    kept = []
    for block in blocks:
        attn, x = block.attn, block.norm1(token_BND)
        B, N, _ = x.shape
        q, k, v = attn.qkv(x).reshape(B, N, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        weights_BHNN = ((q @ k.transpose(-2, -1)) * attn.scale).softmax(dim=-1)
        kept.append(weights_BHNN)
        out = attn.proj((weights_BHNN @ v).transpose(1, 2).reshape(B, N, -1))
        token_BND = token_BND + out
        token_BND = token_BND + block.mlp(block.norm2(token_BND))
    return token_BND, torch.stack(kept).mean(dim=2).float().sum(dim=0)[:, 0, 1:]


def assert_equal(case: Case) -> None:
    """Ours and the peer's tokens, map and gradients agree.

    Raises:
        AssertionError: they do not, and times of them would mean nothing.
    """
    blocks, token_BND = case.build()
    found = [_outputs(case, forward, blocks, token_BND) for forward in (run_blocks_with_row, materialised)]
    tolerance = 1e-3 if token_BND.dtype == torch.float32 else 5e-2
    for ours, theirs in zip(*found, strict=True):
        error = (ours.float() - theirs.float()).norm() / theirs.float().norm()
        assert error < tolerance, f"{case.name}: relative difference {error:.1e}"


def _outputs(case: Case, forward: Forward, blocks: nn.Module, token_BND: Tensor) -> list[Tensor]:
    with torch.set_grad_enabled(case.training):
        outputs = list(forward(blocks, token_BND))
        if case.training:
            outputs += torch.autograd.grad(loss(outputs[0]), list(blocks.parameters()))
    return [one.detach() for one in outputs]


def peak_mib(case: Case, forward: Forward) -> float:
    """Most memory a pass holds beyond weights and input, in MiB."""
    if case.options.device.startswith("cuda"):
        return _peak_mib_cuda(case, forward)
    # Forked before this process has computed anything, so no thread pool is copied half-alive; each child's
    # high-water mark starts at what it has then.
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_peak_mib_here, args=(case, forward, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"{case.name}: the measuring process died, perhaps for lack of memory") from None
    finally:
        process.join()


def _peak_mib_here(case: Case, forward: Forward, sender: Any) -> None:
    torch.set_num_threads(1)
    blocks, token_BND = case.build()
    before = _status_mib("VmRSS")
    case.run(forward, blocks, token_BND)
    sender.send(_status_mib("VmHWM") - before)


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def _peak_mib_cuda(case: Case, forward: Forward) -> float:
    blocks, token_BND = case.build()
    case.run(forward, blocks, token_BND)  # libraries take their workspaces at first use
    blocks.zero_grad(set_to_none=True)
    torch.cuda.reset_peak_memory_stats(case.options.device)
    before = torch.cuda.memory_allocated(case.options.device)
    case.run(forward, blocks, token_BND)
    wait_for(case.options.device)
    return (torch.cuda.max_memory_allocated(case.options.device) - before) / MEBI


def times(case: Case) -> dict[str, list[float]]:
    """Seconds of a pass, ours and the peer's, in turn."""
    blocks, token_BND = case.build()
    runs = {
        name: partial(case.run, forward, blocks, token_BND)
        for name, forward in (("ours", run_blocks_with_row), (PEER, materialised))
    }
    for run in runs.values():
        run()
    timers = {name: partial(seconds, run, case.options.device) for name, run in runs.items()}
    return in_turn(timers, repeats=case.options.repeats)


def tera_flops(case: Case) -> float:
    """Operations of a pass of ours, in 10^12."""
    blocks, token_BND = case.build()
    with FlopCounterMode(display=False) as counter:
        case.run(run_blocks_with_row, blocks, token_BND)
    return counter.get_total_flops() / 1e12


def matmul_rate(options: Options) -> float:
    """What the device reaches on one large product, in 10^12 operations a second."""
    side = MATMUL_SIDE if options.device.startswith("cuda") else 2048
    a, b = torch.randn(2, side, side, device=options.device, dtype=getattr(torch, options.dtype))
    run = partial(torch.mm, a, b)
    run()
    taken = in_turn({"mm": partial(seconds, run, options.device)}, repeats=max(3, options.repeats))
    return 2 * side**3 / median(taken["mm"]) / 1e12


def resolved(options: Options) -> Options:
    """The options with defaults that depend on others filled in."""
    on_gpu = options.device.startswith("cuda")
    values = {
        "dtype": options.dtype or ("bfloat16" if on_gpu else "float32"),
        "batch": options.batch or (64 if on_gpu else 2),
    }
    if options.quick:
        values |= {"px": (64,), "batch": 1, "blocks": 2, "repeats": 1}
    return Options(**(vars(options) | values))


def main(options: Options) -> None:
    """Measure and print."""
    options = resolved(options)
    cases = [Case(options=options, image_px=px, training=mode) for px in options.px for mode in (True, False)]
    print(f"{machine(options.device)}; batch {options.batch}, {options.blocks} blocks, {options.dtype}")
    forwards = {"ours": run_blocks_with_row, PEER: materialised}
    memory = {case: {name: peak_mib(case, forward) for name, forward in forwards.items()} for case in cases}
    rate = None if options.quick else matmul_rate(options)
    ratios = []
    for case in cases:
        assert_equal(case)
        taken = times(case)
        for name in forwards:
            print(
                f"{case.name} {name}: {options.batch / median(taken[name]):.1f} images/s, {memory[case][name]:.0f} MiB"
            )
        if rate:
            reached = tera_flops(case) / median(taken["ours"])
            print(
                f"{case.name} ours: {reached:.2f} of {rate:.2f} TFLOP/s of one matmul ({reached / rate:.0%})"
            )
        ratios.append((case.name, median_ratio(taken[PEER], taken["ours"])))
        ratios.append((f"{case.name}-memory", memory[case][PEER] / memory[case]["ours"]))
    for name, value in ratios:
        print_ratio(name, value, peer=PEER)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
