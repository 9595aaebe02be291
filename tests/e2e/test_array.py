"""A command cut into tasks: each does its part through submitit on this machine, the last one finishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hue import config, write_checkpoint, write_run
from wsol_dist import cli
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index


def main(argv: list[str]) -> int:
    return cli.run("wsol_dist.launching.array", argv, prog="launch/submit.py")


def words(shards: Path, out: Path) -> list[str]:
    return ["--index", str(shards), "--out", str(out), "--backend", "slic", "--size-px", "16", "--procs", "1"]


@pytest.mark.slow
def test_the_tasks_and_the_end_make_a_whole_column(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    array = ["cluster", "--jobs", "2", "--cluster", "local", "--logs", str(tmp_path / "logs")]
    assert main([*array, *words(tiny_shards, out)]) == 0
    said = capfd.readouterr().out
    assert "part 1/2 done, 10 shards written" in said
    assert "part 2/2 done, 10 shards written" in said
    assert "complete, nothing to do" in said or "complete, 0 shards written" in said
    assert Column.open(out, Index.load(tiny_shards)).value("test", 39) is not None


@pytest.mark.slow
def test_the_trials_of_a_search_are_shared_and_the_end_prints_the_table(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", config(tiny_shards))
    write_checkpoint(tmp_path / "run", config(tiny_shards), 1)
    out = tmp_path / "search"
    array = ["search", str(tmp_path / "run"), "--jobs", "2", "--cluster", "local"]
    array += ["--logs", str(tmp_path / "logs"), "--index", str(tiny_shards), "--out", str(out)]
    assert main([*array, "--trials", "3", "--size-px", "16", "--workers", "0"]) == 0
    said = capfd.readouterr().out
    assert sorted(path.name for path in out.glob("trial-*.json")) == [f"trial-{n:03d}.json" for n in range(3)]
    first, _, table = said.partition("trial 0:")[2].partition("trial 1:")
    assert "trial 2:" in first, "tasks take every second trial"
    assert "val, 24 images" in table
    assert "use them: --refine.labels" in table


def test_dry_run_prints_both_scripts_and_writes_nothing(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    assert main(["cluster", "--jobs", "16", "--dry-run", *words(tiny_shards, out)]) == 0
    said = capsys.readouterr().out
    assert "#SBATCH --array=0-15%16" in said
    assert "--part 1/16" in said
    assert "#SBATCH --dependency=afterany:TASKS" in said
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_its_mistakes_before_anything_is_queued(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [*words(tiny_shards, tmp_path / "labels"), "--split", "tset"]
    assert main(["cluster", "--jobs", "2", "--cluster", "local", *wrong]) == 2
    assert "--split: no split 'tset'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
