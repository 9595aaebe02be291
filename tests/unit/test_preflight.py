"""What is refused before a training starts, and what must not be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.hue import config, write_checkpoint
from wsol_dist.errors import UserError
from wsol_dist.report.run_data import distinct_names
from wsol_dist.runs.checkpoint import save_weights
from wsol_dist.training import memory
from wsol_dist.training.memory import GIB, Waiting, check_memory, free_memory
from wsol_dist.training.preflight import check


def test_a_run_that_goes_on_needs_the_weights_it_started_from_no_more(
    tiny_shards: Path, tmp_path: Path
) -> None:
    init = tmp_path / "init.safetensors"
    recipe = config(tiny_shards, train={"global_batch": 8, "init": [str(init)]})
    with pytest.raises(UserError, match=r"init\.safetensors"):
        check(recipe, world=1, folder=tmp_path / "run")
    save_weights(init, {"colour_C3": torch.zeros(8, 3)}, metadata={})
    check(recipe, world=1, folder=tmp_path / "run")
    init.unlink()
    write_checkpoint(tmp_path / "run", recipe, 10)
    check(recipe, world=1, folder=tmp_path / "run")


def test_cached_files_are_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (
        ("memory.max", f"{8 * GIB}\n"),
        ("memory.current", f"{7 * GIB}\n"),
        ("memory.stat", f"anon {2 * GIB}\nactive_file {2 * GIB}\ninactive_file {3 * GIB}\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert dict(free_memory())["memory (limit of this container or job)"] == 6 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert list(dict(free_memory())) == ["memory"]


def test_batches_that_do_not_fit_are_refused_with_their_size(tiny_shards: Path, tmp_path: Path) -> None:
    waiting = Waiting("data.workers", 2, 8, 16, 224)
    needed = 2 * 8 * 4 * 16 * 3 * 224**2
    waiting.check("memory", needed, cure="lower it")
    with pytest.raises(
        UserError, match=r"2 x 8 loader .* need 0\.14 GiB of memory, 0\.14 GiB are free; lower it"
    ):
        waiting.check("memory", needed - 1, cure="lower it")


def test_only_scoring_inside_training_needs_room_in_dev_shm(
    tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    sections = {"data": {"index": str(tiny_shards), "workers": 8}, "train": {"global_batch": 8}}
    check_memory(config(tiny_shards, workers=1, **sections), image_px=32, world=1)
    with pytest.raises(UserError, match=r"evaluate\.workers: 1 x 1 loader .* of /dev/shm"):
        check_memory(
            config(tiny_shards, workers=1, val={"every_epochs": 1}, **sections), image_px=32, world=1
        )


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a/x/run", "b/x/run", "b/y/run", "b/other")]
    assert distinct_names(folders) == ["a/x/run", "b/x/run", "y/run", "other"]
    assert distinct_names(folders[3:]) == ["other"]
    assert len(set(distinct_names([folders[0], folders[0]]))) == 1  # one folder twice: an end all the same
