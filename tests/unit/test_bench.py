"""Every script in bench/ runs, and says what it found in lines that a program can read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forkserver import FRESH

BENCH = Path(__file__).parents[2] / "bench"
SCRIPTS = sorted(path.name for path in BENCH.glob("*.py") if not path.name.startswith("_"))
RATIO = re.compile(r"ratio (\S+) (\d+\.\d+) vs (\S.*)")


def test_there_are_benches() -> None:
    assert {"attention.py", "streaming.py"} <= set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.apart
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_bench_runs_and_ends_with_its_ratios(script: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "WSOL_DATA"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [FRESH if script == "start.py" else sys.executable, str(BENCH / script), "--quick"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [match for line in done.stdout.splitlines() if (match := RATIO.fullmatch(line))]
    assert found, f"no line `ratio NAME VALUE vs PEER` in:\n{done.stdout}"
    assert RATIO.fullmatch(done.stdout.splitlines()[-1]), "the ratios come last"
    names = [match[1] for match in found]
    assert len(set(names)) == len(names)
    assert all(float(match[2]) > 0 for match in found)


def test_the_table_names_every_bench() -> None:
    table = (BENCH / "README.md").read_text()
    assert [script for script in SCRIPTS if f"`{script}`" not in table] == []
