"""A folder to make mistakes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.faults.fault import GOOD, fill

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def prepared(tmp_path: Path, own_shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with its own shards and a good recipe, in which neither SLURM nor a compiler is to be found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in RANK_VARIABLES:
        monkeypatch.setenv(name, "forget what a command sets")
        monkeypatch.delenv(name)
    (tmp_path / "recipe.yaml").write_text(fill(GOOD, tmp_path))
    return tmp_path
