"""Memory that runs out, told in one line. What the libraries raise is provoked, not imitated."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.e2e.faults.process import message
from tests.e2e.faults.table import fault
from tests.order import order_alone
from wsol_dist.cli import main
from wsol_dist.config.data import DataConfig
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import training_batches
from wsol_dist.errors import as_user_error
from wsol_dist.training import memory


def test_too_little_host_memory(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel's file is replaced: no test may take all memory of the machine that it runs on."""
    (prepared / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 32000 kB\n")
    monkeypatch.setattr(memory, "MEMORY_INFO", prepared / "meminfo")
    words = ["--data.workers", "64", "--train.global-batch", "96"]
    assert main(["train", str(prepared / "recipe.yaml"), "--out", str(prepared / "run"), *words]) == 2
    said = message(capsys.readouterr().err)
    assert fault("too little host memory").pattern(prepared).fullmatch(said), said
    assert not (prepared / "run" / "metrics.jsonl").exists()


def test_out_of_host_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert fault("out of host memory").pattern(tmp_path).fullmatch(str(as_user_error(error.value)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_out_of_gpu_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert fault("out of GPU memory").pattern(tmp_path).fullmatch(str(as_user_error(error.value)))


def test_a_loader_process_is_killed(tiny_shards: Path, tmp_path: Path) -> None:
    index = Index.load(tiny_shards)
    order = order_alone(index, DataConfig(), global_batch=8, last_step=10_000)
    batches = iter(training_batches(index, DataConfig(workers=1), order=order, image_px=24))
    next(batches)
    pid = batches._workers[0].pid  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeError) as error:
        for _ in batches:
            pass
    row = fault("a loader process is killed")
    assert row.pattern(tmp_path, pid=pid).fullmatch(str(as_user_error(error.value))), error.value


def test_a_bug_keeps_its_traceback() -> None:
    assert as_user_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert as_user_error(KeyError("a")) is None
