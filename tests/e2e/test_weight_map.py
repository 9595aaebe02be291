"""Method II as a user starts it: one command trains the classifier, the embedding and g, and keeps the best epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wsol_dist.cli import main
from wsol_dist.report.run_data import read_run

pytestmark = pytest.mark.slow

NET = {"arch": "resnet10t", "model_kwargs": {"zero_init_last": False}}
TRAIN = {"epochs": 1, "global_batch": 16, "lr": 1.0e-3, "schedule": "constant"}
SIAMESE = {"name": "weight_map", "variant": "siamese", "image_px": 32, "embedder": NET}
RECIPE = {
    "name": "film",
    "before": [
        {"name": "classifier", "method": {"name": "cam", **NET, "image_px": 32}, "train": TRAIN},
        {
            "name": "embedding",
            "method": {**SIAMESE, "stage": "f"},
            "data": {"order": "class_pairs"},
            "train": TRAIN,
        },
    ],
    "method": {**SIAMESE, "classifier": NET, "encoder": NET},
    "data": {"order": "class_pairs", "workers": 0},
    "train": TRAIN | {"epochs": 3},
    "val": {"every_epochs": 1, "metric": "box_mass", "guards": ["mean_map<=100", "epoch>=2"]},
    "evaluate": {
        "size_px": 32,
        "cases": 3,
        "workers": 0,
        "normalise": "max",
        "box_mass": True,
        "threshold": 0.1,
    },
    "track": {"wandb": "offline", "log_every_steps": 3},
}


@pytest.fixture(scope="module")
def trained(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder, and what training said."""
    folder = tmp_path_factory.mktemp("weight map")
    (folder / "film.yaml").write_text(yaml.safe_dump(RECIPE))
    command = [
        sys.executable,
        "-m",
        "wsol_dist.cli",
        "train",
        str(folder / "film.yaml"),
        "--out",
        str(folder / "run"),
    ]
    names = ("RANK", "WORLD_SIZE", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [*command, "--data.index", str(tiny_shards)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run", done.stdout + done.stderr


def test_one_command_trains_every_stage(trained: tuple[Path, str]) -> None:
    run, said = trained
    assert sorted(path.name for path in (run / "before").iterdir()) == ["classifier", "embedding"]
    assert "takes what film-classifier trained" in said
    assert "takes what film-embedding trained" in said


def test_the_log_says_score_mean_guard_and_the_epoch_that_is_kept(trained: tuple[Path, str]) -> None:
    run, said = trained
    assert "cannot be the best: epoch 1 is not >= 2" in said
    assert "box_mass" in said
    assert "mean_map" in said
    assert "(epoch " in said
    best = json.loads((run / "best.json").read_text())
    assert best["metric"] == "box_mass"
    assert best["step"] in (12, 18)
    assert (run / best["checkpoint"]).is_dir()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [row["step"] for row in rows if {"eval/val/box_mass", "eval/val/mean_map"} <= row.keys()]
    assert scored == [6, 12, 18]


def test_the_kept_epoch_is_scored_by_the_papers_box_rule(
    trained: tuple[Path, str], tiny_shards: Path
) -> None:
    run, _ = trained
    arguments = ["--step", "best", "--split", "test", "--threshold", "fixed"]
    assert main(["evaluate", str(run), "--index", str(tiny_shards), *arguments]) == 0
    record = max(
        (record for record in read_run(run).records if record.split == "test"), key=lambda one: one.step
    )
    found = record.metric("gt_known")
    assert found is not None
    assert (found["threshold"], found["threshold_source"]) == (0.1, "fixed")
    assert record.raw["scored_as"]["evaluate"]["normalise"] == "max"


def test_the_same_images_at_successive_epochs_are_on_the_page(trained: tuple[Path, str]) -> None:
    run, said = trained
    assert "W&B is switched off" not in said
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Maps over training" in page
    assert "epoch 3" in page
    assert list((run / "wandb").rglob("media/**/filmstrip*")), said
