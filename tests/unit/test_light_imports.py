"""Modules that a person waits for do not load torch."""

from __future__ import annotations

import subprocess

import pytest

from tests.forkserver import FRESH


@pytest.mark.parametrize(
    "module", ["wsol_dist.recipe", "wsol_dist.cli", "wsol_dist.data.shards.index", "wsol_dist.report.page"]
)
def test_light_modules_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([FRESH, "-c", code], check=False).returncode == 0
