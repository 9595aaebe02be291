"""Training on two gloo ranks through DeepSpeed: resumption, sharding, equality over stages and accumulation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.pool import RankPool
from wsol_dist.config import Config, from_dict
from wsol_dist.data.index import Index
from wsol_dist.engine import checkpoint
from wsol_dist.errors import UserError
from wsol_dist.model import build_method, initialise
from wsol_dist.models.weights import read_state
from wsol_dist.ranks import Ranks
from wsol_dist.trainer.preflight import prepare_folder
from wsol_dist.trainer.trainer import Trainer

BACKBONE = {"arch": "deit_tiny_patch16_224", "width": 32, "heads": 2, "depth": 2, "patch_px": 8, "stem": "conv", "drop_path": 0.2}


def tiny(shards: Path, **train: Any) -> Config:
    knobs = {"epochs": 1, "global_batch": 16, "lr": 1e-3, "schedule": "cosine", "checkpoint_every_epochs": 0.5, "clip": 1.0}
    return from_dict(
        {
            "name": "tiny",
            "method": {"name": "molt", "scales_px": [16, 32], "backbone": BACKBONE},
            "data": {"index": str(shards), "workers": 0},
            "train": knobs | train,
            "track": {"wandb": "off", "log_every_steps": 1},
        },
        origin="test",
    )


def train(ranks: Ranks, config: Config, folder: Path, stop_after: int | None = None) -> dict[str, int]:
    """Train; `stop_after` ends the process's work after that many steps as a kill between two steps does."""
    ranks.main_first(lambda: prepare_folder(config, folder))
    trainer = Trainer(config, folder, Index.load(config.data.index), ranks)
    if stop_after is not None:
        trainer.steps = dataclasses.replace(trainer.steps, total=stop_after)
        original_save = trainer.save
        trainer.save = lambda step: original_save(step) if step % trainer.steps.per_checkpoint == 0 else None
    trainer.run()
    return {"first_step": trainer.first_step, "elements": trainer.engine.num_optimizer_elements()}


def losses(folder: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["train/loss"] for row in rows}


def test_a_stopped_run_goes_on_to_the_same_losses(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    config = tiny(tiny_shards)
    rank_pool.run(train, config, tmp_path / "whole")
    rank_pool.run(train, config, tmp_path / "cut", 4)
    before = losses(tmp_path / "cut")
    assert set(before) == {1, 2, 3, 4}
    again = rank_pool.run(train, config, tmp_path / "cut")
    assert again[0]["first_step"] == 3  # the checkpoint is older than the last step: step 4 is done again
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert sorted(losses(tmp_path / "whole")) == [1, 2, 3, 4, 5, 6]
    whole, cut = (read_state(checkpoint.complete_checkpoints(tmp_path / n)[-1] / checkpoint.WEIGHTS) for n in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_each_rank_holds_half_of_the_optimizer_at_stage_1(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    sharded = rank_pool.run(train, tiny(tiny_shards, zero=1, epochs=0.2), tmp_path / "one")
    full = rank_pool.run(train, tiny(tiny_shards, zero=0, epochs=0.2), tmp_path / "zero")
    for part in sharded:
        assert part["elements"] == pytest.approx(full[0]["elements"] / 2, rel=0.02)


def test_stages_and_accumulation_give_the_same_losses(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    curves = []
    # without drop-path: micro-batches draw other random numbers than one batch does
    for number, knobs in enumerate(({"zero": 0}, {"zero": 1}, {"zero": 1, "accumulation": 2})):
        config = tiny(tiny_shards, **knobs)
        backbone = dataclasses.replace(config.method.backbone, drop_path=0.0)
        config = dataclasses.replace(config, method=dataclasses.replace(config.method, backbone=backbone))
        rank_pool.run(train, config, tmp_path / str(number))
        curves.append(np.array(list(losses(tmp_path / str(number)).values())))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert curves[2] == pytest.approx(curves[0], abs=1e-4)


def test_a_checkpoint_is_whole_or_absent(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    rank_pool.run(train, tiny(tiny_shards, keep_checkpoints=1), tmp_path / "run")
    found = checkpoint.complete_checkpoints(tmp_path / "run")
    assert [path.name for path in found] == ["step-00000006"]
    state = checkpoint.read_state(found[0])
    assert (state.step, state.position, state.world) == (6, 96, 2)
    assert sorted(path.name for path in found[0].iterdir()) == ["config.yaml", "model.safetensors", "state.json", "zero"]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000006"]
    checkpoint.begin(tmp_path / "run", 9)  # a writer that died here leaves nothing that looks whole
    assert checkpoint.complete_checkpoints(tmp_path / "run") == found


def test_scales_trained_apart_are_merged(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    config = tiny(tiny_shards, epochs=0.4)
    for scale in (0, 1):
        apart = dataclasses.replace(config, method=dataclasses.replace(config.method, train_scales=(scale,)))
        rank_pool.run(train, apart, tmp_path / str(scale))
    both = tiny(tiny_shards, init=[str(tmp_path / "0"), str(tmp_path / "1")])
    method = build_method(both, num_classes=8)
    initialise(method, both)
    for scale in (0, 1):
        trained = read_state(checkpoint.complete_checkpoints(tmp_path / str(scale))[-1] / checkpoint.WEIGHTS)
        own = {name: value for name, value in method.state_dict().items() if name.startswith(f"branches.{scale}.")}
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
    rank_pool.run(train, tiny(tiny_shards, epochs=0.4), tmp_path / "run")
    index = Index.load(tiny_shards)
    other = dataclasses.replace(index, sha256="0" * 64)
    found = checkpoint.complete_checkpoints(tmp_path / "run")[-1]
    state = checkpoint.read_state(found)
    (found / "state.json").write_text(json.dumps(dataclasses.asdict(state) | {"world": 1}))
    with pytest.raises(UserError, match="trained on other shards"):
        Trainer(tiny(tiny_shards, epochs=0.4), tmp_path / "run", other, _alone())


def test_another_world_size_is_refused_with_words(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    config = tiny(tiny_shards, epochs=0.4)
    rank_pool.run(train, config, tmp_path / "run")
    with pytest.raises(UserError, match="written by 2 ranks, this run has 1"):
        Trainer(config, tmp_path / "run", Index.load(tiny_shards), _alone())


def test_a_folder_of_another_recipe_is_refused(rank_pool: RankPool, tiny_shards: Path, tmp_path: Path) -> None:
    prepare_folder(tiny(tiny_shards), tmp_path / "run")
    with pytest.raises(UserError, match="train.lr: 0.001 -> 0.5"):
        prepare_folder(tiny(tiny_shards, lr=0.5), tmp_path / "run")
    with pytest.raises(UserError, match="checkpoint of method 'cam'"):
        weights = tmp_path / "other.safetensors"
        checkpoint.save_weights(weights, {"a": torch.zeros(1)}, metadata={"method": "cam"})
        config = tiny(tiny_shards, init=[str(weights)])
        initialise(build_method(config, num_classes=8), config)


def _alone() -> Ranks:
    from wsol_dist import ranks

    return ranks.from_environment()
