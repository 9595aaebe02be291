"""The evaluator on two gloo ranks and on one: the same integers, rows, files and pictures."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.damage import break_image
from tests.pool import RankPool
from wsol_dist.config import Config, from_dict
from wsol_dist.data.index import Index
from wsol_dist.data.pack import PackOptions, make_plan, pack
from wsol_dist.data.sample import Item, Sample
from wsol_dist.data.stream import ShardReader
from wsol_dist.evaluator import scoring
from wsol_dist.evaluator.evaluate import Evaluation, evaluate_checkpoint
from wsol_dist.evaluator.identity import identify
from wsol_dist.methods.base import Localization, Method, MethodConfig, pick_maps, top_class
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.ranks import Ranks
from wsol_dist.report.rows import read_rows

NUM_TEST = 33
BATCH = 6  # 17 and 16 test images on two ranks: the last batch is cut, and one image in it is padding


@dataclasses.dataclass(frozen=True, kw_only=True)
class HueConfig(MethodConfig):
    """Nothing to set."""


class Hue(Method):
    """Scores each pixel by itself: what shares its batch changes no bit, as it may in a network."""

    Config = HueConfig
    image_px, mean, std = 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, config: HueConfig, num_classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.colour_C3 = torch.nn.Parameter(torch.rand(num_classes, 3, generator=generator) * 2 - 1)

    def localize(self, image_BCHW: Tensor, class_BK: Tensor | None = None) -> Localization:
        distance = (image_BCHW[:, None] - self.colour_C3[None, :, :, None, None]).abs().sum(dim=2)
        score_BChw = -torch.nn.functional.avg_pool2d(distance, 2)
        prob_BC = score_BChw.mean(dim=(2, 3)).softmax(dim=1)
        class_BK = top_class(prob_BC, class_BK)
        return Localization(prob_BC=prob_BC, class_BK=class_BK, map_BKhw=pick_maps(score_BChw, class_BK))


class OddNumber:
    """The tiny shards with an odd number of test images."""

    def __init__(self, folder: Path) -> None:
        self.index = Index.load(folder)
        self.classes = self.index.classes
        self.readers = {split: ShardReader(self.index, split) for split in ("val", "test")}

    def items(self) -> Iterator[Item]:
        for split, reader in self.readers.items():
            for row in range(len(reader) if split == "val" else NUM_TEST):
                yield Item(id=reader.id(row), split=split, labels=reader.rows.labels(row), where=row)

    def read(self, item: Item) -> Sample:
        return self.readers[item.split].sample(int(item.where))


@pytest.fixture(scope="module")
def ragged_shards(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ragged")
    source = OddNumber(tiny_shards)
    options = PackOptions(out=folder, workers=1, samples_per_shard=8, val_fraction=0.0)
    pack(make_plan("odd", source, HueConfig(), options), source, options)
    return folder


@pytest.fixture
def own_ragged_shards(ragged_shards: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(ragged_shards, tmp_path / "shards"))


def config(shards: Path, *, workers: int = 0) -> Config:
    return from_dict(
        {
            "name": "hue",
            "method": {"name": f"{__name__}:Hue"},
            "data": {"index": str(shards)},
            "evaluate": {"size_px": 32, "batch_size": BATCH, "workers": workers, "cases": 5},
            "track": {"wandb": "off"},
        },
        origin="test",
    )


def score(ranks: Ranks, shards: Path, workers: int, threshold: Threshold) -> Evaluation:
    """One rank's evaluation of the test split."""
    return evaluate_checkpoint(
        Hue(HueConfig(), 8),
        shards,
        split="test",
        config=config(shards, workers=workers).evaluate,
        ranks=ranks,
        threshold=threshold,
    )


def assert_equal(one: Evaluation, other: Evaluation) -> None:
    assert one.records == other.records
    assert one.threshold == other.threshold
    assert one.curves.keys() == other.curves.keys()
    assert all(np.array_equal(one.curves[name], other.curves[name]) for name in one.curves)
    assert one.rows == other.rows
    assert one.broken == other.broken
    assert [case.id for case in one.cases] == [case.id for case in other.cases]
    assert all(np.array_equal(a.map_hw, b.map_hw) for a, b in zip(one.cases, other.cases, strict=True))


@pytest.mark.parametrize("threshold", [thresholds.fixed(0.5), thresholds.oracle()], ids=["fixed", "oracle"])
@pytest.mark.parametrize("workers", [0, 1])
def test_two_ranks_count_what_one_counts(
    rank_pool: RankPool, ragged_shards: Path, workers: int, threshold: Threshold
) -> None:
    alone = score(Ranks(), ragged_shards, 0, threshold)
    assert len(alone.rows) == len({row["id"] for row in alone.rows}) == NUM_TEST
    # Neither nothing nor everything is right: equal numbers mean something.
    assert 0 < (alone.value("gt_known") or 0) < 100
    assert 0 < (alone.value("cls_top1") or 0) < 100
    for one in rank_pool.run(score, ragged_shards, workers, threshold):
        assert_equal(one, alone)


@pytest.mark.parametrize("row", [2, NUM_TEST - 1], ids=["rank 0", "the last, alone in its batch"])
def test_a_damaged_image_is_a_named_miss_on_any_rank(
    rank_pool: RankPool, own_ragged_shards: Path, row: int
) -> None:
    whole = score(Ranks(), own_ragged_shards, 0, thresholds.fixed(0.5))
    broken = break_image(own_ragged_shards, "test", row=row)
    alone = score(Ranks(), own_ragged_shards, 0, thresholds.fixed(0.5))
    for one in rank_pool.run(score, own_ragged_shards, 1, thresholds.fixed(0.5)):
        assert_equal(one, alone)
    assert alone.broken == [broken]
    assert len(alone.rows) == NUM_TEST
    lost = {row["id"]: row for row in whole.rows}[broken]
    found = {row["id"]: row for row in alone.rows}[broken]
    assert (found["decoded"], found["gt_known"], found["cls_top1"]) == (False, False, False)
    for name in ("gt_known", "cls_top1", "top1_loc"):
        assert alone.value(name) == pytest.approx((whole.value(name) or 0) - 100 * lost[name] / NUM_TEST)


def run_work(ranks: Ranks, work: scoring.Work) -> None:
    scoring.run(ranks, work)


def test_the_files_are_the_same(rank_pool: RankPool, ragged_shards: Path, tmp_path: Path) -> None:
    work = scoring.Work(
        config=config(ragged_shards),
        identity=identify(config(ragged_shards), str(ragged_shards), weights=None, whole=False),
        index=str(ragged_shards),
        splits=("val", "test"),
        weights=None,
        whole=False,
        step=7,
        checkpoint="step-00000007",
        threshold=None,
        folder=tmp_path / "one",
    )
    run_work(Ranks(), work)
    rank_pool.run(run_work, dataclasses.replace(work, folder=tmp_path / "two"))
    files = [
        sorted(path.relative_to(folder) for path in folder.rglob("*"))
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1]
    for split in ("val", "test"):
        records = [
            json.loads((tmp_path / name / f"eval/{split}-step-00000007.json").read_text())
            for name in ("one", "two")
        ]
        assert all(record.pop("seconds") >= 0 for record in records)
        assert records[0] == records[1]
        rows = [read_rows(tmp_path / name / f"eval/{split}-step-00000007.parquet") for name in ("one", "two")]
        assert rows[0] == rows[1]
    assert records[0]["threshold"]["source"] == "val"
    pictures = [case["picture"] for case in records[0]["cases"]]
    assert len(pictures) == 5
    for picture in pictures:
        assert (tmp_path / "one/eval" / picture).read_bytes() == (
            tmp_path / "two/eval" / picture
        ).read_bytes()
