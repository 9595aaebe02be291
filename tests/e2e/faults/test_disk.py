"""Disks that are full or read-only: a clear line, and nothing half-written that looks whole."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.e2e.faults.process import finish, message, small_files, start
from tests.e2e.faults.table import fault
from wsol_dist.runs import checkpoint

SHORT, LONG = 75, 76
SIZES = ("--num-train", "96", "--num-val", "24", "--num-test", "40", "--image-px", "96")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_packing_onto_a_full_disk(prepared: Path, workers: str) -> None:
    """Files of 100 kB are too large here, as if the disk was full there."""
    words = (
        "shards",
        "pack",
        "collage",
        "--out",
        "out",
        *SIZES,
        "--samples-per-shard",
        "48",
        "--workers",
        workers,
    )
    code, said = finish(start(prepared, *words, limit=small_files(100_000)))
    assert code == 2, said
    row = fault("disk full while packing")
    assert row.pattern(prepared, file="out/train-00000...").fullmatch(message(said)), said
    left = {path.name for path in (prepared / "out").iterdir()}
    assert left == {"packing.started"}
    code, said = finish(start(prepared, *words))
    assert code == 0, said


@pytest.mark.slow
def test_a_checkpoint_onto_a_full_disk(prepared: Path) -> None:
    words = ("train", "recipe.yaml", "--out", str(prepared / "run"), "--data.workers", "0")
    code, said = finish(start(prepared, *words, limit=small_files(100_000)))
    assert code == 2, said
    row = fault("disk full while a checkpoint is written")
    assert row.pattern(prepared).fullmatch(message(said)), said
    assert checkpoint.complete_checkpoints(prepared / "run") == []
    assert not any((prepared / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_read_only_run_folder(prepared: Path) -> None:
    unshare = shutil.which("unshare", path="/usr/bin:/bin")
    own = (str(unshare), "--mount", "--propagation", "private", "--")
    if unshare is None or subprocess.run([*own, "/bin/true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount: not here")
    run = prepared / "run"
    run.mkdir()
    mount = f'/bin/mount -t tmpfs -o ro none {run} && exec "$@"'
    words = ("train", "recipe.yaml", "--out", str(run))
    code, said = finish(start(prepared, *words, wrapper=(*own, "/bin/sh", "-c", mount, "sh")))
    assert code == 2, said
    row = fault("run folder on a read-only disk")
    assert row.pattern(prepared).fullmatch(message(said)), said


@pytest.mark.slow
@pytest.mark.parametrize("length", [SHORT, LONG])
def test_a_temporary_folder_with_a_long_name(prepared: Path, length: int) -> None:
    """The longest that is allowed works."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        folder = Path(place) / ("x" * (length - len(place) - 1))
        folder.mkdir()
        assert len(str(folder)) == length
        words = ("train", "recipe.yaml", "--out", "run", "--val.every-epochs", "1", "--evaluate.workers", "1")
        code, said = finish(start(prepared, *words, environment={"TMPDIR": str(folder)}))
    if length == SHORT:
        assert code == 0, said
        return
    assert code == 2, said
    row = fault("a temporary folder with a long name")
    assert row.pattern(prepared, folder=folder, length=length).fullmatch(message(said)), said
