"""What tasks tell of their samples, and what is refused when it is put together."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.dist.runs import tiny
from tests.forkserver import FRESH
from wsol_dist.cli import main
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import training_batches
from wsol_dist.errors import RankError, UserError
from wsol_dist.launching import rank_report
from wsol_dist.launching.rank_report import check, reports_folder, tell
from wsol_dist.recipe import Config, dump

WORLD = 8


def told(config: Config, run: Path, monkeypatch: pytest.MonkeyPatch, *, num_nodes: int = 2) -> list[Path]:
    """The reports of eight tasks on two nodes, one after the other."""
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(dump(config))
    per_node = WORLD // num_nodes
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(per_node))))
    for rank in range(WORLD):
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        monkeypatch.setenv("SLURM_NTASKS", str(WORLD))
        monkeypatch.setenv("SLURM_LOCALID", str(rank % per_node))
        node = os.uname_result(("Linux", f"n{rank // per_node}", "", "", ""))
        monkeypatch.setattr(rank_report.os, "uname", lambda node=node: node)
        tell(run)
    return sorted(reports_folder(run).iterdir())


def change(report: Path, **fields: object) -> None:
    report.write_text(json.dumps(json.loads(report.read_text()) | fields))


def rows_of(report: Path) -> dict[str, list[int]]:
    return json.loads(report.read_text())["rows"]


@pytest.fixture
def reports(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    return told(tiny(tiny_shards, global_batch=40), tmp_path / "run", monkeypatch)


def test_every_sample_is_told_once_and_the_verdict_says_so(reports: list[Path], tmp_path: Path) -> None:
    count = Counter(row for report in reports for row in rows_of(report)["training"])
    assert (len(count), set(count.values())) == (80, {1})
    said = "\n".join(check(tmp_path / "run"))
    assert "8 of 8 told, 2 nodes x 4, 1 machine, each with a GPU of its own (8)" in said
    assert "epoch 0: 80 of 96 samples are read, each by one rank, none twice; 16 are left out" in said
    assert "val       scored by these ranks: 24 of 24 samples" in said
    assert "8 training ranks on 2 nodes of one machine take 4.0 GiB" in said


def test_the_rows_are_those_that_the_stream_reads(
    reports: list[Path], tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream's reader is asked for the very rows, in their order."""
    from wsol_dist.data.stream.order import TrainingOrder
    from wsol_dist.data.stream.stream import ShardReader

    index, config = Index.load(str(tiny_shards)), tiny(tiny_shards, global_batch=40)
    rows = index.rows("train")
    order = TrainingOrder(
        shard_of_row=rows.shard, data=config.data, seed=config.seed, global_batch=40, accumulation=1,
        rank=3, world=WORLD, first_step=0, last_step=2,
    )  # fmt: skip
    read: list[int] = []
    image = ShardReader.image
    monkeypatch.setattr(ShardReader, "image", lambda self, row: (read.append(row), image(self, row))[1])
    assert len(list(training_batches(index, config.data, order=order, image_px=32))) == 2
    assert read == rows_of(reports[3])["training"]


def test_pairs_of_classes_may_come_twice(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    config = tiny(tiny_shards, global_batch=32)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, order="class_pairs"))
    told(config, tmp_path / "run", monkeypatch)
    assert any("each by one rank" in line for line in check(tmp_path / "run"))


@pytest.mark.parametrize("split", ["training", "test"])
def test_a_sample_that_two_ranks_read_is_refused(reports: list[Path], tmp_path: Path, split: str) -> None:
    other = rows_of(reports[0])
    change(reports[1], rows=rows_of(reports[1]) | {split: other[split]})
    with pytest.raises(RankError, match=split):
        list(check(tmp_path / "run"))


def test_a_missing_task_is_refused(reports: list[Path], tmp_path: Path) -> None:
    reports[5].unlink()
    with pytest.raises(RankError, match=r"8 reports expected in .*, found 7"):
        list(check(tmp_path / "run"))


def test_ranks_that_share_a_gpu_are_named(reports: list[Path], tmp_path: Path) -> None:
    change(reports[1], gpu="0")
    assert "2 ranks share n0 GPU 0" in next(check(tmp_path / "run"))


def test_memory_counts_the_nodes_of_a_machine_together(reports: list[Path], tmp_path: Path) -> None:
    for report in reports:
        change(report, free_gib=2.2)
    with pytest.raises(UserError, match=r"take 4.0 GiB .*, 2.2 GiB are free; .*RANKS_PER_NODE=2 sbatch"):
        list(check(tmp_path / "run"))
    assert (
        "4 training ranks on 2 nodes of one machine take 2.0 GiB"
        in list(check(tmp_path / "run", ranks_per_node=2))[-1]
    )
    for report in reports[:4]:
        change(report, machine="another")
    assert "4 training ranks on n" in list(check(tmp_path / "run"))[-1]


def test_telling_imports_no_torch(reports: list[Path], tmp_path: Path) -> None:
    code = "import sys; from wsol_dist.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    environment = os.environ | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}
    words = [FRESH, "-c", code, "ranks", "tell", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rank   0 of 1  ")


def test_prepare_checks_and_writes_the_run_folder(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(dump(tiny(tiny_shards)))
    words = ["ranks", "prepare", str(recipe), "--out", str(tmp_path / "run")]
    assert main([*words, "--world", "5"]) == 2
    assert "train.global_batch" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--world", "4"]) == 0
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert main(["ranks", "tell", str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err
    assert main(["ranks", "tel"]) == 2
