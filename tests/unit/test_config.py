"""Recipes: every mistake at once, in words that say how to mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsol_dist.errors import UserError
from wsol_dist.launching.submission import Options
from wsol_dist.options import parse
from wsol_dist.recipe import dump, from_dict, load, read_yaml, recipe_names, to_dict

GOOD = "name: x\nmethod: {name: ts_cam, image_px: 64}\n"


def recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_says_what_to_expect(name: str) -> None:
    config = load(name)
    from wsol_dist.recipe import RECIPES

    header = (RECIPES / f"{name}.yaml").read_text().split("\nname:")[0]
    assert "# Command:" in header
    assert "# Expected:" in header
    assert config.name == name


def test_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load("quickstart", ["--train.epochs", "3", "--method.combine", "max"])
    assert config.train.epochs == 3
    assert load(recipe(tmp_path, dump(config))) == config
    assert from_dict(to_dict(config), origin="x") == config


def test_three_mistakes_are_three_lines(tmp_path: Path) -> None:
    text = GOOD + "train: {epochs: three, acumulation: 2}\nseed: none\n"
    with pytest.raises(UserError) as error:
        load(recipe(tmp_path, text))
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert any("train.epochs: given 'three'" in line for line in lines)
    assert any("train.acumulation: unknown key; did you mean 'accumulation'?" in line for line in lines)
    assert any("seed: given 'none'" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nname: y\nmethod: {name: cam}\n", ["duplicate key 'name'", "lines 1 and 2"]),
        ("method: {name: ts_camm}\n", ["method.name", "'ts_camm'", "did you mean 'ts_cam'"]),
        ("name: x\n", ["method.name is missing"]),
        ("- a\n- b\n", ["mapping"]),
        ("method: {name: ts_cam, imagepx: 3}\n", ["method.imagepx", "did you mean 'image_px'"]),
        (GOOD + "train: {epochs: -1}\n", ["recipe.yaml: train.epochs: given -1; allowed: above 0"]),
        (GOOD + "train: {zero: 7}\n", ["train.zero", "given 7"]),
        ("a: [1\n", ["recipe.yaml"]),
    ],
)
def test_a_mistake_names_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load(recipe(tmp_path, text))
    for word in words:
        assert word in str(error.value)


def test_unknown_recipe_suggests_one() -> None:
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        load("quikstart")


def test_a_base_is_merged_key_by_key_and_goes_one_level(tmp_path: Path) -> None:
    config = load("molt-imagenet")
    assert config.train == load("ts-cam-imagenet").train
    assert config.data.resize_px == 512
    assert config.data.num_classes == 1000
    with pytest.raises(UserError, match="one level"):
        load(recipe(tmp_path, "base: molt-imagenet\nname: x\n"))


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("!!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError):
        read_yaml(path)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--train.epoch", "3"],
            ["--train.epoch: unknown flag; did you mean '--train.epochs'?", "--train.lr,"],
        ),
        (["--trian.epochs", "3"], ["--trian.epochs: unknown flag; did you mean '--train.epochs'?"]),
        (["--data.workers", "-1"], ["--data.workers: given -1; allowed: 0 or more"]),
        (["--data.workers", "x"], ["--data.workers: ", "'x'", "write --data.workers INT"]),
        (["--train.schedule", "x"], ["'x'", "--train.schedule", "constant", "poly"]),
        (["--seed", "-1"], ["--seed: given -1; allowed: 0 or more"]),
        (["--seed", "1", "2"], ["'2': no flag takes this word"]),
        (["--seed"], ["'--seed'"]),
        (["--before.0.train.epoch", "3"], ["--before.0: --train.epoch: unknown flag", "'--train.epochs'"]),
    ],
    ids=lambda value: " ".join(value) if "--" in value[0] else "",
)
def test_a_wrong_flag_is_one_line(
    flags: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(UserError) as error:
        load("weight-map-1", flags)
    said = str(error.value)
    assert "\n" not in said
    assert not set("│|╭╰─") & set(said)
    assert all(word in said for word in words), said
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_wrong_flag_is_the_same_line_on_any_terminal(encoding: str) -> None:
    command = [sys.executable, "-m", "wsol_dist.cli", "show", "quickstart", "--data.workers", "x"]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "60"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --data.workers: invalid literal for int() with base 10: 'x'; write --data.workers INT\n"
    )


def test_a_value_of_an_override_is_no_recipe() -> None:
    def given(*words: str) -> Options:
        return parse(Options, words, prog="submit", description=None)

    own = given("--nodes", "8", "--data.index", "/shards", "--dry-run")
    assert (own.recipe, own.nodes, own.dry_run) == ("molt-imagenet", 8, True)
    assert own.config().data.index == "/shards"
    own = given("quickstart", "--method.scales-px", "16", "32", "--nodes", "2")
    assert (own.recipe, own.nodes, own.config().method.scales_px) == ("quickstart", 2, (16, 32))


def test_a_base_lies_beside_its_recipe(tmp_path: Path) -> None:
    recipe(tmp_path, GOOD + "seed: 7\n")
    above = tmp_path / "above.yaml"
    above.write_text("base: recipe.yaml\nname: above\n")
    assert load(str(above)).seed == 7
