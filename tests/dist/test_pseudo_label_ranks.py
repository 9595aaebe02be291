"""Label maps made by two ranks are those of one, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pool import RankPool
from tests.unit.test_multi_label import pack
from tests.unit.test_pseudo_label import RECIPE
from wsol_dist.columns.config import LabelConfig
from wsol_dist.columns.pseudo_labels import PseudoLabelling, write_labels
from wsol_dist.commands.pseudo_label import Options, plan
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.config import CRFConfig


def task_of(recipe: Path, out: Path) -> PseudoLabelling:
    knobs = LabelConfig(ignore_margin=0.05, crf=CRFConfig(iterations=1))
    return plan(
        Options(
            target=str(recipe), out=out, split="train,val", procs=2, workers=0, threshold="0.3", knobs=knobs
        )
    )


def test_two_ranks_write_what_one_writes(
    rank_pool: RankPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "plain.yaml"
    recipe.write_text(RECIPE.format(index=pack(tmp_path / "shards")))
    write_labels(Ranks(), task_of(recipe, tmp_path / "one"))
    rank_pool.run(write_labels, task_of(recipe, tmp_path / "two"))
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.tar")} for name in ("one", "two")
    )
    assert len(one) >= 4
    assert one == two
    assert "seg_miou" in capsys.readouterr().out
