"""Ranks that do not know of each other yet, or run a command that ends before they do: the first failure is told once.

As processes with the variables that `srun` gives them; none of them imports torch.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wsol_dist.processes.first_error import told_once

WORLD = 4
FAILS = """
import sys
from dataclasses import dataclass
from pathlib import Path
import tyro
from wsol_dist import cli
from wsol_dist.errors import UserError
from wsol_dist.processes.first_error import told_once

@dataclass
class Words:
    folder: tyro.conf.Positional[Path]
    how: tyro.conf.Positional[str]

class Failing:
    Options = Words

    def run(options):
        with told_once(options.folder):
            raise {"exception": ValueError, "mistake": UserError}[options.how]("the cup is empty")

sys.modules["failing"] = Failing
sys.exit(cli.run("failing", sys.argv[1:], prog="failing"))
"""


def run_step(folder: Path, *command: str, world: int = WORLD, **more: str) -> tuple[str, list[int]]:
    """What the tasks of a job's step write into its log, and their exit codes."""
    (folder / "tmp").mkdir(exist_ok=True)
    log = folder / "log"
    processes = []
    with log.open("wb") as out:
        for rank in range(world):
            slurm = {
                "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(world),
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank % 2), "CUDA_VISIBLE_DEVICES": "4,5", "TMPDIR": str(folder / "tmp"),
            }  # fmt: skip
            own = {**os.environ, **slurm, **more}
            processes.append(subprocess.Popen(command, stdout=out, stderr=out, env=own, cwd=folder))
        codes = [process.wait(timeout=300) for process in processes]
    return log.read_text(), codes


@pytest.mark.parametrize("how", ["exception", "mistake"])
@pytest.mark.parametrize("there", [True, False], ids=["run folder", "no folder"])
def test_of_all_ranks_the_first_tells_it(tmp_path: Path, how: str, there: bool) -> None:
    run = tmp_path / "run"
    if there:
        run.mkdir()
    words = [sys.executable, "-c", FAILS, str(run), how]
    text, codes = run_step(tmp_path, *words)
    assert codes == [1 if how == "exception" else 2] * WORLD
    assert text.count("first error: ") == 1, text
    rank = int(text.partition("first error: rank ")[2].partition(" of 4, ")[0])
    assert f"first error: rank {rank} of {WORLD}, node {socket.gethostname()}, GPU {4 + rank % 2} (" in text
    if how == "exception":
        assert text.count("Traceback (most recent call last)") == 1
        assert text.rstrip().endswith("ValueError: the cup is empty")
    else:
        assert text.rstrip().endswith("\nerror: the cup is empty")
    assert run.exists() == there
    assert run_step(tmp_path, *words)[0] == ""  # the same step of the same job: it was told
    again, _ = run_step(tmp_path, *words, SLURM_RESTART_COUNT="1")
    assert again.count("first error: ") == 1


def test_a_mistake_in_an_evaluation_of_many_ranks_is_told_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wsol_dist.cli", "evaluate", "molt-imagenet", "--procs", "0"]
    text, codes = run_step(tmp_path, *command, world=2)
    assert codes == [2, 2]
    assert text.count("error: --procs: ") == 1, text


@pytest.mark.parametrize("missing", ["SLURM_STEP_ID", "SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS"])
def test_a_process_alone_keeps_its_exception(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"}:
        monkeypatch.setenv(name, "8")
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match="the cup is empty"), told_once(tmp_path):
        raise ValueError("the cup is empty")
    assert not list(tmp_path.iterdir())
