"""What people get wrong: one clear line, exit code 2, no traceback, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsol_dist import cli
from wsol_dist.engine import checkpoint

ROOT = Path(__file__).parents[2]
GOOD = """name: good
method: {name: molt, scales_px: [16, 32], backbone: {width: 32, heads: 2, depth: 2, patch_px: 8}}
data: {index: '{shards}'}
train: {global_batch: 16}
"""


@dataclass(frozen=True)
class Mistake:
    """A command line, what makes it wrong, and what must be said. `{tmp}` and `{shards}` stand for folders."""

    what: str
    command: str
    message: str
    """Exactly this, but `...` for what other libraries and longer lists say."""
    recipe: str = GOOD
    damage: Callable[[Path], object] = lambda tmp: None


def edit(file: str, old: str, new: str) -> Callable[[Path], object]:
    def damage(tmp: Path) -> None:
        path = tmp / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


def truncate(tmp: Path) -> None:
    os.truncate(tmp / "shards" / "train-000003.tar", 5000)


def remove_index(tmp: Path) -> None:
    (tmp / "shards" / "index.json").unlink()


def class_folders(tmp: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp / "photos" / name).mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp / "photos" / "cats" / "1.png")


def foreign_weights(tmp: Path) -> None:
    weights = {"a": torch.zeros(1)}
    metadata = {"method": "cam", "classes": json.dumps(list("abcdefgh"))}
    checkpoint.save_weights(tmp / "cam.safetensors", weights, metadata=metadata)


SUBMIT = "submit {tmp}/recipe.yaml --cluster local --out {tmp}/run"
MISTAKES = [
    Mistake(
        "unknown command",
        "wsol evalute",
        "unknown command 'evalute'; did you mean 'evaluate'? allowed: evaluate, report, shards, show, train",
    ),
    Mistake(
        "unknown recipe",
        "wsol show quikstart",
        "unknown recipe 'quikstart'; did you mean 'quickstart'? allowed: ...; or a path to a .yaml file",
    ),
    Mistake(
        "recipe file missing",
        "wsol show {tmp}/nothing.yaml",
        "recipe '{tmp}/nothing.yaml': there is no such file; recipes by name: ...",
    ),
    Mistake(
        "misspelt key",
        "wsol show {tmp}/recipe.yaml",
        "{tmp}/recipe.yaml: evaluate.treshold: unknown key; did you mean 'threshold'? allowed: ...",
        recipe=GOOD + "evaluate: {treshold: 0.2}\n",
    ),
    Mistake(
        "unknown section",
        "wsol show {tmp}/recipe.yaml",
        "{tmp}/recipe.yaml: trian: unknown key; did you mean 'train'? allowed: ...",
        recipe=GOOD + "trian: {epochs: 2}\n",
    ),
    Mistake(
        "misspelt knob of the method",
        "wsol show {tmp}/recipe.yaml",
        "{tmp}/recipe.yaml: method.scale_px: unknown key; did you mean 'scales_px'? allowed: ...",
        recipe="name: x\nmethod: {name: molt, scale_px: [16]}\n",
    ),
    Mistake(
        "unknown method",
        "wsol show {tmp}/recipe.yaml",
        "method.name: unknown method 'mlot'; did you mean 'molt'? allowed: ...",
        recipe="name: x\nmethod: {name: mlot}\n",
    ),
    Mistake(
        "wrong type",
        "wsol show {tmp}/recipe.yaml",
        "{tmp}/recipe.yaml: seed: given 'many' (str): ...integer...",
        recipe=GOOD + "seed: many\n",
    ),
    Mistake(
        "out of range",
        "wsol show {tmp}/recipe.yaml",
        "{tmp}/recipe.yaml: evaluate: threshold must be in [0, 1), got 30.0",
        recipe=GOOD + "evaluate: {threshold: 30}\n",
    ),
    Mistake(
        "duplicate key",
        "wsol show {tmp}/recipe.yaml",
        "{tmp}/recipe.yaml: duplicate key 'name' in lines 1 and 5; keep one of them",
        recipe=GOOD + "name: again\n",
    ),
    Mistake(
        "missing root",
        "wsol shards pack imagenet --root {tmp}/nowhere --out {tmp}/out",
        "{tmp}/nowhere: no such folder; expected the folder of ImageNet",
    ),
    Mistake(
        "another root",
        "wsol shards pack caltech-101 --root {tmp} --out {tmp}/out",
        "{tmp}/101_ObjectCategories: no such folder; expected 101_ObjectCategories and Annotations below the root",
    ),
    Mistake(
        "unknown source",
        "wsol shards pack colage --out {tmp}/out",
        "unknown source 'colage'; did you mean 'collage'? allowed: ...",
    ),
    Mistake(
        "class without images",
        "wsol shards pack folder --root {tmp}/photos --out {tmp}/out",
        "{tmp}/photos/dogs: a class without images; put images (jpg, png, webp, bmp) there or remove it",
        damage=class_folders,
    ),
    Mistake(
        "no shards given",
        SUBMIT,
        "data.index: no shards given; pack some (shards/pack.py) and add --data.index FOLDER",
        recipe=GOOD.replace("{shards}", ""),
    ),
    Mistake(
        "no such folder of shards",
        SUBMIT + " --data.index {tmp}/nowhere",
        "{tmp}/nowhere: no such folder of shards; make one with `python shards/pack.py SOURCE --out {tmp}/nowhere`",
    ),
    Mistake(
        "index missing",
        SUBMIT,
        "{shards}: no index.json in it: packing did not finish, or this is no folder of shards; "
        "run `python shards/pack.py SOURCE --out {shards}`",
        damage=remove_index,
    ),
    Mistake(
        "another schema",
        SUBMIT,
        "{shards}/index.json: schema version 99 given, 1 supported; pack again with this version",
        damage=edit("shards/index.json", '"schema": 1', '"schema": 99'),
    ),
    Mistake(
        "index damaged",
        SUBMIT,
        "{shards}/index.json: damaged: ...; pack again",
        damage=edit("shards/index.json", '"seed": 0', '"seed": '),
    ),
    Mistake(
        "truncated tar",
        SUBMIT,
        "{shards}/train-000003.tar: truncated: 32768 bytes expected, 5000 found; pack again, or copy the folder again",
        damage=truncate,
    ),
    Mistake(
        "truncated tar, scored",
        "wsol evaluate {tmp}/recipe.yaml --out {tmp}/run",
        "{shards}/train-000003.tar: truncated: 32768 bytes expected, 5000 found; pack again, or copy the folder again",
        damage=truncate,
    ),
    Mistake(
        "truncated tar, trained",
        "wsol train {tmp}/recipe.yaml --out {tmp}/run",
        "{shards}/train-000003.tar: truncated: 32768 bytes expected, 5000 found; pack again, or copy the folder again",
        damage=truncate,
    ),
    Mistake(
        "another class count",
        SUBMIT + " --data.num-classes 1000",
        "data.num_classes: the recipe is for 1000 classes, the shards in {shards} have 8; "
        "choose other shards or set --data.num-classes 8",
    ),
    Mistake(
        "another class count, scored",
        "wsol evaluate {tmp}/recipe.yaml --data.num-classes 1000 --out {tmp}/run",
        "the recipe (data.num_classes) is for 1000 classes, the shards in {shards} have 8; "
        "give the shards that belong to it with --index",
    ),
    Mistake(
        "checkpoint of another method",
        SUBMIT + " --train.init {tmp}/cam.safetensors",
        "{tmp}/cam.safetensors: a checkpoint of method 'cam', this recipe's is 'molt'",
        damage=foreign_weights,
    ),
    Mistake(
        "checkpoint of another method, trained",
        "wsol train {tmp}/recipe.yaml --train.init {tmp}/cam.safetensors --out {tmp}/run",
        "{tmp}/cam.safetensors: a checkpoint of method 'cam', this recipe's is 'molt'",
        damage=foreign_weights,
    ),
    Mistake(
        "checkpoint of another method, scored",
        "wsol evaluate {tmp}/recipe.yaml --init {tmp}/cam.safetensors --out {tmp}/run",
        "{tmp}/cam.safetensors: a checkpoint of method 'cam', this recipe's is 'molt'",
        damage=foreign_weights,
    ),
    Mistake(
        "no checkpoint there",
        SUBMIT + " --train.init {tmp}/nothing.safetensors",
        "{tmp}/nothing.safetensors: neither a weight file nor a run folder with a checkpoint in it",
    ),
    Mistake(
        "batch does not divide",
        SUBMIT + " --procs-per-node 3",
        "train.global_batch: 16 is no multiple of 3 (3 ranks x accumulation 1); try --train.global-batch 15",
    ),
    Mistake(
        "no such split",
        SUBMIT + " --splits vla",
        "--splits: no split 'vla' in {shards}; did you mean 'val'? allowed: train, val, test, joined by commas",
    ),
    Mistake("no nodes", "submit {tmp}/recipe.yaml --nodes 0", "--nodes: given 0, at least 1 is needed"),
    Mistake(
        "no processes", SUBMIT + " --procs-per-node 0", "--procs-per-node: given 0, at least 1 is needed"
    ),
    Mistake(
        "many nodes here",
        SUBMIT + " --nodes 2",
        "--nodes: given 2, but --cluster local has this one machine; use --nodes 1",
    ),
    Mistake(
        "no SLURM",
        "submit {tmp}/recipe.yaml --nodes 8 --out {tmp}/run",
        "--cluster slurm: SLURM is not installed here (no sbatch); use --cluster local, or --dry-run",
    ),
    Mistake(
        "report of nothing",
        "wsol report {tmp}/nowhere",
        "run '{tmp}/nowhere': no such folder; give a run folder such as runs/quickstart",
    ),
]


def call(command: str) -> int:
    program, *argv = command.split()
    return cli.main(argv) if program == "wsol" else cli.run("wsol_dist.launching.submission", argv)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture
def prepared(tmp_path: Path, own_shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with its own shards, in which no SLURM is to be found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_one_clear_line_and_nothing_written(
    prepared: Path, mistake: Mistake, capsys: pytest.CaptureFixture[str]
) -> None:
    def filled(text: str) -> str:
        return text.replace("{tmp}", str(prepared)).replace("{shards}", str(prepared / "shards"))

    (prepared / "recipe.yaml").write_text(filled(mistake.recipe))
    mistake.damage(prepared)
    before = contents(prepared)
    code = call(filled(mistake.command))
    said = capsys.readouterr().err
    wanted = re.escape(f"error: {filled(mistake.message)}").replace(re.escape("..."), ".*")
    assert re.fullmatch(wanted, said.rstrip("\n")), said
    assert code == 2
    assert contents(prepared) == before


def test_a_real_process_ends_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wsol_dist.cli", "show", "quikstart"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown recipe 'quikstart'; did you mean 'quickstart'?")
    assert len(done.stderr.splitlines()) == 1


def test_a_misspelt_flag_ends_with_code_2_and_names_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["show", "quickstart", "--train.epoch", "3"])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "--train.epochs" in said.err
    assert "Traceback" not in said.err
