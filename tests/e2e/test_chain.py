"""The thinnest whole chain, as a user starts it: submit -> two ranks train -> a job of its own scores -> report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsol_dist.cli import main
from wsol_dist.recipe import load, read_yaml, to_dict
from wsol_dist.runs import checkpoint

ROOT = Path(__file__).parents[2]
RECIPE = """
name: thin
method:
  name: molt
  scales_px: [16, 32]
  backbone: {arch: deit_tiny_patch16_224, width: 32, heads: 2, depth: 2, patch_px: 8, stem: conv}
data: {workers: 1}
train: {epochs: 1, global_batch: 16, lr: 1.0e-3, zero: 1}
evaluate: {size_px: 32, batch_size: 8, cases: 3}
track: {wandb: offline, log_every_steps: 2}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def submitted(
    tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """Recipe, run folder and what the submission said."""
    folder = tmp_path_factory.mktemp("the chain")  # paths have blanks
    recipe = folder / "thin.yaml"
    recipe.write_text(RECIPE)
    command = [
        sys.executable,
        str(ROOT / "launch" / "submit.py"),
        str(recipe),
        "--cluster",
        "local",
        "--nodes",
        "1",
    ]
    command += ["--procs-per-node", "2", "--out", str(folder / "run"), "--data.index", str(tiny_shards)]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "MASTER_PORT")
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=280, check=False
    )
    return recipe, folder / "run", done


def read_record(run: Path, split: str) -> dict[str, Any]:
    return json.loads((run / "eval" / f"{split}-step-00000006.json").read_text())


def test_the_chain_ends_well_and_says_where_to_look(submitted: Any) -> None:
    _, run, done = submitted
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert str(run) in done.stdout
    assert "train 6/6" in done.stdout
    assert len(list((run / "logs").glob("*_1_log.out"))) == 2  # both jobs had two ranks


def test_training_left_a_checkpoint_a_log_and_its_configuration(submitted: Any, tiny_shards: Path) -> None:
    recipe, run, _ = submitted
    found = checkpoint.complete_checkpoints(run)
    assert [path.name for path in found] == ["step-00000006"]
    state = checkpoint.read_state(found[0])
    assert (state.step, state.position, state.world) == (6, 96, 2)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {
        "train/loss",
        "train/lr",
        "train/images_per_s",
        "train/data_wait_pct",
        "train/memory_gib",
    } <= rows[0].keys()
    assert read_yaml(run / "config.yaml") == to_dict(load(str(recipe), ["--data.index", str(tiny_shards)]))
    assert list((run / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_job_of_its_own_scored_both_splits_with_the_threshold_of_val(submitted: Any) -> None:
    _, run, _ = submitted
    val, test = read_record(run, "val"), read_record(run, "test")
    assert (val["num_images"], test["num_images"]) == (24, 40)
    assert val["threshold"]["source"] == "oracle"
    assert test["threshold"] == val["threshold"] | {"source": "val", "from": "eval/val-step-00000006.json"}
    numbers = {number["name"]: number for number in test["metrics"]}
    assert numbers["gt_known"]["threshold_source"] == "val"
    assert {
        "gt_known",
        "top1_loc",
        "top5_loc",
        "max_box_acc",
        "max_box_acc_v2",
        "pxap",
        "cls_top1",
        "centre_box",
    } <= numbers.keys()
    assert all((run / "eval" / case["picture"]).is_file() for case in test["cases"])
    assert "eval/test/gt_known" in (run / "metrics-evaluate.jsonl").read_text()


def test_the_report_is_one_page_and_a_summary(submitted: Any) -> None:
    _, run, _ = submitted
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "data:image" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    summary = json.loads((run / "summary.json").read_text())
    numbers = {number["name"]: number["value"] for number in read_record(run, "test")["metrics"]}
    for name in ("gt_known", "cls_top1", "centre_box"):
        assert summary[name] == pytest.approx(numbers[name])
    assert (summary["protocol"], summary["threshold_source"]) == ("topk_loc", "val")
    assert 0 < summary["seconds"] < 600
