"""`make audit`: what is vulnerable is named, and what could not be looked up is never called fine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.forkserver import FRESH

SCRIPT = Path(__file__).parents[2] / ".ci/audit.py"
FINE = {"name": "numpy", "version": "2.4", "vulns": []}
SKIPPED = {"name": "wandb", "skip_reason": "Dependency not found"}
VULNERABLE = {"name": "jinja2", "version": "2.4", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.5"]}]}


def audit(tmp_path: Path, answers: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the script with a stand-in for uv and the vulnerability services, which tests cannot rely on."""
    uv = tmp_path / "uv"
    uv.write_text(
        f"#!{FRESH}\nimport json, sys\nanswers = json.loads({json.dumps(json.dumps(answers))})\n"
        "answer = answers[sys.argv[sys.argv.index('--vulnerability-service') + 1]]\n"
        "sys.exit('ConnectionError: no route') if answer is None else print(json.dumps({'dependencies': answer}))\n"
    )
    uv.chmod(0o755)
    command = [FRESH, str(SCRIPT), str(uv), str(tmp_path / "cache"), "some.lock"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("pypi", "osv", "code", "words"),
    [
        ([FINE], None, 0, "some.lock: 1 packages, no known vulnerability (pypi)"),
        ([FINE, VULNERABLE], None, 1, "some.lock: jinja2 2.4: PYSEC-1, fixed in 2.5"),
        ([SKIPPED], [FINE], 0, "some.lock: 1 packages, no known vulnerability (osv)"),
        ([FINE, SKIPPED], [FINE, SKIPPED], 3, "some.lock: not audited: 1 packages were not found there (wandb, ...)"),
        (None, None, 3, "some.lock: not audited: ConnectionError; no internet, or no vulnerability service"),
    ],
)  # fmt: skip
def test_exit_code_and_words(tmp_path: Path, pypi: Any, osv: Any, code: int, words: str) -> None:
    run = audit(tmp_path, {"pypi": pypi, "osv": osv})
    assert run.returncode == code, run.stderr
    assert run.stdout.startswith(words)
    assert run.stdout.count("\n") == 1
