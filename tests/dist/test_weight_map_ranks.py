"""The weight map on two gloo ranks: both stages, at every ZeRO stage, and cut off in the middle of the second."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist.runs import alone, losses, stored, train
from tests.pool import RankPool
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import TrainingOrder
from wsol_dist.models.weights import read_state
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import Config, from_dict
from wsol_dist.runs import checkpoint
from wsol_dist.training.stages import stages

NET = {"arch": "resnet10t", "model_kwargs": {"zero_init_last": False}}
KNOBS = {"epochs": 1, "global_batch": 16, "lr": 1e-3, "schedule": "constant", "checkpoint_every_epochs": 0.5}


def two_stages(shards: Path, variant: str, **knobs: Any) -> Config:
    """Six steps of f, and six of g."""
    classifier = {
        "method": {"name": "cam", **NET, "image_px": 32, "bn_eval": True},
        "name": "classifier",
        "train": KNOBS,
    }
    siamese = {"name": "weight_map", "variant": "siamese", "embedder": NET, "image_px": 32, "bn_eval": True}
    pairs = {"order": "class_pairs"} if variant == "siamese" else {}
    embedding = {"name": "embedding", "method": siamese | {"stage": "f"}, "data": pairs, "train": KNOBS}
    method = siamese if variant == "siamese" else {"name": "weight_map", "image_px": 32, "bn_eval": True}
    return from_dict(
        {
            "name": "two",
            "before": [classifier, embedding] if variant == "siamese" else [classifier],
            "method": {**method, "classifier": NET, "encoder": NET},
            "data": {"index": str(shards), "workers": 0, **pairs},
            "train": KNOBS | knobs,
            "track": {"wandb": "off", "log_every_steps": 1},
        },
        origin="test",
    )


def train_all(own: Ranks, config: Config, folder: Path, stop_after: int | None = None) -> list[int]:
    """Every stage; `stop_after` cuts the last one off. Says after which step each began."""
    runs = stages(config, folder)
    cuts = [None] * (len(runs) - 1) + [stop_after]
    return [train(own, run, place, cut) for (run, place), cut in zip(runs, cuts, strict=True)]


@pytest.mark.parametrize("variant", ["classifier", "siamese"])
def test_a_run_cut_off_in_its_second_stage_goes_on_to_the_same_bits(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path, variant: str
) -> None:
    config = two_stages(tiny_shards, variant)
    rank_pool.run(train_all, config, tmp_path / "whole")
    rank_pool.run(train_all, config, tmp_path / "cut", 4)
    began = rank_pool.run(train_all, config, tmp_path / "cut")
    assert began[0] == [6] * len(config.before) + [3], "f is whole, g goes on behind its checkpoint"
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    whole, cut = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    kept = read_state(checkpoint.complete_checkpoints(tmp_path / "cut")[-1] / checkpoint.WEIGHTS)
    for name, part in (("classifier", "model"), ("embedding", "embedder"))[: len(config.before)]:
        first = checkpoint.complete_checkpoints(tmp_path / "cut" / "before" / name)[-1]
        own = {"classifier": "classifier", "embedding": "embedder"}[name]
        for key, value in read_state(first / checkpoint.WEIGHTS).items():
            assert torch.equal(kept[key.replace(f"{part}.", f"{own}.", 1)], value), "f is frozen"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["classifier", "siamese"])
def test_every_zero_stage_and_one_rank_give_the_same_losses(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path, variant: str
) -> None:
    def curve(name: str, **knobs: Any) -> list[float]:
        config = dataclasses.replace(two_stages(tiny_shards, variant, **knobs), before=())
        if name == "alone":
            train(alone(), config, tmp_path / name)
        else:
            rank_pool.run(train, config, tmp_path / name)
        return list(losses(tmp_path / name).values())

    wanted = curve("alone")
    for stage in (0, 1, 3):
        assert curve(f"zero-{stage}", zero=stage) == pytest.approx(wanted, abs=1e-4), stage


def test_the_fours_of_a_step_are_the_same_at_any_world_size(tiny_shards: Path) -> None:
    config = two_stages(tiny_shards, "siamese")
    rows = Index.load(tiny_shards).rows("train")

    def seen(world: int, accumulation: int) -> list[set[int]]:
        orders = [
            TrainingOrder(
                shard_of_row=rows.shard,
                label_of_row=rows.label,
                data=config.data,
                seed=0,
                global_batch=16,
                accumulation=accumulation,
                rank=rank,
                world=world,
                first_step=0,
                last_step=9,
            )
            for rank in range(world)
        ]
        batches = [[[row for _, row in micro] for micro in order] for order in orders]
        for micros in batches:
            for micro in micros:
                a, b = rows.label[micro].reshape(-1, 2, 2).transpose(1, 0, 2)
                assert (a[:, 0] == a[:, 1]).all()
                assert (b[:, 0] == b[:, 1]).all()
                assert (a[:, 0] != b[:, 0]).all()
        steps = len(batches[0]) // accumulation
        return [
            {
                row
                for micros in batches
                for micro in micros[s * accumulation : (s + 1) * accumulation]
                for row in micro
            }
            for s in range(steps)
        ]

    assert seen(1, 1) == seen(2, 1) == seen(4, 1) == seen(2, 2)
