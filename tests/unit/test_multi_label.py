"""Several labels an image, from the collage's pixels to training batches, refusals and mIoU; embeddings beside them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from tests.damage import break_image
from tests.order import order_alone
from wsol_dist.cli import main
from wsol_dist.config.data import DataConfig
from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index
from wsol_dist.data.sources.collage import CLASSES, LEAST_VISIBLE, NUM_SEVERAL, Options, Source
from wsol_dist.data.stream.order import TrainingOrder
from wsol_dist.data.stream.stream import ShardReader, training_batches
from wsol_dist.errors import UserError
from wsol_dist.evaluator import record
from wsol_dist.evaluator.evaluate import evaluate_checkpoint
from wsol_dist.evaluator.identity import Identity
from wsol_dist.methods.base import Localization, Method
from wsol_dist.methods.config import MethodConfig
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.centre_miou import columns_in_box
from wsol_dist.models.backbones import build_cnn
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import Config, from_dict
from wsol_dist.report.comparison import read_groups, table
from wsol_dist.training.preflight import check_data

PX = 48


def pack(folder: Path) -> Path:
    sizes = ["--num-train", "48", "--num-val", "16", "--num-test", "24", "--image-px", str(PX)]
    assert main(["shards", "pack", "collage", "--multi-label", *sizes, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("multi") / "shards")


def order(index: Index) -> TrainingOrder:
    return order_alone(index, DataConfig(), global_batch=12, last_step=4)


def batches(folder: Path, **data) -> list[Any]:
    index = Index.load(folder)
    return list(training_batches(index, DataConfig(**data), order=order(index), image_px=32))


# The collage


def test_two_to_four_objects_of_different_classes_with_their_masks_and_boxes():
    source = Source(Options(num_train=64, num_val=8, num_test=8, image_px=64, multi_label=True))
    items = [item for item in source.items() if item.split == "train"]
    numbers = {len(item.labels) for item in items}
    assert numbers == set(range(NUM_SEVERAL[0], NUM_SEVERAL[1] + 1))
    seen = np.bincount([label for item in items for label in item.labels], minlength=len(CLASSES))
    assert seen.min() >= 8
    for item in items[:24]:
        sample = source.read(item)
        assert sample.labels == sample.box_labels == tuple(sorted(set(item.labels)))
        assert sample.semantic
        assert set(np.unique(sample.mask)) == {0, *(label + 1 for label in item.labels)}
        for label, box in zip(sample.box_labels, sample.boxes_xyxy, strict=True):
            ys, xs = np.nonzero(sample.mask == label + 1)
            assert box.tolist() == [xs.min(), ys.min(), xs.max(), ys.max()]


def test_later_objects_leave_enough_of_the_earlier_ones():
    source = Source(Options(num_train=64, num_val=8, num_test=8, image_px=64, multi_label=True))
    for item in [item for item in source.items() if len(item.labels) == 4][:8]:
        rng = source._rng(item.split, item.where, "object")
        labels = rng.permutation(item.labels).tolist()
        solid = [alpha >= 0.5 for alpha, _ in source._placed(labels, rng)]
        mask = source.read(item).mask
        for label, whole in zip(labels, solid, strict=True):
            assert (mask == label + 1).sum() >= LEAST_VISIBLE * whole.sum()


def test_one_object_an_image_is_painted_as_before_and_twice_the_same():
    several = Options(num_train=16, num_val=8, num_test=8, image_px=64, multi_label=True)
    first, second = Source(several), Source(several)
    for one, other in zip(list(first.items())[:5], list(second.items())[:5], strict=True):
        assert one == other
        assert first.read(one).image == second.read(other).image


# The stream


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_are_ones_and_zeros_of_the_very_image(shards, workers):
    index = Index.load(shards)
    rows = index.rows("train")
    assert index.multi_label
    wanted = [
        {rows.labels(row) for _, row in batch} and [rows.labels(row) for _, row in batch]
        for batch in order(index)
    ]
    for batch, labels in zip(batches(shards, workers=workers), wanted, strict=True):
        assert batch.label_B.shape == (12, len(CLASSES))
        assert batch.label_B.dtype == torch.float32
        assert [tuple(np.flatnonzero(row)) for row in batch.label_B.numpy()] == labels
        assert batch.embedding_BE is None


def test_one_label_an_image_stays_a_number(tiny_shards):
    assert not Index.load(tiny_shards).multi_label
    assert batches(tiny_shards, workers=0)[0].label_B.dtype == torch.int64


# Embeddings


MOBILENET = ["--cnn.arch", "mobilenetv3_small_050", "--image-px", "32"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNN's weights with a classifier of 7 classes, which embedding leaves out."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("cnn") / "cnn.safetensors"
    save_file(build_cnn("mobilenetv3_small_050", {}, num_classes=7).state_dict(), path)
    return path


def embed(shards: Path, out: Path, weights: Path, *more: str) -> int:
    words = ["--index", str(shards), "--out", str(out), "--encoder", "timm", "--cnn.checkpoint", str(weights)]
    return main(["embed", *words, *MOBILENET, "--workers", "0", *more])


def test_embeddings_come_with_their_images(shards, weights, tmp_path, capsys):
    assert embed(shards, tmp_path / "e", weights) == 0
    index = Index.load(shards)
    column = Column.open(tmp_path / "e", index)
    assert column.about.settings["embedded"] == "image"
    assert column.about.settings["encoder"].startswith("timm mobilenetv3_small_050 cnn.safetensors (sha256 ")
    dim = column.about.settings["dim"]
    for batch, rows in zip(
        batches(shards, workers=2, embeddings=str(tmp_path / "e")), order(index), strict=True
    ):
        assert batch.embedding_BE.shape == (12, dim)
        wanted = np.stack([column.value("train", row) for _, row in rows])
        np.testing.assert_array_equal(batch.embedding_BE.numpy(), wanted)
        np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), 1, rtol=1e-5)
    assert embed(shards, tmp_path / "e", weights) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_an_interrupted_column_goes_on_and_other_weights_are_refused(shards, weights, tmp_path, capsys):
    assert embed(shards, tmp_path / "a", weights) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.tar")}
    (tmp_path / "a/begun.json").write_text(json.dumps(json.loads((tmp_path / "a/column.json").read_text())))
    (tmp_path / "a/column.json").unlink()
    removed = sorted(tmp_path.glob("a/*.tar"))[1]
    removed.unlink()
    with pytest.raises(UserError, match="did not finish"):
        batches(shards, embeddings=str(tmp_path / "a"))
    assert embed(shards, tmp_path / "a", weights) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.tar")} == whole
    torch.manual_seed(1)
    save_file(
        build_cnn("mobilenetv3_small_050", {}, num_classes=7).state_dict(), tmp_path / "cnn.safetensors"
    )
    capsys.readouterr()
    assert embed(shards, tmp_path / "a", tmp_path / "cnn.safetensors") == 2
    assert "holds another column (settings differ)" in capsys.readouterr().err


def test_an_image_that_does_not_decode_has_no_embedding(weights, tmp_path):
    folder = pack(tmp_path / "own")
    broken = break_image(folder, "train")
    assert embed(folder, tmp_path / "e", weights) == 0
    index = Index.load(folder)
    column, reader = Column.open(tmp_path / "e", index), ShardReader(index, "train")
    without = [reader.id(row) for row in range(len(reader)) if column.value("train", row) is None]
    assert without == [broken]
    assert [
        one for batch in batches(folder, workers=0, embeddings=str(tmp_path / "e")) for one in batch.broken
    ] == [broken]


def test_captions_from_a_table_are_the_mean_of_the_classes(shards, tmp_path):
    table = np.random.default_rng(0).normal(size=(len(CLASSES), 5)).astype(np.float32)
    np.save(tmp_path / "t.npy", table)
    (tmp_path / "t.txt").write_text("\n".join(CLASSES))
    words = [
        "--what",
        "caption",
        "--text.source",
        "file",
        "--text.dim",
        "5",
        "--text.names",
        str(tmp_path / "t.txt"),
    ]
    words += [
        "--text.embeddings",
        str(tmp_path / "t.npy"),
        "--index",
        str(shards),
        "--out",
        str(tmp_path / "e"),
    ]
    assert main(["embed", *words]) == 0
    index = Index.load(shards)
    column, rows = Column.open(tmp_path / "e", index), index.rows("train")
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    wanted = unit[list(rows.labels(3))].mean(axis=0)
    np.testing.assert_allclose(column.value("train", 3), wanted / np.linalg.norm(wanted), rtol=1e-5)
    assert column.about.settings["embedded"] == "caption"


# What does not go together


def recipe(shards: Path, method: dict[str, Any], **more: Any) -> Config:
    raw = {
        "method": method,
        "data": {"index": str(shards)} | more.pop("data", {}),
        "train": {"global_batch": 8},
    }
    return from_dict(raw | more, origin="test")


def test_a_method_of_one_label_refuses_several_before_training(shards):
    with pytest.raises(UserError, match="'weight_map' learns from one label an image"):
        check_data(
            recipe(shards, {"name": "weight_map", "classifier": {"checkpoint": __file__}}), Index.load(shards)
        )
    for name in ("cam", "ts_cam", "molt", "mmcst"):
        check_data(recipe(shards, {"name": name}), Index.load(shards))


def test_an_image_without_any_class_is_refused_before_training(shards, tmp_path):
    folder = Path(shutil.copytree(shards, tmp_path / "own"))
    path = folder / "samples.parquet"
    table = pq.read_table(path)
    labels = table["labels"].to_pylist()
    row = table["split"].to_pylist().index("train")
    labels[row] = []
    place, field = table.column_names.index("labels"), table.schema.field("labels")
    pq.write_table(table.set_column(place, field, pa.array(labels, field.type)), path)
    index = json.loads((folder / "index.json").read_text())
    index["samples"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=re.escape(f"{table['id'][row]} has no label at all")):
        check_data(recipe(folder, {"name": "mmcst"}), Index.load(folder))


def test_embeddings_that_nobody_learns_from_are_refused(shards, weights, tmp_path):
    embed(shards, tmp_path / "e", weights)
    data = {"embeddings": str(tmp_path / "e")}
    with pytest.raises(UserError, match="no use for embeddings"):
        check_data(recipe(shards, {"name": "ts_cam"}, data=data), Index.load(shards))
    with pytest.raises(UserError, match=r"set --method\.context-dim"):
        check_data(
            recipe(shards, {"name": "mmcst", "context_target": "image"}, data=data), Index.load(shards)
        )
    with pytest.raises(UserError, match="these are of images"):
        check_data(
            recipe(shards, {"name": "mmcst", "context_target": "caption"}, data=data), Index.load(shards)
        )
    dim = Column.open(tmp_path / "e", Index.load(shards)).about.settings["dim"]
    fitting = {"name": "mmcst", "context_target": "image", "context_dim": dim}
    check_data(recipe(shards, fitting, data=data), Index.load(shards))


def test_one_map_an_image_is_too_few_to_score_or_to_keep(shards, tmp_path, capsys):
    assert main(["score", "--maps", str(tmp_path), "--index", str(shards), "--threshold", "0.3"]) == 2
    assert "a file holds the map of one" in capsys.readouterr().err
    assert main(["evaluate", "mmcst-collage", "--index", str(shards), "--save-maps"]) == 2
    assert "the map of one would be kept" in capsys.readouterr().err


# Evaluation


class Truth(Method):
    """Maps that are the masks themselves at full size, by looking them up; `blur` mistakes one class for another."""

    Config = MethodConfig
    image_px = PX

    def __init__(self, folder: Path, split: str, swap: bool = False) -> None:
        super().__init__()
        reader = ShardReader(Index.load(folder), split)
        self.masks = [reader.sample(row).mask for row in range(len(reader))]
        self.swap, self.at = swap, 0
        self.widths: list[int] = []

    def localize(self, image_BCHW, class_BK=None):
        assert class_BK is not None
        self.widths.append(class_BK.shape[1])
        if self.at + len(class_BK) > len(self.masks):
            self.at = 0  # the pictures are localized after the scoring
        masks = np.stack(self.masks[self.at : self.at + len(class_BK)])
        self.at += len(class_BK)
        maps = torch.from_numpy(masks)[:, None] == class_BK[:, :, None, None] + 1
        prob_BC = torch.full((len(class_BK), len(CLASSES)), 1 / len(CLASSES))
        maps = maps.float()
        if self.swap:
            maps[:, 0] = 0
        return Localization(prob_BC=prob_BC, class_BK=class_BK, map_BKhw=maps)


def score(folder: Path, method: Method, threshold=None):
    config = EvaluateConfig(
        select="miou", size_px=PX, batch_size=5, workers=0, cases=0, cases_best=0, cases_worst=0
    )
    return evaluate_checkpoint(
        method,
        folder,
        split="test",
        config=config,
        ranks=Ranks(),
        threshold=threshold or thresholds.oracle(),
    )


def test_perfect_maps_of_every_class_have_an_miou_of_100(shards):
    method = Truth(shards, "test")
    found = score(shards, method)
    assert found.value("max_miou") == 100
    assert max(method.widths) == NUM_SEVERAL[1]
    assert 0 < found.value("centre_miou") < 60
    assert found.value("gt_known") is None, "one box of one class says nothing of several"
    assert found.value("pxap") is None
    assert score(shards, Truth(shards, "test", swap=True)).value("max_miou") < 90


def test_the_threshold_of_miou_is_swept_and_handed_on(shards):
    found = score(shards, Truth(shards, "test"))
    curves = {name: curve.tolist() for name, curve in found.curves.items()}
    assert len(curves["miou"]) == 60
    chosen = thresholds.from_curves(curves, select="miou", origin="val")
    assert chosen.source == "val"
    assert chosen.value == pytest.approx(0.29)  # the middle of a plateau from 0 to 0.59
    handed = score(shards, Truth(shards, "test"), chosen)
    number = next(one for one in handed.records if one.name == "miou")
    assert (number.threshold_source, number.threshold, number.value) == ("val", 0.29, 100)


def test_a_hit_is_any_of_the_images_classes(shards):
    found = score(shards, Truth(shards, "test"))
    rows = Index.load(shards).rows("test")
    # equal probabilities: the lowest class number comes first
    wanted = np.mean([0 in rows.labels(row) for row in range(len(rows))]) * 100
    assert found.value("cls_top1") == pytest.approx(wanted)


def test_columns_of_the_constant_box():
    guess = columns_in_box((4, 8), (2, 5), 0.5)
    assert guess.tolist() == [[0] * 8, [0, 0, 3, 3, 6, 6, 0, 0], [0, 0, 3, 3, 6, 6, 0, 0], [0] * 8]
    assert not columns_in_box((4, 8), (2,), 0.0).any()
    assert not columns_in_box((4, 8), (), 1.0).any()


class Segmenting(Truth):
    """Segments as well: what it says of each pixel is the truth."""

    def localize(self, image_BCHW, class_BK=None):
        at = 0 if self.at + len(image_BCHW) > len(self.masks) else self.at
        found = super().localize(image_BCHW, class_BK)
        masks = torch.from_numpy(np.stack(self.masks[at : at + len(image_BCHW)])).long()
        segment_BChw = torch.nn.functional.one_hot(masks, len(CLASSES) + 1).permute(0, 3, 1, 2).float()
        return dataclasses.replace(found, segment_BChw=segment_BChw)


def test_every_number_of_several_labels_is_compared(shards, tmp_path, capsys):
    index = Index.load(shards)
    identity = Identity(weights=None, index_name="multi", index_sha256=index.sha256, settings={})
    for name, swap in (("base", True), ("new", False)):
        found = score(shards, Segmenting(shards, "test", swap=swap), thresholds.fixed(0.3))
        record.save(
            found,
            tmp_path / name / "eval",
            run=name,
            method="truth",
            step=1,
            checkpoint="step-00000001",
            identity=identity,
            pictures=[],
        )
    names = {one.name for one in found.records} - {"centre_miou"}  # which no method changes
    assert names >= {"miou", "max_miou", "seg_miou", "cls_top1"}
    lines = table(
        read_groups([[tmp_path / "base"], [tmp_path / "new"]], split="test"), num_resamples=100, seed=0
    )
    by_name = {line.name: line for line in lines}
    assert by_name.keys() == names
    base, new = by_name["miou"].cells
    assert (new.mean, base.sources, new.interval) == (100, ["fixed 0.300"], None)
    assert new.gain == pytest.approx(100 - base.mean)
    assert new.gain > 10
    assert main(["compare", str(tmp_path / "base"), str(tmp_path / "new")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "mIoU" in said
    assert f"{new.gain:+.1f}" in said
