"""Recipes of several runs, and what is refused before any of them starts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.recipe import Config, from_dict, load, override, recipe_names, to_dict
from wsol_dist.runs.checkpoint import save_weights
from wsol_dist.training.preflight import check, prepare_folder
from wsol_dist.training.stages import stages

CAM = {"name": "cam", "arch": "resnet10t", "image_px": 32}
FIRST = {"name": "first", "method": CAM, "train": {"global_batch": 16}}


def recipe(shards: Path | str = "", **more: Any) -> Config:
    tree = {
        "name": "whole",
        "before": [FIRST],
        "method": {"name": "weight_map", "image_px": 32},
        "data": {"index": str(shards)},
        "train": {"global_batch": 16},
    }
    return from_dict(tree | more, origin="test")


def test_the_runs_that_come_first_take_shards_seed_and_tracking_from_the_recipe(tmp_path: Path) -> None:
    config = dataclasses.replace(recipe("shards"), seed=7)
    (first, place), last = stages(config, tmp_path)
    assert (first.name, first.seed, first.data.index) == ("whole-first", 7, "shards")
    assert first.method.arch == "resnet10t"
    assert place == tmp_path / "before" / "first"
    assert last == (config, tmp_path)
    assert from_dict(to_dict(config), origin="again") == config


def test_knobs_of_the_runs_that_come_first_are_flags() -> None:
    arguments = ["--before.0.train.epochs", "3", "--train.lr", "0.5", "--before.0.method.bn-eval"]
    config = override(recipe(), arguments, prog="test")
    assert (config.before[0].train.epochs, config.before[0].method.bn_eval, config.train.lr) == (3, True, 0.5)
    assert config.train.epochs == recipe().train.epochs
    assert override(recipe(), ["--no-before"], prog="test").before == ()
    with pytest.raises(UserError, match=r"--before\.1: this recipe has 1 runs before it"):
        override(recipe(), ["--before.1.seed", "3"], prog="test")


def test_a_run_that_comes_first_may_stand_on_a_recipe() -> None:
    config = recipe(
        before=["weight-map-classifier", {"base": "weight-map-embedding", "train": {"lr": 0.5}, "name": "f"}]
    )
    assert [run.name for run in config.before] == ["weight-map-classifier", "f"]
    assert (config.before[1].method.stage, config.before[1].train.lr) == ("f", 0.5)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("weight-map-classifier", "write a list of recipes"),
        ([3], "before.0: given 3; write a recipe's name"),
        (["weight-map-1"], "has runs before it itself"),
        ([FIRST, FIRST], "two runs of one name"),
        ([{**FIRST, "train": {"lrr": 1}}], r"before\.0: train\.lrr: unknown key"),
    ],
)
def test_lists_that_are_no_runs_are_refused(before: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        recipe(before=before)


def test_a_method_of_one_stage_takes_nothing_from_runs_before_it(tiny_shards: Path) -> None:
    with pytest.raises(UserError, match="trains in one stage, 1 given"):
        check(recipe(tiny_shards, method=CAM), world=1, folder=Path("none"))


def test_a_folder_names_the_changed_knob_of_a_run_that_comes_first(tmp_path: Path) -> None:
    prepare_folder(recipe(), tmp_path)
    prepare_folder(override(recipe(), ["--before.0.data.workers", "0"], prog="test"), tmp_path)
    with pytest.raises(UserError, match=r"before\.0\.train\.lr: 0\.0005 -> 0\.5"):
        prepare_folder(override(recipe(), ["--before.0.train.lr", "0.5"], prog="test"), tmp_path)


SIAMESE = {"name": "weight_map", "variant": "siamese", "stage": "f", "image_px": 32}


@pytest.mark.parametrize(
    ("more", "world", "words"),
    [
        ({"method": SIAMESE}, 1, "set --data.order class_pairs"),
        (
            {"method": SIAMESE, "train": {"global_batch": 20}},
            2,
            r"no multiple of 8 \(2 ranks .* x fours of data.order",
        ),
        ({"before": []}, 1, r"method\.classifier\.checkpoint: g learns from a trained network"),
        (
            {"val": {"every_epochs": 1, "split": "valid"}},
            1,
            r"no split 'valid' .* hold one out of train when packing .*--val-fraction 0\.1",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(tiny_shards: Path, more: Any, world: int, words: str) -> None:
    order = {} if "class_pairs" in words else {"order": "class_pairs"}
    config = recipe(
        **{"before": [] if "method" in more else [FIRST], "data": {"index": str(tiny_shards), **order}} | more
    )
    with pytest.raises(UserError, match=words):
        check(config, world=world, folder=Path("none"))


def test_a_classifier_of_other_classes_is_refused_on_the_login_node(
    tiny_shards: Path, tmp_path: Path
) -> None:
    index = Index.load(tiny_shards)
    path = tmp_path / "f.safetensors"
    knobs = {"name": "weight_map", "image_px": 32, "classifier": {"checkpoint": str(path)}}
    config = recipe(tiny_shards, before=[], method=knobs)
    for classes, words in (
        (
            index.classes[:-1],
            f"is for {len(index.classes) - 1} classes, the shards in .* have {len(index.classes)}",
        ),
        (index.classes[::-1], "class 0 is .* there and .* in the shards"),
    ):
        metadata = {"method": "cam", "classes": json.dumps(classes)}
        save_weights(path, {"model.fc.weight": torch.zeros(1)}, metadata=metadata)
        with pytest.raises(UserError, match=words):
            check(config, world=1, folder=Path("none"))


def test_every_recipe_of_the_weight_map_fits_its_method() -> None:
    names = [name for name in recipe_names() if name.startswith("weight-map")]
    sets = ("cub", "cars", "flowers", "tiny-imagenet", "caltech", "cub10")
    assert {f"weight-map-{one}-{kind}" for one in sets for kind in (1, 2)} <= set(names)
    for name in names:
        config = load(name)
        for run in (*config.before, config):
            assert run.method.recipe_problem(order=run.data.order, num_before=len(run.before)) is None
        if config.before:
            assert config.method.image_px == config.before[0].method.image_px
            assert config.val.metric == "box_mass"
            assert config.val.guards
