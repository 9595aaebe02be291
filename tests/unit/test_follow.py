"""An evaluator that follows a run: every checkpoint once, the best kept, an end with training's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forkserver import FRESH
from tests.hue import config, write_checkpoint, write_run
from wsol_dist.cli import main
from wsol_dist.evaluator import follow as following
from wsol_dist.evaluator import publish as publishing
from wsol_dist.evaluator.during_training import Validation
from wsol_dist.launching.submission import following as arguments_of
from wsol_dist.log.jsonl import read_metrics
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import Config
from wsol_dist.runs import checkpoint
from wsol_dist.runs.run_state import BEST_FILE, in_use, kept_steps, mark_finished, read_best

VAL = {"look_every_s": 0.05, "silence_minutes": 5.0}
SCALES = {10: 0.2, 20: 1.0, 30: 0.5}


@pytest.fixture
def recipe(tiny_shards: Path) -> Config:
    return config(tiny_shards, val=VAL)


@pytest.fixture
def run(recipe: Config, tmp_path: Path) -> Path:
    """A run with one checkpoint, still training."""
    write_run(tmp_path / "run", recipe)
    write_checkpoint(tmp_path / "run", recipe, 10, scale=SCALES[10])
    return tmp_path / "run"


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs something beside the test, and lets it end."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.02)


def records(run: Path, split: str) -> dict[int, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((run / "eval").glob(f"{split}-step-*.json"))]
    return {one["step"]: one for one in found}


def gt_known(record: dict[str, Any]) -> float:
    return next(number["value"] for number in record["metrics"] if number["name"] == "gt_known")


def test_each_checkpoint_is_scored_while_training_goes_on_and_test_once_at_the_end(
    run: Path, recipe: Config, meanwhile: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def train() -> None:
        for before, step in ((10, 20), (20, 30)):
            wait_for(run / "eval" / f"val-step-{before:08d}.json")
            write_checkpoint(run, recipe, step, scale=SCALES[step])
        mark_finished(run, 30)

    meanwhile(train)
    assert main(["evaluate", str(run), "--follow", "--final-split", "test"]) == 0
    val = records(run, "val")
    scores = {step: gt_known(one) for step, one in val.items()}
    assert list(val) == [10, 20, 30]
    assert len(set(scores.values())) > 1  # else any of them would be the best
    best = max(scores, key=lambda step: (scores[step], step))
    assert read_best(run) == {
        "step": best,
        "checkpoint": f"checkpoints/step-{best:08d}",
        "metric": "gt_known",
        "value": scores[best],
        "split": "val",
        "record": f"eval/val-step-{best:08d}.json",
    }
    (step, test), *more = records(run, "test").items()
    assert (step, more) == (best, [])
    assert test["threshold"] == val[best]["threshold"] | {
        "source": "val",
        "from": f"eval/val-step-{best:08d}.json",
    }
    rows = read_metrics(run / "metrics-evaluate.jsonl")
    assert [row["step"] for row in rows if "eval/val/gt_known" in row] == [10, 20, 30]
    assert "training is through after step 30" in capsys.readouterr().out
    assert kept_steps(run) == {best}  # and nothing is marked as in use any more
    checkpoint.prune(run, 1)
    assert {best, 30} == {checkpoint.step_of(path) for path in checkpoint.complete_checkpoints(run)}
    assert main(["evaluate", str(run), "--step", "best", "--split", "val"]) == 0


def test_started_again_it_scores_nothing_twice(
    run: Path, recipe: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (20, 30):
        write_checkpoint(run, recipe, step, scale=SCALES[step])
    scored: list[tuple[str, str]] = []
    score = following.score

    def counted(method: Any, work: Any, *, split: str, **rest: Any) -> Any:
        scored.append((work.checkpoint, split))
        if len(scored) == 2:  # killed in the middle of the second
            raise KeyboardInterrupt
        return score(method, work, split=split, **rest)

    monkeypatch.setattr(following, "score", counted)
    mark_finished(run, 30)
    follow = ["evaluate", str(run), "--follow", "--final-split", "test", "--final", "last"]
    with pytest.raises(KeyboardInterrupt):
        main(follow)
    assert list(records(run, "val")) == [10]
    written = (run / "eval" / "val-step-00000010.json").stat().st_mtime_ns
    # Killed between its record and its row in the log, too.
    (run / "metrics-evaluate.jsonl").write_text("")
    assert main(follow) == 0
    assert scored == [
        ("step-00000010", "val"),
        ("step-00000020", "val"),
        ("step-00000020", "val"),
        ("step-00000030", "val"),
        ("step-00000030", "test"),
    ]
    assert (run / "eval" / "val-step-00000010.json").stat().st_mtime_ns == written
    rows = [json.loads(line) for line in (run / "metrics-evaluate.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/val/gt_known" in row] == [10, 20, 30]
    assert main(follow) == 0
    assert len(scored) == 5
    assert "was scored before with this threshold" in capsys.readouterr().out
    assert len((run / "test-scorings.jsonl").read_text().splitlines()) == 1


def test_killed_before_the_best_was_named_it_is_named_when_started_again(
    run: Path, recipe: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run / "checkpoints")
    for step, like in ((10, 20), (20, 10)):  # the last is the best
        write_checkpoint(run, recipe, step, scale=SCALES[like])
    mark_finished(run, 20)
    update_best = following.update_best

    def killed(work: Any, track: Any) -> None:
        if work.step == 20:
            raise KeyboardInterrupt
        update_best(work, track)

    monkeypatch.setattr(following, "update_best", killed)
    follow = ["evaluate", str(run), "--follow", "--final-split", "test"]
    with pytest.raises(KeyboardInterrupt):
        main(follow)
    monkeypatch.undo()
    scores = {step: gt_known(one) for step, one in records(run, "val").items()}
    assert scores[20] > scores[10]
    assert (read_best(run) or {})["step"] == 10  # what the kill left
    assert main(follow) == 0
    assert (read_best(run) or {})["step"] == 20
    assert list(records(run, "test")) == [20]


def test_killed_before_training_named_the_best_it_is_named_by_the_next_one(run: Path, recipe: Config) -> None:
    mark_finished(run, 10)
    assert main(["evaluate", str(run), "--follow"]) == 0
    best = read_best(run)
    (run / BEST_FILE).unlink()
    assert best is not None
    assert Validation(recipe, run, Ranks()).scored(10)
    assert read_best(run) == best


def test_a_scoring_of_test_is_on_record_and_in_the_log_wherever_it_was_killed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark_finished(run, 10)
    follow = ["evaluate", str(run), "--follow", "--final-split", "test"]
    save = publishing.record.save

    def killed(evaluation: Any, *arguments: Any, **rest: Any) -> Path:
        path = save(evaluation, *arguments, **rest)
        if evaluation.split == "test":
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(publishing.record, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        main(follow)
    monkeypatch.undo()
    test = records(run, "test")[10]
    for _ in range(2):
        assert main(follow) == 0
        assert "was scored before with this threshold" in capsys.readouterr().out
        (line,) = map(json.loads, (run / "test-scorings.jsonl").read_text().splitlines())
        assert (line["split"], line["step"], line["threshold"]) == ("test", 10, test["threshold"])
        written = [json.loads(row) for row in (run / "metrics-evaluate.jsonl").read_text().splitlines()]
        (row,) = [row for row in written if "eval/test/threshold" in row]
        assert (row["step"], row["eval/test/gt_known"]) == (10, gt_known(test))


def test_other_weights_under_the_same_step_are_scored_anew(run: Path, recipe: Config) -> None:
    mark_finished(run, 10)
    assert main(["evaluate", str(run), "--follow"]) == 0
    before = records(run, "val")[10]
    shutil.rmtree(run / "checkpoints")
    write_checkpoint(run, recipe, 10, scale=SCALES[20])
    assert main(["evaluate", str(run), "--follow"]) == 0
    assert records(run, "val")[10]["weights"] != before["weights"]


def test_a_checkpoint_is_kept_while_it_is_scored(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score = following.score

    def pruned_meanwhile(*arguments: Any, **rest: Any) -> Any:
        for step in (20, 30):
            checkpoint.step_folder(run, step).mkdir()
        checkpoint.prune(run, 1)
        shutil.rmtree(checkpoint.step_folder(run, 30))
        return score(*arguments, **rest)

    monkeypatch.setattr(following, "score", pruned_meanwhile)
    mark_finished(run, 10)
    assert main(["evaluate", str(run), "--follow"]) == 0
    assert [path.name for path in checkpoint.complete_checkpoints(run)] == ["step-00000010"]
    best = read_best(run)
    assert best is not None
    assert best["step"] == 10


def test_a_training_that_died_ends_it_with_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(run), "--follow", "--val.silence-minutes", "0.02"]
    assert main(arguments) == 1
    assert list(records(run, "val")) == [10]
    said = " ".join(capsys.readouterr().out.split())
    assert "training is silent" in said
    assert "no checkpoint and no log row for 0.02 minutes (val.silence_minutes)" in said


def test_guards_keep_a_checkpoint_from_being_the_best(
    run: Path, recipe: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (20, 30):
        write_checkpoint(run, recipe, step, scale=SCALES[step])
    mark_finished(run, 30)
    assert main(["evaluate", str(run), "--follow", "--val.guards", "step>=30"]) == 0
    best = read_best(run)
    assert best is not None
    assert best["step"] == 30
    assert "step-00000010 cannot be the best: step 10 is not >= 30" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_mark_of_a_job_that_is_gone_does_not_stay(run: Path) -> None:
    with in_use(run, 10):
        assert kept_steps(run) == {10}
        mark = next((run / "checkpoints" / ".in-use").iterdir())
        os.utime(mark, (0, 0))
        assert kept_steps(run) == set()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "val"], "--split: does not go with --follow"),
        (["--step", "10"], "--step: does not go with --follow"),
        (["--save-maps"], "--save-maps: does not go with --follow"),
        (["--final-split", "tset"], "did you mean 'test'"),
        (["--final-split", "val"], "'val' is the held-out split"),
        (["--val.split", "vla"], "did you mean 'val'"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--follow", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (run / "eval").exists()


def test_more_mistakes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "quickstart", "--follow"]) == 2
    assert "follows a run folder, this is a recipe" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--final-split", "test"]) == 2
    assert "goes with --follow" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--step", "best"]) == 2
    assert "has no best.json" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--step", "newest"]) == 2
    assert "the number of a step, best or last" in capsys.readouterr().err


def test_what_the_submitted_evaluator_is_told() -> None:
    assert arguments_of("val,test", "val") == ("--follow", "--final-split", "test")
    assert arguments_of("val", "val") == ("--follow",)
    assert arguments_of("test", "val") == ("--split", "test")


def test_what_training_scores_itself_is_left_to_it(
    run: Path, recipe: Config, meanwhile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `val.every_epochs` training leaves records of some checkpoints; only those between them are scored here."""
    mark_finished(run, 10)
    assert main(["evaluate", str(run), "--follow"]) == 0
    left = (run / "eval" / "val-step-00000010.json").read_bytes()
    (run / "finished").unlink()
    shutil.rmtree(run / "eval")
    looks, scored = [0], []
    look, score = following.Watcher.look, following.score_val

    def counted(watcher: Any) -> Any:
        looks[0] += 1
        if looks[0] == 3:  # the newest was left alone until its record came
            assert scored == []
            (run / "eval").mkdir(exist_ok=True)
            (run / "eval" / "val-step-00000010.json").write_bytes(left)
            write_checkpoint(run, recipe, 20, scale=SCALES[20])
            write_checkpoint(run, recipe, 30, scale=SCALES[30])
        if looks[0] == 6:
            assert scored == [20]  # of 30 nobody knows yet
            mark_finished(run, 30)
        return look(watcher)

    def noted(method: Any, work: Any, **rest: Any) -> None:
        scored.append(work.step)
        score(method, work, **rest)

    monkeypatch.setattr(following.Watcher, "look", counted)
    monkeypatch.setattr(following, "score_val", noted)
    assert main(["evaluate", str(run), "--follow", "--val.every-epochs", "1"]) == 0
    assert scored == [20, 30]
    assert (run / "eval" / "val-step-00000010.json").read_bytes() == left
    rows = read_metrics(run / "metrics-evaluate.jsonl")
    assert [row["step"] for row in rows if "eval/val/gt_known" in row] == [10, 20, 30]


def test_one_job_follows_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark_finished(run, 10)
    # The lock belongs to a process, so the other one must be one.
    hold = (
        "import sys, pathlib; from wsol_dist.runs.lock import FOLLOWING, RunLock; "
        f"lock = RunLock(FOLLOWING); lock.take(pathlib.Path({str(run)!r})); print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([FRESH, "-c", hold], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert main(["evaluate", str(run), "--follow"]) == 2
        assert f"another evaluator follows this run (process {other.pid} on" in capsys.readouterr().err
        assert not records(run, "val")
        other.kill()
    assert main(["evaluate", str(run), "--follow"]) == 0
    assert list(records(run, "val")) == [10]


def test_another_threshold_at_the_end_is_another_scoring(run: Path) -> None:
    mark_finished(run, 10)
    for threshold in ("fixed", "oracle", "oracle"):
        arguments = ["evaluate", str(run), "--follow", "--final-split", "test", "--threshold", threshold]
        assert main(arguments) == 0
    assert records(run, "test")[10]["threshold"]["source"] == "oracle"
    assert len((run / "test-scorings.jsonl").read_text().splitlines()) == 2


def test_where_guards_refuse_all_it_says_what_is_scored_at_the_end(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark_finished(run, 10)
    assert main(["evaluate", str(run), "--follow", "--final-split", "test", "--val.guards", "step>=30"]) == 0
    assert read_best(run) is None
    assert "no checkpoint may be called the best; the last one, of step 10, is scored" in " ".join(
        capsys.readouterr().out.split()
    )
    assert list(records(run, "test")) == [10]


def test_a_checkpoint_that_goes_in_this_moment_is_passed_over(
    run: Path, recipe: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(run, recipe, 20, scale=SCALES[20])
    at_checkpoint = following.at_checkpoint

    def too_late(work: Any, path: Path) -> Any:
        if checkpoint.step_of(path) == 10:
            shutil.rmtree(path)
        return at_checkpoint(work, path)

    monkeypatch.setattr(following, "at_checkpoint", too_late)
    mark_finished(run, 20)
    assert main(["evaluate", str(run), "--follow"]) == 0
    assert list(records(run, "val")) == [20]
    assert "step 10 was removed before it could be scored" in " ".join(capsys.readouterr().out.split())
