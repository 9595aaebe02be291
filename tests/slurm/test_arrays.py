"""Work cut into the tasks of a job array: the same bytes as one process writes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import ROOT, Slurm, fork_in
from wsol_dist.cli import main
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
WAIT_S = 240.0
PACK = [
    "--num-train",
    "40",
    "--num-val",
    "8",
    "--num-test",
    "8",
    "--image-px",
    "32",
    "--samples-per-shard",
    "4",
]


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_packed_by_an_array_of_three_as_packed_alone(slurm: Slurm, project: Path, tmp_path: Path) -> None:
    assert main(["shards", "pack", "collage", "--out", str(tmp_path / "alone"), *PACK]) == 0
    fork_in(project)
    words = ["--array=1-3", "--cpus-per-task=1", "slurm/pack_array.sh", "collage"]
    array = slurm.sbatch(*words, "--out", tmp_path / "array", *PACK, cwd=project)
    slurm.completed(array, timeout_s=WAIT_S, logs=project)
    last = re.findall(r"Submitted batch job (\d+)", (project / f"pack-{array}-1.log").read_text())
    assert len(last) == 1
    slurm.completed(last[0], timeout_s=WAIT_S, logs=project)
    assert files(tmp_path / "array") == files(tmp_path / "alone")
    assert slurm.accounted(array, rows=3) == [["COMPLETED"]] * 3


def test_a_failed_part_removes_the_job_behind_it(slurm: Slurm, project: Path, tmp_path: Path) -> None:
    """And does not leave it in the queue for ever."""
    words = [
        "--array=1-2",
        "--cpus-per-task=1",
        "slurm/pack_array.sh",
        "folder",
        "--root",
        tmp_path / "nowhere",
    ]
    array = slurm.sbatch(*words, "--out", tmp_path / "array", cwd=project)
    assert slurm.wait(array, timeout_s=WAIT_S, logs=project) == "FAILED"
    (last,) = re.findall(r"Submitted batch job (\d+)", (project / f"pack-{array}-1.log").read_text())
    assert slurm.wait(last, timeout_s=WAIT_S, logs=project) == "CANCELLED"


def test_clusters_of_an_array_make_a_whole_column(slurm: Slurm, tiny_shards: Path, tmp_path: Path) -> None:
    out, logs = tmp_path / "labels", tmp_path / "logs"
    command = [sys.executable, ROOT / "launch" / "submit.py", "cluster", "--jobs", "2", "--logs", logs]
    command += ["--index", tiny_shards, "--out", out, "--backend", "slic", "--size-px", "16", "--procs", "1"]
    said = slurm.command(*command, "--cpus-per-proc", "1").stdout
    array, last = re.findall(r"job (\d+),", said)
    slurm.completed(last, timeout_s=WAIT_S, logs=logs)
    slurm.completed(array, timeout_s=5, logs=logs)
    assert Column.open(out, Index.load(tiny_shards)).value("test", 39) is not None
