"""What people get wrong: one clear line, exit code 2, no traceback, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
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
RECIPES = "cam-caltech-mobilenetv2, cam-ilsvrc-mobilenetv2, molt-imagenet"
METHOD = "method: {name: molt, scales_px: [16, 32], backbone: {arch: deit_tiny_patch16_224, width: 32, heads: 2, depth: 2, patch_px: 8}}\n"
GOOD = f"name: good\n{METHOD}data: {{index: '{{shards}}'}}\ntrain: {{global_batch: 16}}\n"


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
    Mistake("unknown command", "wsol evalute", "?"),
    Mistake("unknown recipe", "wsol show quikstart", "?"),
    Mistake("recipe file missing", "wsol show {tmp}/nothing.yaml", "?"),
    Mistake("misspelt key", "wsol show {tmp}/recipe.yaml", "?", recipe=GOOD + "evaluate: {treshold: 0.2}\n"),
    Mistake("unknown section", "wsol show {tmp}/recipe.yaml", "?", recipe=GOOD + "trian: {epochs: 2}\n"),
    Mistake("misspelt knob of the method", "wsol show {tmp}/recipe.yaml", "?", recipe="name: x\nmethod: {name: molt, scale_px: [16]}\n"),
    Mistake("unknown method", "wsol show {tmp}/recipe.yaml", "?", recipe="name: x\nmethod: {name: mlot}\n"),
    Mistake("wrong type", "wsol show {tmp}/recipe.yaml", "?", recipe=GOOD + "seed: many\n"),
    Mistake("out of range", "wsol show {tmp}/recipe.yaml", "?", recipe=GOOD + "evaluate: {threshold: 30}\n"),
    Mistake("duplicate key", "wsol show {tmp}/recipe.yaml", "?", recipe=GOOD + "name: again\n"),
    Mistake("missing root", "wsol shards pack imagenet --root {tmp}/nowhere --out {tmp}/out", "?"),
    Mistake("another root", "wsol shards pack caltech-101 --root {tmp} --out {tmp}/out", "?"),
    Mistake("unknown source", "wsol shards pack colage --out {tmp}/out", "?"),
    Mistake("class without images", "wsol shards pack folder --root {tmp}/photos --out {tmp}/out", "?", damage=class_folders),
    Mistake("no shards given", SUBMIT, "?", recipe=GOOD.replace("{shards}", "")),
    Mistake("no such folder of shards", SUBMIT + " --data.index {tmp}/nowhere", "?"),
    Mistake("index missing", SUBMIT, "?", damage=remove_index),
    Mistake("another schema", SUBMIT, "?", damage=edit("shards/index.json", '"schema": 1', '"schema": 99')),
    Mistake("index damaged", SUBMIT, "?", damage=edit("shards/index.json", '"seed": 0', '"seed": ')),
    Mistake("truncated tar", SUBMIT, "?", damage=truncate),
    Mistake("truncated tar, scored", "wsol evaluate {tmp}/recipe.yaml --out {tmp}/run", "?", damage=truncate),
    Mistake("truncated tar, trained", "wsol train {tmp}/recipe.yaml --out {tmp}/run", "?", damage=truncate),
    Mistake("another class count", SUBMIT + " --data.num-classes 1000", "?"),
    Mistake("another class count, scored", "wsol evaluate {tmp}/recipe.yaml --data.num-classes 1000 --out {tmp}/run", "?"),
    Mistake("checkpoint of another method", SUBMIT + " --train.init {tmp}/cam.safetensors", "?", damage=foreign_weights),
    Mistake("checkpoint of another method, trained", "wsol train {tmp}/recipe.yaml --train.init {tmp}/cam.safetensors --out {tmp}/run", "?", damage=foreign_weights),
    Mistake("checkpoint of another method, scored", "wsol evaluate {tmp}/recipe.yaml --init {tmp}/cam.safetensors --out {tmp}/run", "?", damage=foreign_weights),
    Mistake("no checkpoint there", SUBMIT + " --train.init {tmp}/nothing.safetensors", "?"),
    Mistake("batch does not divide", SUBMIT + " --procs-per-node 3", "?"),
    Mistake("no such split", SUBMIT + " --splits vla", "?"),
    Mistake("no nodes", "submit {tmp}/recipe.yaml --nodes 0", "?"),
    Mistake("no processes", SUBMIT + " --procs-per-node 0", "?"),
    Mistake("many nodes here", SUBMIT + " --nodes 2", "?"),
    Mistake("no SLURM", "submit {tmp}/recipe.yaml --nodes 8 --out {tmp}/run", "?"),
    Mistake("report of nothing", "wsol report {tmp}/nowhere", "?"),
]  # fmt: skip


def call(command: str) -> int:
    program, *argv = command.split()
    return cli.main(argv) if program == "wsol" else cli.run("wsol_dist.submission", argv)


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
    print(f"@@{mistake.what}|{code}|{said.rstrip()}|{sorted(set(contents(prepared)) - set(before))}")
    return
    assert contents(prepared) == before
