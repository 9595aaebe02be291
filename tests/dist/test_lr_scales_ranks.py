"""Parts that learn at rates of their own, at every ZeRO stage and across a cut: DeepSpeed sees several groups then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.dist.runs import alone, losses, stored, train
from tests.pool import RankPool
from tests.unit.test_segmenter import write_column
from wsol_dist.data.shards.index import Index
from wsol_dist.recipe import Config, from_dict
from wsol_dist.runs.model import build_method

PX = 32
NET = {"arch": "resnet10t", "model_kwargs": {"zero_init_last": False}}
SEGMENTER = {"name": "segmenter", "image_px": PX, "head_width": 8, "head_dilation": 2, "head_lr": 10.0}
METHODS: dict[str, dict[str, Any]] = {
    "segmenter": SEGMENTER
    | {"encoder": {"arch": "resnet10t", "model_kwargs": NET["model_kwargs"] | {"output_stride": 8}}},
    "weight_map": {
        "name": "weight_map",
        "image_px": PX,
        "bn_eval": True,
        "classifier": NET,
        "encoder": NET,
        "out_lr": 10.0,
    },
}
RATE = {"segmenter": "head_lr", "weight_map": "out_lr"}


@pytest.fixture(scope="module")
def label_maps(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each training image its class in a square, and a border that nobody knows."""
    index = Index.load(tiny_shards)
    rows = index.rows("train")

    def square(row: int) -> np.ndarray:
        label_HW = np.zeros((PX, PX), np.uint8)
        label_HW[:4] = 255
        label_HW[8:24, 8:24] = 1 + rows.label[row]
        return label_HW

    return write_column(tmp_path_factory.mktemp("labels") / "squares", index, square, size_px=PX)


def config_of(method: str, shards: Path, labels: Path, *, rate: float = 10.0, **knobs: Any) -> Config:
    """Six steps of 16 images, a checkpoint after three."""
    targets = {"targets": str(labels)} if method == "segmenter" else {}
    default = {"epochs": 1, "global_batch": 16, "lr": 1e-3, "schedule": "poly", "power": 0.9}
    return from_dict(
        {
            "name": "rates",
            "method": METHODS[method] | {RATE[method]: rate},
            "data": {"index": str(shards), "workers": 0, **targets},
            "train": default | {"checkpoint_every_epochs": 0.5, "clip": 1.0} | knobs,
            "track": {"wandb": "off", "log_every_steps": 1},
        },
        origin="test",
    )


@pytest.mark.parametrize("method", ["segmenter", pytest.param("weight_map", marks=pytest.mark.slow)])
def test_one_rank_and_every_stage_give_the_same_losses(
    rank_pool: RankPool, tiny_shards: Path, label_maps: Path, tmp_path: Path, method: str
) -> None:
    def curve(name: str, own: bool = False, **knobs: Any) -> np.ndarray:
        config, folder = config_of(method, tiny_shards, label_maps, **knobs), tmp_path / name
        train(alone(), config, folder) if own else rank_pool.run(train, config, folder)
        return np.array(list(losses(folder).values()))

    assert len(build_method(config_of(method, tiny_shards, label_maps), num_classes=8).lr_scales()) >= 2
    wanted = curve("alone", own=True, zero=0)
    for zero in range(4):
        assert curve(f"zero-{zero}", zero=zero) == pytest.approx(wanted, abs=1e-4), zero
    same_rate = curve("same-rate", own=True, zero=0, rate=1.0)
    assert same_rate[0] == pytest.approx(wanted[0], abs=1e-6)
    assert np.abs(same_rate - wanted).max() > 5e-3, "the rate does matter"


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("segmenter", {"zero": 1, "optimizer": "sgd"}),
        ("segmenter", {"zero": 3}),
        pytest.param("weight_map", {"zero": 2}, marks=pytest.mark.slow),
        pytest.param("weight_map", {"zero": 3, "optimizer": "sgd"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_cut_off_run_goes_on_to_the_same_bits(
    rank_pool: RankPool,
    tiny_shards: Path,
    label_maps: Path,
    tmp_path: Path,
    method: str,
    knobs: dict[str, Any],
) -> None:
    config = config_of(method, tiny_shards, label_maps, **knobs)
    rank_pool.run(train, config, tmp_path / "whole")
    rank_pool.run(train, config, tmp_path / "cut", 4)
    assert rank_pool.run(train, config, tmp_path / "cut") == [3, 3]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    whole, cut = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
