"""A whole job on this machine with a W&B key, an open umask, and a folder whose name a shell would run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dist.runs import tiny
from wsol_dist.recipe import dump

ROOT = Path(__file__).parents[2]
KEY = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2"
HOSTILE = "a b'c\"d $(touch pwned) `touch pwned` ;touch pwned"

pytestmark = pytest.mark.slow


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder whose name leaves room for those of sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.timeout(900)
def test_no_key_is_written_no_shell_runs_words_and_nobody_else_may_write(
    tiny_shards: Path, tmp_path: Path, short: Path
) -> None:
    text = dump(tiny(tiny_shards, "short", epochs=0.5)).replace("wandb: 'off'", "wandb: offline")
    assert "wandb: offline" in text
    (tmp_path / "recipe.yaml").write_text(text)
    command = [
        sys.executable, str(ROOT / "launch/submit.py"), "recipe.yaml", "--cluster", "local", "--procs-per-node", "1",
        "--gpus-per-node", "0", "--out", HOSTILE, "--name", HOSTILE, "--splits", "val",
    ]  # fmt: skip
    environment = os.environ | {
        "WANDB_API_KEY": KEY,
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(short),
    }
    for words in ([*command, "--dry-run"], command):
        run = subprocess.run(
            words, cwd=tmp_path, env=environment, umask=0, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert KEY not in run.stdout + run.stderr
    out = tmp_path / HOSTILE
    assert (out / "finished").is_file()
    assert list(out.glob("wandb/offline-run-*/*.wandb"))
    files = [
        path
        for top in (tmp_path, short)
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert not [path for path in tmp_path.rglob("pwned")]
    assert not [
        path
        for path in (out, *out.rglob("*"))
        if path.lstat().st_mode & stat.S_IWOTH and not path.is_symlink()
    ]
