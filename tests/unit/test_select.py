"""Which checkpoint is best, and which may not be; and that the best and those in use are never removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from wsol_dist.config.evaluate import ValConfig
from wsol_dist.metrics.select import Candidate, choose_best
from wsol_dist.runs import checkpoint, run_state


def candidates(**values_of: tuple[float, ...]) -> list[Candidate]:
    return [
        Candidate(step=step, values={"step": step} | dict(zip(values_of, values, strict=True)))
        for step, values in enumerate(zip(*values_of.values(), strict=True), start=1)
    ]


def test_the_highest_wins_and_of_equals_the_latest() -> None:
    found = choose_best(candidates(a=(1.0, 3.0, 3.0, 2.0)), metric="a")
    assert (found.best and found.best.step, found.refused) == (3, {})


def test_guards_say_which_may_not_be_chosen_and_why() -> None:
    scored = candidates(s=(1.0, 0.7, 0.6), mean_map=(0.99, 0.4, 0.2))
    found = choose_best(scored, metric="s", guards=("mean_map<=0.9", "step>=3"))
    assert found.best is not None
    assert found.best.step == 3
    assert found.refused == {1: "mean_map 0.99 is not <= 0.9", 2: "step 2 is not >= 3"}
    assert (
        choose_best(scored, metric="s", guards=("other>1",)).refused[1]
        == "has no other, which a guard asks for"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_never_best(value: float) -> None:
    found = choose_best(candidates(a=(value, 1.0)), metric="a")
    assert found.best is not None
    assert found.best.step == 2
    assert choose_best([], metric="a").best is None


@pytest.mark.parametrize("guard", ["a", "a>=", "a>=x", ">=3", "a==3"])
def test_a_guard_that_does_not_parse_is_a_mistake_of_the_recipe(guard: str) -> None:
    with pytest.raises(ValueError, match="a guard is NAME"):
        ValConfig(guards=(guard,))


def test_pruning_keeps_the_newest_the_best_and_those_in_use(tmp_path: Path) -> None:
    for step in range(1, 8):
        checkpoint.step_folder(tmp_path, step).mkdir(parents=True)
    run_state.write_best(tmp_path, {"step": 2})
    with run_state.in_use(tmp_path, 4):
        checkpoint.prune(tmp_path, 2)
        assert [checkpoint.step_of(path) for path in checkpoint.complete_checkpoints(tmp_path)] == [
            2,
            4,
            6,
            7,
        ]
    run_state.write_best(tmp_path, {"step": 6})
    mark = tmp_path / "checkpoints" / ".in-use" / "4"  # of a job that was killed long ago
    mark.touch()
    os.utime(mark, (0, time.time() - 7 * 3600))
    checkpoint.prune(tmp_path, 2)
    assert [checkpoint.step_of(path) for path in checkpoint.complete_checkpoints(tmp_path)] == [6, 7]


def test_a_damaged_pointer_protects_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text("{")
    assert run_state.read_best(tmp_path) is None
    assert run_state.kept_steps(tmp_path) == set()
    assert run_state.finished_step(tmp_path) is None
