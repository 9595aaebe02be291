"""Training on two gloo ranks through DeepSpeed: resumption, whole checkpoints, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist.runs import alone, losses, stored, tiny, train
from tests.pool import RankPool
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.models.weights import read_state
from wsol_dist.runs import checkpoint
from wsol_dist.runs.model import build_method, initialise
from wsol_dist.training.preflight import prepare_folder
from wsol_dist.training.trainer import Trainer


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("molt", {"zero": 0, "optimizer": "lamb"}),  # counts its steps in the parameter group
        ("molt", {"zero": 1, "ema": 0.9}),
        ("molt", {"zero": 2, "optimizer": "sgd", "accumulation": 2}),
        ("molt", {"zero": 3}),
        ("spare", {"zero": 1, "precision": "bf16"}),
        ("spare", {"zero": 3}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_stopped_run_goes_on_to_the_same_bits(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path, method: str, knobs: dict[str, Any]
) -> None:
    config = tiny(tiny_shards, method, **knobs)
    rank_pool.run(train, config, tmp_path / "whole")
    rank_pool.run(train, config, tmp_path / "cut", 4)
    assert set(losses(tmp_path / "cut")) == {1, 2, 3, 4}
    # The checkpoint is older than the last step: step 4 is done again.
    assert rank_pool.run(train, config, tmp_path / "cut") == [3, 3]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert sorted(losses(tmp_path / "whole")) == [1, 2, 3, 4, 5, 6]
    whole, cut = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert any("optimizer" in name or "of-00002" in name for name in whole)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_checkpoint_is_whole_or_absent(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    rank_pool.run(train, tiny(tiny_shards, keep_checkpoints=1), tmp_path / "run")
    found = checkpoint.complete_checkpoints(tmp_path / "run")
    assert [path.name for path in found] == ["step-00000006"]
    state = checkpoint.read_state(found[0])
    assert (state.step, state.position, state.world) == (6, 96, 2)
    # Nothing in it is a pickle or a script.
    assert sorted(str(path.relative_to(found[0])) for path in found[0].rglob("*") if path.is_file()) == [
        "config.yaml",
        "model.safetensors",
        "optimizer/00000-of-00002.safetensors",
        "optimizer/00001-of-00002.safetensors",
        "state.json",
    ]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000006"]
    checkpoint.begin(tmp_path / "run", 9)  # a writer that died here leaves nothing that looks whole
    assert checkpoint.complete_checkpoints(tmp_path / "run") == found


def test_a_damaged_optimizer_ends_in_one_line(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    config = tiny(tiny_shards, epochs=0.2)
    rank_pool.run(train, config, tmp_path / "run")
    folder = checkpoint.complete_checkpoints(tmp_path / "run")[-1] / checkpoint.OPTIMIZER
    index = Index.load(tiny_shards)
    second = folder / "00001-of-00002.safetensors"
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"optimizer: damaged .* another checkpoint"):
        Trainer(config, tmp_path / "run", index, alone())
    second.unlink()
    with pytest.raises(UserError, match=r"00001-of-00002\.safetensors: is missing"):
        Trainer(config, tmp_path / "run", index, alone())
    (folder / "00000-of-00002.safetensors").rename(folder / "00000-of-00001.safetensors")
    state = folder.parent / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"world": 1}))
    with pytest.raises(UserError, match=r"exp_avg of .* is not there whole"):
        Trainer(config, tmp_path / "run", index, alone())


def test_scales_trained_apart_are_merged(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    config = tiny(tiny_shards, epochs=0.4)
    for scale in (0, 1):
        apart = dataclasses.replace(config, method=dataclasses.replace(config.method, train_scales=(scale,)))
        rank_pool.run(train, apart, tmp_path / str(scale))
    both = tiny(tiny_shards, init=[str(tmp_path / "0"), str(tmp_path / "1")])
    method = build_method(both, num_classes=8)
    initialise(method, both)
    for scale in (0, 1):
        newest = checkpoint.complete_checkpoints(tmp_path / str(scale))[-1]
        trained = read_state(newest / checkpoint.WEIGHTS)
        state = method.state_dict()
        own = {name: value for name, value in state.items() if name.startswith(f"branches.{scale}.")}
        assert own
        assert all(torch.equal(value, trained[name]) for name, value in own.items())


def test_a_diverged_run_keeps_its_last_good_checkpoint(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="training diverged: the loss is nan"):
        rank_pool.run(train, tiny(tiny_shards, lr=1e30, clip=0), tmp_path / "run")
    for found in checkpoint.complete_checkpoints(tmp_path / "run"):
        assert all(value.isfinite().all() for value in read_state(found / checkpoint.WEIGHTS).values())


def test_other_shards_are_refused(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    rank_pool.run(train, tiny(tiny_shards, epochs=0.2), tmp_path / "run")
    other = dataclasses.replace(Index.load(tiny_shards), sha256="0" * 64)
    with pytest.raises(UserError, match="trained on other shards"):
        Trainer(tiny(tiny_shards, epochs=0.2), tmp_path / "run", other, alone())


def test_a_folder_of_another_recipe_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    prepare_folder(tiny(tiny_shards), tmp_path / "run")
    prepare_folder(tiny(tiny_shards, zero=3, accumulation=2), tmp_path / "run")  # changes no result
    for knobs, message in (
        ({"lr": 0.5}, "train.lr: 0.001 -> 0.5"),
        ({"ema": 0.9}, "train.ema: 0.0 -> 0.9"),
        ({"precision": "bf16"}, "train.precision: fp32 -> bf16"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_folder(tiny(tiny_shards, **knobs), tmp_path / "run")


def test_weights_of_another_method_are_refused(tiny_shards: Path, tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    checkpoint.save_weights(weights, {"a": torch.zeros(1)}, metadata={"method": "cam"})
    config = tiny(tiny_shards, init=[str(weights)])
    with pytest.raises(UserError, match="checkpoint of method 'cam'"):
        initialise(build_method(config, num_classes=8), config)
