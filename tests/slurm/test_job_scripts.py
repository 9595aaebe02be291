"""The job scripts as a scheduler runs them: 8 x 8 tasks tell who reads what; small trainings with their evaluators."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.forkserver import FRESH
from tests.slurm.conftest import ROOT, Slurm, fork_in
from wsol_dist.data.shards.index import Index
from wsol_dist.runs.checkpoint import complete_checkpoints

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
WAIT_S = 400.0
"""A job of four ranks takes about a minute on two idle cores."""
TINY = """
base: ts-cam-imagenet
name: tiny
method:
  name: ts_cam
  image_px: 32
  backbone: {arch: deit_tiny_patch16_224, width: 32, heads: 2, depth: 2, patch_px: 8, stem: conv, pretrained: false}
data: {num_classes: null, workers: 0, resize_px: 36}
train: {epochs: 2, global_batch: 64, checkpoint_every_epochs: 1, warmup_epochs: 0, zero: 1}
evaluate: {size_px: 32, batch_size: 20, workers: 0}
val: {look_every_s: 1}
track: {wandb: "off"}
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    file.write_text(TINY)
    return file


def sbatch(
    slurm: Slurm, project: Path, recipe: Path, shards: Path, run: Path, *size: str
) -> tuple[str, Path]:
    """`sbatch slurm/molt_64gpu.sh`; the job's id and its log."""
    about = {"RECIPE": str(recipe), "SHARDS": str(shards), "RUN": str(run)}
    job = slurm.sbatch(*size, "--cpus-per-task=1", "slurm/molt_64gpu.sh", cwd=project, **about)
    return job, project / f"molt-64gpu-{job}.log"


def submit(
    slurm: Slurm, recipe: Path, shards: Path, run: Path, *words: str, python: str = sys.executable
) -> tuple[str, str, str]:
    """`launch/submit.py`; the ids of the training and of the evaluator, and what it printed."""
    command = [python, ROOT / "launch" / "submit.py", recipe, "--out", run, "--data.index", shards]
    said = slurm.command(*command, "--cpus-per-proc", "1", *words).stdout
    train, evaluate = re.findall(r"job (\d+), log", said)
    return train, evaluate, said


def verdict(slurm: Slurm, job: str, log: Path) -> str:
    """The log of a job from its start to the verdict on memory, which on small machines ends it."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        text = log.read_text(errors="replace") if log.exists() else ""
        if "\nmemory " in text or "\nerror: " in text:
            return text
        time.sleep(0.5)
    pytest.fail(f"no verdict in {WAIT_S} s, {slurm.state(job)}\n{slurm.told(log.parent)}")


def check_64(log: str, run: Path, job: str, shards: Path) -> None:
    """Put together what the 64 tasks told, again and apart from `wsol ranks check`."""
    files = sorted((run / "logs" / "ranks" / job).glob("rank-*.json"))
    reports = [json.loads(file.read_text()) for file in files]
    assert [one["rank"] for one in reports] == list(range(64))
    assert Counter(one["node"] for one in reports) == {f"n{node}": 8 for node in range(1, 9)}
    assert {(one["node"], one["gpu"]) for one in reports} == {
        (f"n{node}", str(gpu)) for node in range(1, 9) for gpu in range(8)
    }
    assert not any(one["torch"] for one in reports)
    trained = Counter(row for one in reports for row in one["rows"]["training"])
    assert len(trained) == 64  # one whole batch of 96 samples
    assert set(trained.values()) == {1}
    for split, about in Index.load(shards).splits.items():
        scored = sorted(row for one in reports for row in one["rows"][split])
        assert scored == list(range(about.num_samples))
    assert (
        len(re.findall(r"^rank +\d+ of 64 +n\d, task \d, GPU \d +rows of training 1 ", log, re.MULTILINE))
        == 64
    )
    assert "64 of 64 told, 8 nodes x 8, 1 machine, each with a GPU of its own (64)" in log
    assert "64 of 96 samples are read, each by one rank, none twice; 32 are left out of this epoch" in log
    assert "40 of 40 samples, each by one rank, once" in log
    assert re.search(
        r"64 training ranks on 8 nodes of one machine take 32.0 GiB .*, [\d.]+ GiB are free", log
    )
    if "error: " in log:
        assert re.search(r"error: memory: .*RANKS_PER_NODE=\d+ sbatch ..., or .*--ranks-per-node \d+", log)


def check_training(slurm: Slurm, run: Path, train: str, evaluate: str, *, nodes: int) -> None:
    """Both jobs ended well by the accounting; checkpoint, and the scores of both splits are there."""
    slurm.completed(train, timeout_s=WAIT_S, logs=run)
    slurm.completed(evaluate, timeout_s=WAIT_S, logs=run)
    assert slurm.accounted(train, fields="State,NNodes") == [["COMPLETED", str(nodes)]]
    assert slurm.accounted(evaluate, fields="State,NNodes") == [["COMPLETED", "1"]]
    assert (run / "finished").is_file()
    assert [path.name for path in complete_checkpoints(run)][-1] == "step-00000002"
    scored = [json.loads(file.read_text()) for file in (run / "eval").glob("*.json")]
    assert Counter((one["split"], one["num_images"]) for one in scored) == {("val", 24): 2, ("test", 40): 1}


def test_64_tasks_of_sbatch_read_every_sample_once(
    slurm: Slurm, project: Path, recipe: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    job, log = sbatch(slurm, project, recipe, tiny_shards, run)
    said = verdict(slurm, job, log)
    check_64(said, run, job, tiny_shards)
    assert f"run folder {run}; watch: tail -F {log}; squeue -j {job}" in said


def test_64_tasks_of_submit_read_every_sample_once(
    slurm: Slurm, recipe: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "a $(touch run)"
    # Tasks of their own: they tell whether they had to import torch.
    job, _, said = submit(slurm, recipe, tiny_shards, run, "--nodes", "8", python=FRESH)
    log = run / "logs" / f"{job}_0_log.out"
    assert f"tail -F {log}" in said
    check_64(verdict(slurm, job, log), run, job, tiny_shards)


def test_sbatch_trains_on_two_nodes_and_the_evaluator_follows(
    slurm: Slurm, project: Path, recipe: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    size = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2"]
    fork_in(project)
    job, log = sbatch(slurm, project, recipe, tiny_shards, tmp_path / "run", *size)
    slurm.completed(job, timeout_s=WAIT_S, logs=project)
    evaluate = re.findall(r"^Submitted batch job (\d+)", log.read_text(), re.MULTILINE)
    assert len(evaluate) == 1
    check_training(slurm, tmp_path / "run", job, evaluate[0], nodes=2)
    assert "4 of 4 told, 2 nodes x 2" in log.read_text()


def test_submit_trains_with_fewer_ranks_than_tasks_and_the_evaluator_follows(
    slurm: Slurm, recipe: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    size = ["--nodes", "2", "--procs-per-node", "2", "--gpus-per-node", "2", "--ranks-per-node", "1"]
    train, evaluate, _ = submit(slurm, recipe, tiny_shards, run, *size)
    check_training(slurm, run, train, evaluate, nodes=2)
    log = (run / "logs" / f"{train}_0_log.out").read_text()
    assert "4 of 4 told, 2 nodes x 2" in log
    assert "2 training ranks on 2 nodes of one machine take 1.0 GiB" in log


def test_a_mistake_is_told_once_and_queues_no_evaluator(
    slurm: Slurm, project: Path, recipe: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    size = ["--nodes=2", "--ntasks-per-node=3", "--gpus-per-node=3"]
    job, log = sbatch(slurm, project, recipe, tiny_shards, tmp_path / "run", *size)
    assert slurm.wait(job, timeout_s=WAIT_S, logs=project) == "FAILED"
    assert log.read_text().count("error: ") == log.read_text().count("train.global_batch: ") == 1
    assert "Submitted batch job" not in log.read_text()
