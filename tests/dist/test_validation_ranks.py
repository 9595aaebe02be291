"""The held-out split scored inside training: the losses are the same to the bit, and the records are a follower's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.pool import RankPool
from wsol_dist.data.shards.index import Index
from wsol_dist.evaluator.during_training import Validation
from wsol_dist.log.jsonl import read_metrics
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import Config, from_dict
from wsol_dist.runs.run_state import finished_step, read_best
from wsol_dist.training.trainer import Trainer


def recipe(shards: Path, *, every_epochs: float) -> Config:
    backbone = {
        "arch": "deit_tiny_patch16_224",
        "width": 32,
        "heads": 2,
        "depth": 2,
        "patch_px": 8,
        "stem": "conv",
    }
    return from_dict(
        {
            "name": "thin",
            # Batch norm and stochastic depth: what a forward pass in the wrong mode, or a drawn number, would change.
            "method": {
                "name": "molt",
                "scales_px": [16, 32],
                "backbone": backbone | {"stem_norm": "batch", "drop_path": 0.3},
            },
            "data": {"index": str(shards), "workers": 0},
            "train": {"epochs": 2, "global_batch": 16, "lr": 1.0e-3, "zero": 1, "checkpoint_every_epochs": 2},
            "evaluate": {"size_px": 32, "batch_size": 5, "workers": 0, "cases": 2},
            "track": {"wandb": "off", "log_every_steps": 1},
            "val": {"every_epochs": every_epochs},
        },
        origin="test",
    )


def train(ranks: Ranks, config: Config, folder: Path) -> None:
    validation = Validation(config, folder, ranks) if config.val.every_epochs else None
    trainer = Trainer(config, folder, Index.load(config.data.index), ranks, validation=validation)
    trainer.run()
    assert trainer.method.training


def losses(folder: Path) -> list[Any]:
    return [row["train/loss"] for row in read_metrics(folder / "metrics.jsonl")]


def test_losses_with_and_without_it_are_bit_equal(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path
) -> None:
    rank_pool.run(train, recipe(tiny_shards, every_epochs=0), tmp_path / "without")
    rank_pool.run(train, recipe(tiny_shards, every_epochs=0.5), tmp_path / "with")
    assert len(losses(tmp_path / "with")) == 12
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    scored = sorted(path.name for path in (tmp_path / "with" / "eval").glob("*.json"))
    assert scored == [f"val-step-{step:08d}.json" for step in (3, 6, 9, 12)]
    record = json.loads((tmp_path / "with" / "eval" / scored[-1]).read_text())
    assert (record["num_images"], record["checkpoint"]) == (24, "step-00000012")
    best = read_best(tmp_path / "with")
    assert best is not None
    assert (tmp_path / "with" / best["checkpoint"]).is_dir()
    assert finished_step(tmp_path / "with") == finished_step(tmp_path / "without") == 12
    assert not (tmp_path / "without" / "eval").exists()
