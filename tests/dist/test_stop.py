"""A run that is told to stop goes on as if it had not been: its losses are those of an uninterrupted one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.dist.runs import alone, losses, stored, tiny
from tests.dist.test_validation_ranks import recipe
from tests.forkserver import FRESH
from tests.pool import RankPool
from wsol_dist.data.shards.index import Index
from wsol_dist.evaluator.during_training import Validation
from wsol_dist.log.jsonl import read_metrics
from wsol_dist.processes.ranks import Ranks
from wsol_dist.processes.stop import SIGNALS, Stop
from wsol_dist.recipe import Config
from wsol_dist.runs import checkpoint
from wsol_dist.runs.run_state import finished_step
from wsol_dist.training.preflight import prepare_folder
from wsol_dist.training.trainer import Trainer

LOGGED = 5
"""Steps between two log rows: a stop falls between two."""


def train(
    own: Ranks, config: Config, folder: Path, *, signalled: tuple[int, int, int] | None = None
) -> tuple[int, bool, int]:
    """First step, whether it came to the end, and the last whole checkpoint's step.

    Args:
        signalled: rank, step and signal: that rank gets it while it computes that step, counted from 1.
    """
    own.main_first(lambda: prepare_folder(config, folder))
    validation = Validation(config, folder, own) if config.val.every_epochs else None
    with Stop() as stop:
        trainer = Trainer(
            config, folder, Index.load(config.data.index), own, validation=validation, stop=stop
        )
        engine_step = trainer.engine.step

        def step(number: int, *args: Any, **kwargs: Any) -> Any:
            if signalled is not None and signalled[:2] == (own.rank, number + 1):
                os.kill(os.getpid(), signalled[2])
            return engine_step(number, *args, **kwargs)

        trainer.engine.step = step  # type: ignore[method-assign]
        through = trainer.run()
    return trainer.first_step, through, checkpoint.step_of(checkpoint.complete_checkpoints(folder)[-1])


def train_signalled(own: Ranks, config: Config, folder: Path, rank: int, step: int, number: int) -> Any:
    return train(own, config, folder, signalled=(rank, step, number))


def long(shards: Path, *, log_every_steps: int = LOGGED, **train: Any) -> Config:
    """Twelve steps, checkpoints after six and twelve."""
    config = tiny(shards, **({"epochs": 2, "checkpoint_every_epochs": 1} | train))
    return Config(
        **{**vars(config), "track": type(config.track)(wandb="off", log_every_steps=log_every_steps)}
    )


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_the_losses_are_those_of_an_uninterrupted_run_bit_for_bit(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path, zero: int
) -> None:
    config = long(tiny_shards, zero=zero)
    assert rank_pool.run(train, config, tmp_path / "whole") == [(0, True, 12)] * 2
    # One rank alone hears it, in step 7; all stop together behind the step after the next boundary.
    number = SIGNALS[zero % len(SIGNALS)]
    found = rank_pool.run(train_signalled, config, tmp_path / "stopped", zero % 2, 7, number)
    assert found == [(0, False, 8)] * 2
    assert finished_step(tmp_path / "stopped") is None
    assert sorted(losses(tmp_path / "stopped")) == [5, 6]
    assert rank_pool.run(train, config, tmp_path / "stopped") == [(8, True, 12)] * 2
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert sorted(losses(tmp_path / "whole")) == [5, 6, 10, 12]
    whole, stopped = stored(tmp_path / "whole"), stored(tmp_path / "stopped")
    assert whole.keys() == stopped.keys()
    assert all(value.equal(stopped[name]) for name, value in whole.items())


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_it_goes_on_at_another_number_of_ranks(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path, zero: int
) -> None:
    config = long(tiny_shards, zero=zero, drop_path=0.0, epochs=1.5)
    rank_pool.run(train, config, tmp_path / "whole")
    rank_pool.run(train_signalled, config, tmp_path / "run", 1, 2, signal.SIGTERM)
    assert train(alone(), config, tmp_path / "run", signalled=(0, 5, signal.SIGUSR2)) == (3, False, 6)
    assert rank_pool.run(train, config, tmp_path / "run") == [(6, True, 9)] * 2
    found = losses(tmp_path / "run")
    assert found == pytest.approx(losses(tmp_path / "whole"), abs=2e-5)
    state = checkpoint.read_state(checkpoint.complete_checkpoints(tmp_path / "run")[-1])
    assert (state.position, state.world) == (9 * 16, 2)


def test_a_stop_at_a_scoring_leaves_that_to_the_continued_run(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path
) -> None:
    config = recipe(tiny_shards, every_epochs=0.5)
    rank_pool.run(train, config, tmp_path / "whole")
    found = rank_pool.run(train_signalled, config, tmp_path / "run", 0, 5, signal.SIGUSR2)
    assert found == [(0, False, 6)] * 2
    assert len(list((tmp_path / "run" / "eval").glob("*.json"))) == 1
    assert rank_pool.run(train, config, tmp_path / "run") == [(6, True, 12)] * 2
    told = [_numbers(tmp_path / name) for name in ("whole", "run")]
    assert told[0] == told[1]
    assert len(told[0]) == 12


def _numbers(folder: Path) -> list[dict[str, Any]]:
    """Every row of the log, without what is speed or memory."""
    measured = ("time", "train/images_per_s", "train/data_wait_pct", "train/memory_gib")
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in measured} for row in rows]


def test_a_diverged_run_that_is_stopped_leaves_no_checkpoint(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path
) -> None:
    config = long(tiny_shards, lr=1e30, clip=0.0, schedule="constant")
    with pytest.raises(AssertionError, match="training diverged: the loss is nan at step 4"):
        rank_pool.run(train_signalled, config, tmp_path / "run", 0, 3, signal.SIGTERM)
    assert checkpoint.complete_checkpoints(tmp_path / "run") == []


def test_signals_are_heard_inside_the_block_only() -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with Stop() as stop:
        answer = stop.ask(Ranks())
        os.kill(os.getpid(), signal.SIGUSR1)
        assert answer() == ""
        assert stop.ask(Ranks())() == "SIGUSR1"
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_before_the_first_step_a_signal_does_not_wait_for_the_main_thread() -> None:
    heard, busy = [], True
    with Stop(at_once=lambda name: heard.append((name, busy))) as stop:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        hashlib.pbkdf2_hmac(
            "sha256", b"", b"", 4_000_000
        )  # seconds in a library: no handler of Python's runs
        busy = False
        assert stop.ask(Ranks())() == "SIGUSR2"
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.2)
    assert heard == [("SIGUSR2", True)]


def test_where_something_is_to_be_saved_it_waits_for_a_step() -> None:
    heard: list[str] = []
    with Stop(at_once=heard.append) as stop:
        stop.saves = True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        assert heard == []
        with stop.nothing_to_save():  # say while the checkpoint that was just written is scored
            assert heard == ["SIGTERM"]
        assert stop.saves


def test_a_signal_while_wsol_train_is_imported_is_heard_by_it(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from wsol_dist import cli
from wsol_dist.processes.stop import Stop

class Training:  # what the command's module is, once it is imported
    from wsol_dist.commands.show import Options

    def run(options):
        os.kill(os.getpid(), signal.SIGUSR2)
        with Stop() as stop:
            print("heard", stop._heard)
        return 3

sys.modules["wsol_dist.commands.train"] = Training
code = cli.main(["train", "quickstart"])
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
sys.exit(code)
"""
    done = subprocess.run([FRESH, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (3, f"heard {signal.SIGUSR2:d}\n"), done.stderr
