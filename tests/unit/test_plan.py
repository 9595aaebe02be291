"""`wsol plan`: what it prints, where its figures come from, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.dist.runs import METHODS, tiny
from wsol_dist.cli import main
from wsol_dist.config.train import TrainConfig
from wsol_dist.planning.cost import Scale, bytes_sent, memory, step_time
from wsol_dist.planning.network import Inputs, Network, look_at
from wsol_dist.recipe import dump
from wsol_dist.training.optimizer import state_per_element

GIB = 2**30
NETWORK = Network(
    trained=100_000_000, frozen=0, small=0, buffer_bytes=0, optimizer_per_element=2, activation_bytes=GIB,
    flops=4 * 10**12, micro_batch=4,
)  # fmt: skip


def scale(zero: int, **changes: Any) -> Scale:
    return Scale(**{"nodes": 2, "gpus_per_node": 4, "accumulation": 1, "zero": zero} | changes)


@pytest.fixture
def recipe(tiny_shards: Path, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(tiny(tiny_shards)))
    return str(path)


def planned(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["plan", *words]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_every_figure_has_a_unit_and_a_source(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(capsys, recipe, "--nodes", "2", "--gpus-per-node", "4", "--images-per-s", "100")
    assert "2 nodes x 4 GPUs = 8 ranks; global batch 16 images = 8 ranks x 1 x 2; fp32, adamw" in text
    assert re.search(r"ZeRO 1\*( +\d+\.\d\d){7}   0\.\d{3}\n", text)
    assert "one GPU           100.0 images/s (given)" in text
    assert "20.00 GB/s a rank in a collective (assumed for several nodes; --bandwidth-gb-s)" in text
    assert "80.0 GiB (assumed; --gpu-memory-gib)" in text or "measured" in text
    assert "96 images (counted in the shards)" in text
    assert "WARNING" not in text


def test_what_does_not_fit_is_warned_of(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(capsys, recipe, "--gpus-per-node", "4", "--gpu-memory-gib", "1")
    assert "WARNING: ZeRO 1 (this recipe) will not fit: " in text
    assert text.count("WARNING") == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nodes", "3"], "train.global_batch: 16 is no multiple of 24 (24 ranks x accumulation 1)"),
        (["--images-per-s", "0"], "--images-per-s: given 0.0; allowed: above 0"),
        (["--gpus-per-node", "0"], "--gpus-per-node: given 0; allowed: 1 or more"),
        (["--gpus-per-node", "1", "--from-run", "nowhere"], "--from-run nowhere: no checkpoint"),
    ],
)
def test_mistakes_cost_one_line(
    recipe: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = planned(capsys, recipe, *words, code=2)
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def test_state_of_the_optimizer() -> None:
    assert state_per_element(TrainConfig(optimizer="adamw")) == 2
    assert state_per_element(TrainConfig(optimizer="sgd", momentum=0.9)) == 1


def test_more_ranks_need_less_memory_each_where_they_share() -> None:
    for zero in range(4):
        few, many = (memory(NETWORK, scale(zero, nodes=nodes)).peak for nodes in (1, 8))
        assert (many < few) == (zero > 0)


def test_time_of_a_step() -> None:
    for zero, step_s in ((0, 0.04 + 0.07), (3, 0.07)):
        sent = bytes_sent(NETWORK, scale(zero), backend="nccl")
        assert sent == 2 * 7 / 8 * 4e8
        time = step_time(NETWORK, scale(zero), images_per_s=100, bytes_per_s=1e10, sent=sent)
        assert time.step_s == pytest.approx(step_s)
        assert time.efficiency == pytest.approx(0.04 / step_s)


def test_operations_and_activations_are_those_of_the_network(tiny_shards: Path) -> None:
    METHODS["plain"] = METHODS["short"]
    config = tiny(tiny_shards, "plain", drop_path=0.0)
    one, two = (look_at(config, Inputs(num_classes=8), micro_batch=batch) for batch in (2, 4))
    assert two.flops == 2 * one.flops > 0
    assert two.activation_bytes == pytest.approx(2 * one.activation_bytes, rel=0.02)
    from wsol_dist.runs.model import build_method

    method: nn.Module = build_method(config, num_classes=8)
    assert one.trained == sum(value.numel() for value in method.parameters())
    held = 0
    seen = set()

    def count(value: torch.Tensor) -> torch.Tensor:
        nonlocal held
        storage = value.untyped_storage()
        if storage.data_ptr() not in own | seen:
            seen.add(storage.data_ptr())
            kept.append(value)
            held += storage.nbytes()
        return value

    own = {value.untyped_storage().data_ptr() for value in method.parameters()}
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        method.train()(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))
    assert two.activation_bytes == pytest.approx(held, rel=0.05)  # of real tensors
