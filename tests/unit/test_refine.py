"""Refinement by cluster means, against loops over clusters; what its option refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.hue import config, write_checkpoint, write_run
from wsol_dist.cli import main
from wsol_dist.config.evaluate import RefineConfig
from wsol_dist.data.images.arrays import encode
from wsol_dist.data.shards.columns import Column, ColumnWriter
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.evaluator.refined import Refiner, check_refine, open_refiner
from wsol_dist.regions.refine import refine


def labels(batch: int = 3, side: int = 12, most: int = 5) -> torch.Tensor:
    return torch.randint(0, most, (batch, side, side), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )


def maps(batch: int = 3, count: int = 2, side: int = 12) -> torch.Tensor:
    return torch.randn(batch, count, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_pixel_moves_towards_the_mean_of_its_label_wherever_that_lies(alpha: float) -> None:
    map_BKhw, label_BHW = maps(), labels()
    wanted = map_BKhw.clone()
    for b in range(3):
        for k in range(2):
            for label in range(5):
                inside = label_BHW[b] == label
                mean = map_BKhw[b, k][inside].mean()
                wanted[b, k][inside] = (1 - alpha) * map_BKhw[b, k][inside] + alpha * mean
    torch.testing.assert_close(refine(map_BKhw, label_BHW, alpha_B=alpha), wanted)


def test_the_map_is_brought_to_the_labels_size_first() -> None:
    map_BKhw, label_BHW = maps(side=4), labels()
    large = torch.nn.functional.interpolate(map_BKhw, (12, 12), mode="bilinear")
    torch.testing.assert_close(refine(map_BKhw, label_BHW, alpha_B=0.0), large)
    torch.testing.assert_close(
        refine(map_BKhw, label_BHW, alpha_B=0.7), refine(large, label_BHW, alpha_B=0.7)
    )


def test_an_image_does_not_depend_on_its_batch_and_may_have_its_own_alpha() -> None:
    map_BKhw, label_BHW = maps(), labels()
    alpha_B = torch.tensor([0.0, 0.5, 1.0])
    together = refine(map_BKhw, label_BHW, alpha_B=alpha_B)
    for b in range(3):
        alone = refine(map_BKhw[b : b + 1], label_BHW[b : b + 1], alpha_B=float(alpha_B[b]))
        assert torch.equal(together[b : b + 1], alone)


def test_a_constant_map_stays_exactly_constant() -> None:
    map_BKhw = torch.full((3, 1, 7, 7), 0.1)
    assert torch.equal(refine(map_BKhw, labels(), alpha_B=0.37), torch.full((3, 1, 12, 12), 0.1))


def label_column_of(shards: Path, folder: Path, *extra: str) -> Path:
    arguments = ["--index", str(shards), "--out", str(folder), "--backend", "slic", "--size-px", "32"]
    assert main(["cluster", *arguments, "--segments", "20", "--procs", "1", "--workers", "0", *extra]) == 0
    return folder


@pytest.fixture(scope="module")
def label_folder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_column_of(tiny_shards, tmp_path_factory.mktemp("labels") / "slic")


def test_the_option_refines_each_row_by_its_own_labels(tiny_shards: Path, label_folder: Path) -> None:
    index = Index.load(tiny_shards)
    refiner = open_refiner(RefineConfig(labels=str(label_folder), alpha=0.6), index, "test")
    assert refiner is not None
    column, rows = Column.open(label_folder, index), [7, 0, 31]
    label_BHW = torch.from_numpy(np.stack([column.value("test", row) for row in rows]))
    map_BKhw = maps(side=8)
    assert torch.equal(refiner(map_BKhw, rows), refine(map_BKhw, label_BHW, alpha_B=0.6))
    alone = refiner.refine_one(map_BKhw[1, 0].numpy(), rows[1])
    np.testing.assert_array_equal(alone, refiner(map_BKhw, rows)[1, 0].numpy())


@pytest.mark.parametrize("refine_config", [RefineConfig(), RefineConfig(labels="nowhere", alpha=0.0)])
def test_without_labels_or_alpha_nothing_is_done(tiny_shards: Path, refine_config: RefineConfig) -> None:
    assert open_refiner(refine_config, Index.load(tiny_shards), "test") is None


@pytest.fixture(scope="module")
def run_folder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "hue"
    write_run(folder, config(tiny_shards))
    write_checkpoint(folder, config(tiny_shards), 1)
    return folder


def evaluate(run_folder: Path, shards: Path, split: str, *extra: str) -> dict[str, Any]:
    assert main(["evaluate", str(run_folder), "--index", str(shards), "--split", split, *extra]) == 0
    return json.loads((run_folder / f"eval/{split}-step-00000001.json").read_text())


def test_an_evaluation_scores_refined_maps_and_shows_before_and_after(
    tiny_shards: Path, label_folder: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--refine.labels", str(label_folder), "--refine.alpha", "0.9")
    plain = evaluate(run_folder, tiny_shards, "val", "--save-maps")
    narrow = cv2.imread(str(run_folder / "eval" / plain["cases"][0]["picture"]))
    refined = evaluate(run_folder, tiny_shards, "val", *flags)
    wide = cv2.imread(str(run_folder / "eval" / refined["cases"][0]["picture"]))
    assert "refine" not in plain["scored_as"]
    assert refined["scored_as"]["refine"]["alpha"] == 0.9
    assert refined["scored_as"]["refine"]["labels"]["backend"] == "slic"
    assert refined["curves"]["gt_known"] != plain["curves"]["gt_known"]
    assert wide.shape[1] / wide.shape[0] > 2 * narrow.shape[1] / narrow.shape[0]
    # A threshold of refined maps is none for maps as they are.
    assert main(["evaluate", str(run_folder), "--index", str(tiny_shards), "--split", "test"]) == 2
    assert "scored something else (" in capsys.readouterr().err


def test_maps_of_other_code_are_refined_as_our_own(
    tiny_shards: Path, label_folder: Path, run_folder: Path, tmp_path: Path
) -> None:
    evaluate(run_folder, tiny_shards, "val", "--save-maps")
    flags = ["--refine.labels", str(label_folder), "--refine.alpha", "0.9", "--evaluate.size-px", "32"]
    ours = evaluate(run_folder, tiny_shards, "val", *flags)
    maps = ["score", "--maps", str(run_folder / "eval/val-step-00000001-maps"), "--split", "val"]
    maps += ["--index", str(tiny_shards), "--threshold", "oracle", "--out", str(tmp_path), *flags]
    assert main(maps) == 0
    theirs = json.loads((tmp_path / "eval/val-step-00000000.json").read_text())
    # The stored maps have 8 bits.
    np.testing.assert_allclose(theirs["curves"]["gt_known"], ours["curves"]["gt_known"], atol=15)
    assert np.mean(np.equal(theirs["curves"]["gt_known"], ours["curves"]["gt_known"])) > 0.5


def test_labels_of_other_shards_another_kind_or_too_few_splits_are_refused(
    tiny_shards: Path, label_folder: Path, tmp_path: Path
) -> None:
    index = Index.load(tiny_shards)
    other = dataclasses.replace(index, sha256="0" * 64)
    with pytest.raises(UserError, match=r"refine.labels: .*a column of other shards"):
        check_refine(RefineConfig(labels=str(label_folder)), other, ("test",))
    with pytest.raises(UserError, match=r"refine.labels: .*no column.json in it: no column"):
        check_refine(RefineConfig(labels=str(tmp_path)), index, ("test",))
    val = label_column_of(tiny_shards, tmp_path / "val", "--split", "val")
    with pytest.raises(UserError, match="label maps of val, not of 'test'; make them with wsol cluster"):
        check_refine(RefineConfig(labels=str(val)), index, ("val", "test"))
    about = dataclasses.replace(Column.open(val, index).about, name="map")
    _write(ColumnWriter(tmp_path / "maps", index, about), side=32)
    with pytest.raises(UserError, match="a column of 'map', not of label maps"):
        check_refine(RefineConfig(labels=str(tmp_path / "maps")), index, ("val",))


def test_label_maps_of_another_size_than_the_column_says_are_refused(
    tiny_shards: Path, label_folder: Path, tmp_path: Path
) -> None:
    index = Index.load(tiny_shards)
    about = Column.open(label_folder, index).about
    _write(ColumnWriter(tmp_path / "labels", index, about), side=16)
    refiner = Refiner(Column.open(tmp_path / "labels", index), "test", alpha=0.5)
    with pytest.raises(UserError, match=r"label map 3 of test is 16 x 16, the column says 32 x 32; make"):
        refiner.label(3)


def _write(writer: ColumnWriter, *, side: int) -> None:
    for number in writer.todo():
        with writer.shard(number) as shard:
            for _ in writer.positions(number):
                shard.add(encode(np.zeros((side, side), np.uint8), "png"))
    writer.finish()
