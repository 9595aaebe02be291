"""A training on several ranks as plain processes, which nobody watches: each must notice by itself what happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.dist.runs import losses, tiny
from tests.e2e.faults.conftest import RANK_VARIABLES
from tests.e2e.reliability.inject import NOTE
from wsol_dist.processes.ports import free_port
from wsol_dist.recipe import dump
from wsol_dist.runs import checkpoint

ROOT = Path(__file__).parents[3]
STEPS = 24
TIMEOUT_S = 280
"""For a start and a training; a machine that others use takes many times what it needs."""
START = (sys.executable, "-m", "tests.e2e.reliability.inject", "none", "0", "0")


def write_recipe(shards: Path, folder: Path) -> None:
    """`recipe.yaml`: 24 steps, a checkpoint after each third."""
    config = tiny(shards, "short", epochs=4)
    (folder / "recipe.yaml").write_text(dump(config))


def environment(**more: str) -> dict[str, str]:
    """Of a process that is no rank yet."""
    own = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    return own | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


class Job:
    """`wsol train recipe.yaml --out run` in a folder, on `world` ranks."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        world: int = 2,
        fault: tuple[str, int, int] = ("none", 0, 0),
        **more: str,
    ) -> None:
        self.folder, self.run, self.started = folder, folder / "run", time.time()
        self.before = max(losses(self.run), default=0) if (self.run / "metrics.jsonl").exists() else 0
        self.ended_s = 0.0
        """From the fault until every process had ended."""
        (folder / NOTE).unlink(missing_ok=True)
        self.log = folder / f"log-{time.monotonic_ns()}"
        command = [*START[:3], *map(str, fault), "train", "recipe.yaml", "--out", "run", *words]
        port = str(free_port())
        self.processes = []
        for rank in range(world):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            own = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **place, **more)
            with self.log.open("a") as log:
                process = subprocess.Popen(
                    command, cwd=folder, env=own, stdout=log, stderr=log, start_new_session=True
                )
            self.processes.append(process)

    def wait(self) -> list[int]:
        """Exit codes in order of rank, of processes that end by themselves."""
        until = time.monotonic() + TIMEOUT_S
        try:
            codes = [one.wait(max(0.1, until - time.monotonic())) for one in self.processes]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.said()}") from None
        finally:
            self.end()
        if (self.folder / NOTE).exists():
            self.ended_s = time.time() - float(json.loads((self.folder / NOTE).read_text())["time"])
        return codes

    def end(self) -> None:
        """Kill what is left."""
        for one in self.processes:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
                one.wait()

    def said(self) -> str:
        """What the ranks printed."""
        return self.log.read_text(errors="replace")

    def back_s(self) -> float:
        """From the start until the first step that the run had not logged before."""
        for line in (self.run / "metrics.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["step"] > self.before and row["time"] >= self.started:
                return float(row["time"]) - self.started
        raise AssertionError("no new step")


def whole_steps(run: Path) -> list[int]:
    """Steps of the checkpoints that look whole; each is read through, so that half of one fails."""
    from wsol_dist.models.weights import read_state

    found = checkpoint.complete_checkpoints(run)
    for path in found:
        assert checkpoint.read_state(path).step == checkpoint.step_of(path)
        assert all(read_state(file) for file in path.rglob("*.safetensors"))
    return [checkpoint.step_of(path) for path in found]
