"""What earlier versions wrote opens: shards, columns, run folders, exported models and predictions.

tests/made_by/VERSION.tar.xz was written by that version on 36 drawn images of three classes (make_images.py in it):
`run` was trained by two ranks (recipe.yaml) and stopped at step 42 of 120, its best checkpoint is step 30. `resumed`
and `refined` are what that version itself made of it.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import wsol_dist
from wsol_dist.cli import main

MADE_BY = Path(__file__).parents[1] / "made_by"
SIDES = ("x0", "y0", "x1", "y1")


@pytest.fixture(params=sorted(MADE_BY.glob("*.tar.xz")), ids=lambda path: path.name.removesuffix(".tar.xz"))
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all, as working directory: its run names its shards by a relative path."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_an_earlier_version() -> None:
    assert (MADE_BY / "0.1.0.tar.xz").is_file()


def wsol(*words: str) -> None:
    assert main(list(words)) == 0


def metrics(record: Path) -> dict[str, Any]:
    return {
        one["name"]: (one["value"], one["threshold"]) for one in json.loads(record.read_text())["metrics"]
    }


def losses(folder: str) -> dict[int, float]:
    rows = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def boxes(folder: str) -> list[dict[str, Any]]:
    return pq.read_table(Path(folder, "predictions.parquet")).to_pylist()


def test_a_run_is_scored_as_then(made: Path) -> None:
    wsol("evaluate", "run", "--split", "test", "--step", "best", "--out", "again", "--threshold", "0.612")
    then, now = (
        metrics(made / "run/eval/test-step-00000030.json"),
        metrics(made / "again/eval/test-step-00000030.json"),
    )
    assert now["gt_known"][0] == then["gt_known"][0]
    assert now["pxap"][0] == pytest.approx(then["pxap"][0], abs=0.2)


def test_a_run_is_refined_with_label_maps_of_then(made: Path) -> None:
    wsol(
        "evaluate",
        "run",
        "--split",
        "val,test",
        "--step",
        "30",
        "--out",
        "again",
        "--refine.labels",
        "labels",
    )
    for split in ("val", "test"):
        record = f"eval/{split}-step-00000030.json"
        assert metrics(made / "again" / record)["gt_known"] == metrics(made / "refined" / record)["gt_known"]


def test_the_threshold_chosen_then_still_counts(made: Path) -> None:
    """The record of the held-out split is found and fits what is scored now."""
    before = json.loads((made / "run/eval/test-step-00000030.json").read_text())
    wsol("evaluate", "run", "--split", "test", "--step", "30")
    assert (
        json.loads((made / "run/eval/test-step-00000030.json").read_text())["threshold"]
        == before["threshold"]
    )


def test_training_resumes_to_the_same_loss_curve(made: Path) -> None:
    wsol("train", "recipe.yaml", "--out", "run")
    then, now = losses("resumed"), losses("run")
    assert list(now) == list(range(10, 121, 10))
    np.testing.assert_allclose(list(now.values()), list(then.values()), rtol=1e-3)


def test_a_run_exports_to_the_model_of_then(made: Path) -> None:
    wsol("export", "run", "--out", "again", "--formats", "none")
    weights = (load_file(made / name / "model.safetensors") for name in ("again", "model"))
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    then, now = (json.loads((made / name / "model.json").read_text()) for name in ("model", "again"))
    assert now["threshold"] == then["threshold"]


def test_an_exported_model_predicts_the_boxes_of_then(made: Path) -> None:
    wsol("predict", "model", "raw", "--out", "again")
    then, now = boxes("predictions"), boxes("again")
    assert [(row["image"], row["class"]) for row in now] == [(row["image"], row["class"]) for row in then]
    near = ([[row[side] for side in SIDES] for row in rows] for rows in (now, then))
    np.testing.assert_allclose(*near, atol=1)
    assert wsol_dist.load("model").localize([made / "raw/test/0.jpg"])[0].classes[0].name == then[0]["class"]


def test_predictions_are_measured_and_reviewed(made: Path) -> None:
    wsol("quality", "predictions", "--index", "shards", "--split", "test")
    wsol("review", "predictions", "--with-open", "--export", "reviewed")


def test_shards_are_whole(made: Path) -> None:
    wsol("shards", "verify", "shards", "--deep")


LABELS = ["cluster", "--out", "labels", "--split", "val,test", "--backend", "slic"]
TEXT = [
    "--text.source",
    "file",
    "--text.dim",
    "4",
    "--text.embeddings",
    "text.npy",
    "--text.names",
    "names.txt",
]
EMBEDDINGS = ["embed", "--out", "embeddings", "--split", "val", "--what", "caption", *TEXT]
PSEUDO_LABELS = ["pseudo-label", "run", "--out", "pseudo", "--split", "val", "--step", "30"]


@pytest.mark.parametrize("command", [LABELS, EMBEDDINGS, PSEUDO_LABELS], ids=lambda command: command[0])
def test_the_command_that_filled_a_column_finds_it_complete(
    made: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    before = {path: path.read_bytes() for path in (made / command[command.index("--out") + 1]).iterdir()}
    wsol(*command, "--index", "shards")
    assert "complete" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in next(iter(before)).parent.iterdir()} == before
