"""An evaluator that follows a run is killed in the middle and started again: nothing is scored twice or left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.forkserver import FRESH
from tests.hue import config, write_checkpoint, write_run
from wsol_dist.runs.run_state import mark_finished, read_best

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def follow(run: Path) -> subprocess.Popen[bytes]:
    command = [
        FRESH,  # killed from outside
        "-m",
        "wsol_dist.cli",
        "evaluate",
        str(run),
        "--follow",
        "--final-split",
        "test",
    ]
    ranks = ("RANK", "WORLD_SIZE", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in ranks}
    # In a group of its own, so that a kill takes its loaders along, as a scheduler does.
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until, path
        time.sleep(0.05)


def test_killed_and_started_again(tiny_shards: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", config(tiny_shards, val={"look_every_s": 0.2, "silence_minutes": 10})
    write_run(run, recipe)
    for step in (10, 20, 30):
        write_checkpoint(run, recipe, step, scale=step / 20)
    first = follow(run)
    wait_for(run / "eval" / "val-step-00000010.json", first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in (run / "eval").glob("*.json")}
    assert before
    second = follow(run)
    try:
        wait_for(run / "eval" / "val-step-00000030.json", second)
        write_checkpoint(run, recipe, 40, scale=0.9)  # training goes on
        wait_for(run / "eval" / "val-step-00000040.json", second)
        mark_finished(run, 40)
        assert second.wait(120) == 0
    finally:
        if second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    rows = [json.loads(line) for line in (run / "metrics-evaluate.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/val/gt_known" in row] == [10, 20, 30, 40]
    best = read_best(run)
    assert best is not None
    assert (run / "eval" / f"test-step-{best['step']:08d}.json").is_file()
    assert len((run / "test-scorings.jsonl").read_text().splitlines()) == 1
