"""Commands as processes of their own, for what needs one: kills, limits, an environment."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e.faults.conftest import RANK_VARIABLES

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 150


def start(
    tmp: Path,
    *arguments: str,
    environment: dict[str, str] | None = None,
    limit: Callable[[], None] | None = None,
    wrapper: tuple[str, ...] = (),
    python: str = sys.executable,
) -> subprocess.Popen[str]:
    """`wsol ARGUMENTS` in a folder, with both outputs in one pipe."""
    inherited = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    return subprocess.Popen(
        [*wrapper, python, "-m", "wsol_dist.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp,
        # Python writes what fits of a module's bytecode onto a full disk, and believes it for ever after.
        env=inherited
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        | (environment or {}),
        preexec_fn=limit,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output; the last line is the message, without `error: `."""
    text, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, text


def message(text: str) -> str:
    """The one line that a person is to read."""
    assert "Traceback" not in text, text
    told = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, text
    return told[0].removeprefix("error: ")


def small_files(num_bytes: int) -> Callable[[], None]:
    """A disk that is full after so many bytes of a file, as far as a process can tell."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
