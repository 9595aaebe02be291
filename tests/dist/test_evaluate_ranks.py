"""The evaluator on two gloo ranks and on one: the same integers, rows, files and pictures."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pickle  # noqa: TID251 - what its own ranks found
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from tests.damage import break_image
from tests.hue import Hue, HueConfig, config
from tests.pool import RankPool
from wsol_dist.data.packing.pack import PackOptions, make_plan, pack
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import RankError
from wsol_dist.evaluator import scoring
from wsol_dist.evaluator.evaluate import Evaluation, evaluate_checkpoint
from wsol_dist.evaluator.identity import identify
from wsol_dist.methods.base import Localization
from wsol_dist.metrics import registry
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.base import Metric
from wsol_dist.metrics.threshold import Threshold
from wsol_dist.processes.ranks import Ranks
from wsol_dist.processes.spawn import spawn
from wsol_dist.recipe import Config
from wsol_dist.runs.rows import read_rows

NUM_TEST = 33
"""In batches of 6 on two ranks: the last batch is cut, and one image in it is padding."""


class OddNumber:
    """The tiny shards with an odd number of test images."""

    def __init__(self, folder: Path, num_test: int = NUM_TEST) -> None:
        self.num_test = num_test
        self.index = Index.load(folder)
        self.classes = self.index.classes
        self.known_counts: dict[str, int] = {}
        self.readers = {split: ShardReader(self.index, split) for split in ("val", "test")}

    def items(self) -> Iterator[Item]:
        for split, reader in self.readers.items():
            for row in range(len(reader) if split == "val" else self.num_test):
                yield Item(id=reader.id(row), split=split, labels=reader.rows.labels(row), where=row)

    def read(self, item: Item) -> Sample:
        return self.readers[item.split].sample(int(item.where))


def pack_odd(
    tiny_shards: Path, folder: Path, *, num_test: int = NUM_TEST, shard: int = 8, seed: int = 0
) -> Path:
    source = OddNumber(tiny_shards, num_test)
    options = PackOptions(out=folder, workers=1, samples_per_shard=shard, val_fraction=0.0, seed=seed)
    pack(make_plan("odd", source, HueConfig(), options), source, options)
    return folder


@pytest.fixture(scope="module")
def ragged_shards(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_odd(tiny_shards, tmp_path_factory.mktemp("ragged"))


@pytest.fixture
def own_ragged_shards(ragged_shards: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(ragged_shards, tmp_path / "shards"))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Counted(Evaluation):
    """With what its numbers were made of."""

    counters: dict[str, np.ndarray]
    """By protocol."""


def score(ranks: Ranks, shards: Path, workers: int, threshold: Threshold) -> Counted:
    """One rank's evaluation of the test split, its rows as a list, which can be sent."""
    made: list[Metric] = []

    def make_metrics(*arguments: Any, **rest: Any) -> list[Metric]:
        made.extend(registry.make_metrics(*arguments, **rest))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsol_dist.evaluator.evaluate.make_metrics", make_metrics)
        found = evaluate_checkpoint(
            Hue(HueConfig(), 8),
            shards,
            split="test",
            config=config(shards, workers=workers).evaluate,
            ranks=ranks,
            threshold=threshold,
        )
    counters = {metric.name: metric.counts for metric in made}
    return Counted(**{**vars(found), "rows": list(found.rows)}, counters=counters)


def assert_all_equal(found: list[Counted], alone: Counted) -> None:
    assert found[0].rows == alone.rows
    assert all(one.rows == [] for one in found[1:])
    for one in found:
        assert_equal(one, alone)


def assert_equal(one: Counted, other: Counted) -> None:
    assert one.counters.keys() == other.counters.keys()
    for name, counts in one.counters.items():
        assert counts.dtype == other.counters[name].dtype == np.int64, name
        assert np.array_equal(counts, other.counters[name]), name
    assert one.records == other.records
    assert one.threshold == other.threshold
    assert one.curves.keys() == other.curves.keys()
    assert all(np.array_equal(one.curves[name], other.curves[name]) for name in one.curves)
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
    assert {name for name, counts in alone.counters.items() if counts.any()} == {
        *("topk_loc", "centre_box", "classification", "max_box_acc", "pxap")
    }
    assert_all_equal(rank_pool.run(score, ragged_shards, workers, threshold), alone)


def test_another_order_of_the_shards_gives_the_same(
    rank_pool: RankPool, tiny_shards: Path, ragged_shards: Path, tmp_path: Path
) -> None:
    alone = score(Ranks(), ragged_shards, 0, thresholds.oracle())
    other = pack_odd(tiny_shards, tmp_path / "other", shard=5, seed=9)
    for one in (
        score(Ranks(), other, 0, thresholds.oracle()),
        rank_pool.run(score, other, 2, thresholds.oracle())[0],
    ):
        assert [row["id"] for row in one.rows] != [row["id"] for row in alone.rows]
        assert sorted(one.rows, key=lambda row: row["id"]) == sorted(alone.rows, key=lambda row: row["id"])
        assert_equal(one, alone)


def score_to_file(own: Ranks, shards: Path, workers: int, threshold: Threshold, folder: Path) -> None:
    (folder / str(own.rank)).write_bytes(pickle.dumps(score(own, shards, workers, threshold)))


@pytest.mark.slow
@pytest.mark.parametrize(("world", "num_test", "workers"), [(3, NUM_TEST, 2), (4, NUM_TEST, 3), (4, 3, 0)])
def test_three_and_four_ranks_count_what_one_counts(
    tiny_shards: Path, tmp_path: Path, world: int, num_test: int, workers: int
) -> None:
    shards = pack_odd(tiny_shards, tmp_path / "shards", num_test=num_test)
    (tmp_path / "found").mkdir()
    spawn(score_to_file, world, shards, workers, thresholds.oracle(), tmp_path / "found")
    found = [pickle.loads((tmp_path / "found" / str(rank)).read_bytes()) for rank in range(world)]  # noqa: S301 - its own
    alone = score(Ranks(), shards, 0, thresholds.oracle())
    assert len(alone.rows) == num_test
    assert_all_equal(found, alone)


class Dying(Hue):
    """Is killed on the last rank, in its second batch, with the others on their way."""

    batches = 0

    def localize(self, image_BCHW: Tensor, class_BK: Tensor | None = None) -> Localization:
        self.batches += 1
        if os.environ["RANK"] == "2" and self.batches == 2:
            Path(os.environ["TIME_OF_DEATH"]).write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().localize(image_BCHW, class_BK)


@pytest.mark.slow
def test_a_rank_that_dies_ends_all_with_its_name(
    ragged_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIME_OF_DEATH", str(tmp_path / "death"))
    recipe = config(ragged_shards, method={"name": f"{__name__}:Dying"})
    others = {process.pid for process in multiprocessing.active_children()}  # the session's pool of ranks
    with pytest.raises(RankError, match="rank 2 of 3 was ended by signal SIGKILL"):
        spawn(run_work, 3, work_of(recipe, tmp_path / "run"))
    assert time.time() - float((tmp_path / "death").read_text()) < 30
    assert {process.pid for process in multiprocessing.active_children()} <= others
    assert not list((tmp_path / "run").glob("eval/*.json"))


@pytest.mark.parametrize("row", [2, NUM_TEST - 1], ids=["rank 0", "the last, alone in its batch"])
def test_a_damaged_image_is_a_named_miss_on_any_rank(
    rank_pool: RankPool, own_ragged_shards: Path, row: int
) -> None:
    whole = score(Ranks(), own_ragged_shards, 0, thresholds.fixed(0.5))
    broken = break_image(own_ragged_shards, "test", row=row)
    alone = score(Ranks(), own_ragged_shards, 0, thresholds.fixed(0.5))
    assert_all_equal(rank_pool.run(score, own_ragged_shards, 1, thresholds.fixed(0.5)), alone)
    assert alone.broken == [broken]
    assert len(alone.rows) == NUM_TEST
    lost = {row["id"]: row for row in whole.rows}[broken]
    found = {row["id"]: row for row in alone.rows}[broken]
    assert (found["decoded"], found["gt_known"], found["cls_top1"]) == (False, False, False)
    for name in ("gt_known", "cls_top1", "top1_loc"):
        assert alone.value(name) == pytest.approx((whole.value(name) or 0) - 100 * lost[name] / NUM_TEST)


def work_of(recipe: Config, folder: Path, **more: object) -> scoring.Work:
    return scoring.Work(
        config=recipe,
        identity=identify(recipe, recipe.data.index, weights=None, whole=False),
        index=recipe.data.index,
        splits=("val", "test"),
        weights=None,
        whole=False,
        step=7,
        checkpoint="step-00000007",
        threshold=None,
        folder=folder,
        **more,
    )


def run_work(ranks: Ranks, work: scoring.Work) -> None:
    scoring.run(ranks, work)


def test_the_files_are_the_same(rank_pool: RankPool, ragged_shards: Path, tmp_path: Path) -> None:
    work = work_of(config(ragged_shards), tmp_path / "one", save_maps=True)
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
    cases = records[0]["cases"]
    assert sum("fixed" in case["groups"] for case in cases) == 5
    assert any("worst" in case["groups"] for case in cases)
    for picture in (case["picture"] for case in cases):
        assert (tmp_path / "one/eval" / picture).read_bytes() == (
            tmp_path / "two/eval" / picture
        ).read_bytes()
    for tar in (tmp_path / "one/eval").glob("*-maps/*.tar"):
        assert tar.read_bytes() == (tmp_path / "two/eval" / tar.parent.name / tar.name).read_bytes()
    assert len(list((tmp_path / "two/eval").glob("test-*-maps/*.tar"))) == 5
