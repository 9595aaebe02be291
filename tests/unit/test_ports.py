"""Ports where the ranks of a job meet."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from wsol_dist.processes.ports import rendezvous_port

BEGIN = Path(__file__).parents[2] / "slurm" / "begin.sh"
FIRST_OUTGOING = 32768
"""From here on Linux gives ports to outgoing connections."""


@pytest.mark.parametrize("job_id", ["1", "11999", "12000", "14816", "4294967295", "77_3"])
def test_no_outgoing_connection_can_hold_it(job_id: str) -> None:
    assert 20000 <= rendezvous_port(job_id) < FIRST_OUTGOING


def test_the_next_jobs_have_another_one() -> None:
    assert len({rendezvous_port(str(job)) for job in range(14_000, 14_100)}) == 100


def test_job_scripts_and_submitit_compute_the_same() -> None:
    (rule,) = re.findall(r"MASTER_PORT=(\$\(\(.*?\)\))", BEGIN.read_text())
    for job in (1, 14816, 4294967295):
        said = subprocess.run(
            ["bash", "-c", f"echo {rule}"], env={"SLURM_JOB_ID": str(job)}, capture_output=True, check=True
        )
        assert int(said.stdout) == rendezvous_port(str(job))
