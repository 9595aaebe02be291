"""The segmenter: label maps beside their images, its loss, its rates, its views; mIoU of what it says, by class."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from tests.unit.test_multi_label import CLASSES, PX, batches, order, pack, recipe
from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.config.train import TrainConfig
from wsol_dist.data.images.arrays import encode
from wsol_dist.data.images.transforms import TrainTransform
from wsol_dist.data.shards.columns import About, ColumnWriter
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.label_maps import NAME, LabelMaps
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError
from wsol_dist.evaluator.evaluate import evaluate_checkpoint
from wsol_dist.evaluator.record import by_class_json
from wsol_dist.log.table import print_by_class
from wsol_dist.methods.base import Localization, Method
from wsol_dist.methods.config import MethodConfig
from wsol_dist.methods.segmenter.config import SegmenterConfig
from wsol_dist.methods.segmenter.network import Segmenter
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.seg_miou import argmax_at, confusion
from wsol_dist.models.config import CNNConfig
from wsol_dist.models.resnet38 import ResNet38
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.config import CRFConfig
from wsol_dist.report.images import class_iou_table
from wsol_dist.report.run_data import EvalRecord, RunData
from wsol_dist.training.optimizer import build_optimizer
from wsol_dist.training.preflight import check_data
from wsol_dist.training.schedule import build_schedule

NUM_CLASSES = 5


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("multi") / "shards")


def build(**more: Any) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(dataclasses.replace(Segmenter.tiny_config(), **more), NUM_CLASSES)


def images(num: int = 2, px: int = 64) -> torch.Tensor:
    return torch.randn(num, 3, px, px, generator=torch.Generator().manual_seed(1))


def write_column(
    folder: Path, index: Index, value_of: Any, *, name: str = NAME, size_px: int = PX, split: str = "train"
) -> Path:
    """A column of label maps: `value_of(row)` of each."""
    about = About(
        name=name,
        extension="png",
        splits=(split,),
        source=index.sha256,
        settings={"size_px": size_px},
        command="",
    )
    writer = ColumnWriter(folder, index, about)
    for number in writer.todo():
        with writer.shard(number) as shard:
            for row in writer.positions(number):
                value = value_of(row)
                shard.add(None if value is None else encode(value, "png"))
    writer.finish()
    return folder


@pytest.fixture(scope="module")
def true_labels(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The masks themselves as label maps."""
    index = Index.load(shards)
    reader = ShardReader(index, "train")
    return write_column(
        tmp_path_factory.mktemp("labels") / "true", index, lambda row: reader.sample(row).mask
    )


# Label maps beside their images


@pytest.mark.parametrize("more", [{}, {"resize_max_px": 64}], ids=["one side", "sides drawn"])
def test_label_maps_are_cropped_and_flipped_with_their_images(more: dict[str, int]) -> None:
    label_HW = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((10, 10), np.uint8))
    rgb_HWC = np.repeat(label_HW[:, :, None] * 16, 3, axis=2)
    transform = TrainTransform(resize_px=40, image_px=24, flip=True, **more)
    for seed in range(8):
        image = transform(rgb_HWC, np.random.default_rng([seed]))[0]
        label = transform.labels(label_HW, np.random.default_rng([seed]))
        assert label.shape == (24, 24)
        assert label.dtype == torch.uint8
        # between two fields the image is a mixture; inside of one it is exact
        off = (image.float() / 16 - label.float()).abs() > 0.01
        assert off.float().mean() < 0.35
        assert F.max_pool2d((~off).float()[None], 3, stride=1).any()
    if more:
        areas = {
            int((transform.labels(label_HW, np.random.default_rng([seed])) == 5).sum()) for seed in range(8)
        }
        assert len(areas) > 1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_brings_each_image_its_label_map(shards: Path, true_labels: Path, workers: int) -> None:
    rows = [row for batch in order(Index.load(shards)) for _, row in batch]
    found = [
        target
        for batch in batches(shards, workers=workers, targets=str(true_labels), resize_px=32, flip=False)
        for target in batch.target_BHW
    ]
    reader = ShardReader(Index.load(shards), "train")
    for row, target in zip(rows, found, strict=True):
        mask = torch.from_numpy(reader.sample(row).mask)[None, None]
        wanted = F.interpolate(mask, size=(32, 32), mode="nearest-exact")[0, 0]
        assert target.dtype == torch.uint8
        assert torch.equal(target, wanted)
    assert batches(shards, workers=0)[0].target_BHW is None


def test_an_image_without_a_label_map_is_unknown_everywhere(shards: Path, tmp_path: Path) -> None:
    index = Index.load(shards)
    folder = write_column(
        tmp_path / "c", index, lambda row: None if row == 3 else np.zeros((PX, PX), np.uint8)
    )
    maps = LabelMaps.open(folder, index, "train")
    assert (maps.read(3) == 255).all()
    assert not maps.read(4).any()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((PX, PX // 2), np.uint8), f"is {PX // 2} x {PX}, the column says {PX} x {PX}"),
        (np.full((PX, PX), 77, np.uint8), "holds label 77; allowed are 0 for background, 1 to 8"),
    ],
    ids=["another size", "unknown label"],
)
def test_bad_label_maps_are_named_in_training(
    shards: Path, tmp_path: Path, value: np.ndarray, message: str
) -> None:
    folder = write_column(tmp_path / "c", Index.load(shards), lambda row: value)
    with pytest.raises(UserError, match=message):
        batches(shards, workers=0, targets=str(folder))


def test_what_does_not_go_together_is_refused_before_training(
    shards: Path, true_labels: Path, tmp_path: Path
) -> None:
    index = Index.load(shards)
    segmenter = {"name": "segmenter", "freeze_bn": False}

    def check(method: dict[str, Any], targets: Path | str) -> None:
        check_data(recipe(shards, method, data={"targets": str(targets)}), index)

    check(segmenter, true_labels)
    with pytest.raises(
        UserError, match=r"learns from label maps, none are given; make some \(wsol pseudo-label"
    ):
        check(segmenter, "")
    with pytest.raises(UserError, match="'mmcst' has no use for label maps"):
        check({"name": "mmcst"}, true_labels)
    with pytest.raises(UserError, match=r"data\.targets: .*no column\.json in it: no column"):
        check(segmenter, tmp_path / "nothing")
    other = write_column(tmp_path / "o", index, lambda row: np.zeros((4, 4), np.uint8), name="clusters")
    with pytest.raises(UserError, match=r"a column of 'clusters', not of label maps \('labels'\)"):
        check(segmenter, other)
    of_test = write_column(tmp_path / "t", index, lambda row: np.zeros((4, 4), np.uint8), split="test")
    with pytest.raises(UserError, match="label maps of test, not of 'train'"):
        check(segmenter, of_test)


def test_batch_norms_that_saw_nothing_are_not_frozen() -> None:
    problem = SegmenterConfig().recipe_problem(order="uniform", num_before=0)
    assert problem is not None
    assert "name weights of resnet38, or set --method.no-freeze-bn" in problem
    assert SegmenterConfig(freeze_bn=False).recipe_problem(order="uniform", num_before=0) is None
    with pytest.raises(ValueError, match="timm has no resnet38 to download"):
        SegmenterConfig(encoder=CNNConfig(arch="resnet38", pretrained=True))


# The network


def test_the_loss_is_the_mean_over_known_pixels() -> None:
    method = build().eval()
    target = torch.randint(0, NUM_CLASSES + 1, (2, 64, 64), dtype=torch.uint8)
    target[0, :60], target[1, :, 5] = 255, 255

    def loss(known_BHW: torch.Tensor, target: torch.Tensor = target) -> torch.Tensor:
        return method(images(), torch.zeros(2), torch.where(known_BHW, target, 255))["loss"]

    known = target != 255
    some = known & (torch.rand(known.shape) < 0.3)
    parts = [(part.sum(), loss(part)) for part in (some, known & ~some)]
    torch.testing.assert_close(loss(known), sum(n * one for n, one in parts) / known.sum())
    assert loss(torch.zeros_like(known)) == 0
    one = torch.zeros_like(known)
    one[1, 40, 30] = True  # over the labels it could have, a pixel's probabilities sum to 1
    labels = [torch.full_like(target, label) for label in range(NUM_CLASSES + 1)]
    probs = torch.stack([(-loss(one, label)).exp() for label in labels])
    assert probs.sum().item() == pytest.approx(1, abs=1e-5)
    assert probs.std() > 1e-3


def test_frozen_batch_norms_stay_as_they_are() -> None:
    method = build(freeze_bn=True).train()
    buffers = {name: one.clone() for name, one in method.named_buffers()}
    target = torch.zeros(2, 64, 64, dtype=torch.uint8)
    method(images(), torch.zeros(2), target)["loss"].backward()
    assert all(torch.equal(one, buffers[name]) for name, one in method.named_buffers())
    assert method.encoder.bn1.weight.grad is None
    learning = build(freeze_bn=False).train()
    learning(images(), torch.zeros(2), target)
    assert learning.encoder.bn1.num_batches_tracked == 1


def test_it_starts_from_public_weights_of_resnet38(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = ResNet38(width=2)
    state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state | {"fc8.weight": torch.zeros(20, 128, 1, 1)}, tmp_path / "res38_cls.pth")
    encoder = CNNConfig(
        arch="resnet38", model_kwargs={"width": 2}, checkpoint=str(tmp_path / "res38_cls.pth")
    )
    method = build(encoder=encoder, freeze_bn=True)
    assert torch.equal(method.encoder.b7.conv_branch2b2.weight, source.b7.conv_branch2b2.weight)
    assert not method.encoder.conv1a.weight.requires_grad
    with pytest.raises(UserError, match="it knows width only"):
        build(encoder=CNNConfig(arch="resnet38", model_kwargs={"depth": 2}))


def test_the_head_learns_ten_times_as_fast_and_the_rate_falls_to_nothing() -> None:
    method = build()
    config = TrainConfig(
        optimizer="sgd", lr=1e-2, schedule="poly", power=0.9, epochs=10, weight_decay=1e-5, zero=0
    )
    optimizer = build_optimizer(method, config)
    schedule = build_schedule(config, optimizer, steps_per_epoch=2)
    head = {id(one) for one in method.head.parameters()}
    trained = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(trained) == sorted(id(one) for one in method.parameters() if one.requires_grad)
    for step in (0, 5, 19):
        schedule.step_update(step)
        for group in optimizer.param_groups:
            scale = {10.0 if id(one) in head else 1.0 for one in group["params"]}
            assert len(scale) == 1
            assert group["lr"] == pytest.approx(scale.pop() * 1e-2 * (1 - step / 20) ** 0.9)
            assert group["weight_decay"] == (1e-5 if group["params"][0].ndim > 1 else 0)
    assert build_optimizer(build(head_lr=1.0), config).param_groups[0].get("lr_scale") is None


def test_of_several_views_the_highest_probability_counts() -> None:
    method = build(scales=(1.0,), flip=False)
    plain = method.localize(images()).segment_BChw
    both = build(scales=(1.0,), flip=True).localize(images()).segment_BChw
    mirrored = method.localize(images().flip(-1)).segment_BChw.flip(-1)
    highest = torch.maximum(plain, mirrored)
    torch.testing.assert_close(both, highest / highest.sum(dim=1, keepdim=True))
    torch.testing.assert_close(plain.sum(dim=1), torch.ones(2, 64, 64))
    larger = build(scales=(1.0, 1.5), flip=False).localize(images()).segment_BChw
    assert not torch.allclose(plain, larger)


def test_the_crf_sees_the_colours_behind_the_normalised_pixels() -> None:
    config = CRFConfig(iterations=3, radius=2, step_px=1)
    plain, refined = (build(crf=one).localize(images()).segment_BChw for one in (CRFConfig(), config))
    assert not torch.allclose(plain, refined, atol=1e-3)
    shifted = build(crf=config, mean=(0.5, 0.5, 0.5), std=(0.1, 0.1, 0.1)).localize(images()).segment_BChw
    assert not torch.allclose(shifted, refined, atol=1e-3)


# Its mIoU


def test_argmax_and_confusion_by_hand() -> None:
    prob = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    assert np.array_equal(argmax_at(prob, (5, 6)), prob.argmax(axis=0))
    assert not argmax_at(np.full((3, 2, 2), 0.3, np.float32), (7, 9)).any(), "a tie goes to the background"
    said = np.array([[0, 1, 1], [2, 255, 2]])
    truth = np.array([[0, 1, 2], [2, 1, 255]])
    right, predicted, true = confusion(said, truth, num_classes=3).tolist()
    assert right == [1, 1, 1, 0]
    assert predicted == [1, 2, 1, 0]
    assert true == [1, 1, 2, 0]


class Segments(Method):
    """Says the true masks, one class called another; gives no class its image-level label."""

    Config = MethodConfig
    image_px = PX

    def __init__(self, folder: Path, *, mistaken: int | None = None) -> None:
        super().__init__()
        reader = ShardReader(Index.load(folder), "test")
        self.masks = [np.array(reader.sample(row).mask) for row in range(len(reader))]
        for mask in self.masks if mistaken is not None else ():
            mask[mask == mistaken + 1] = 0
        self.at = 0

    def localize(self, image_BCHW: torch.Tensor, class_BK: Any = None) -> Localization:
        masks = torch.from_numpy(np.stack(self.masks[self.at : self.at + len(image_BCHW)])).long()
        self.at = (self.at + len(image_BCHW)) % len(self.masks)
        segment = F.one_hot(masks, 1 + len(CLASSES)).permute(0, 3, 1, 2).float()
        prob = torch.full((len(image_BCHW), len(CLASSES)), 1 / len(CLASSES))
        maps = segment[torch.arange(len(masks))[:, None], class_BK + 1]
        return Localization(prob_BC=prob, class_BK=class_BK, map_BKhw=maps, segment_BChw=segment)


def score(folder: Path, method: Method) -> Any:
    config = EvaluateConfig(
        select="miou", size_px=PX, batch_size=6, workers=0, cases=0, cases_best=0, cases_worst=0
    )
    return evaluate_checkpoint(
        method, folder, split="test", config=config, ranks=Ranks(), threshold=thresholds.oracle()
    )


def test_true_segments_have_100_and_a_lost_class_has_0(shards: Path) -> None:
    found = score(shards, Segments(shards))
    number = next(one for one in found.records if one.name == "seg_miou")
    assert (number.value, number.protocol, number.threshold_source) == (100, "seg_miou", "none")
    assert set(found.by_class) == {"seg_miou", "max_miou"}
    found = score(shards, Segments(shards, mistaken=2))
    assert found.by_class["seg_miou"][3] == 0
    assert found.by_class["seg_miou"][[1, 2, 4]].tolist() == [100, 100, 100]
    assert found.value("seg_miou") == pytest.approx(np.mean(found.by_class["seg_miou"]))
    assert found.value("max_miou") == pytest.approx(np.mean(found.by_class["max_miou"]))


def test_the_table_by_class_on_console_and_page(shards: Path, tmp_path: Path) -> None:
    values = by_class_json(score(shards, Segments(shards, mistaken=2)))
    text = io.StringIO()
    print_by_class(values, console=Console(file=text, width=100), most=4)
    assert "(background)" in text.getvalue()
    assert f"and {len(CLASSES) - 3} more" in text.getvalue()
    raw = {"split": "test", "metrics": [], "classes": list(CLASSES), "by_class": values}
    record = EvalRecord(path=tmp_path, raw=raw)
    run = RunData(folder=tmp_path, config={}, config_text="", rows=[], records=[record])
    table = class_iou_table([run])
    assert table is not None
    assert [column.title for column in table.columns] == [
        "IoU of Best mIoU",
        "IoU of mIoU of the segmentation",
    ]
    assert table.rows[-1].name == CLASSES[2]
    assert table.rows[-1].percents[1] == 0.0
    assert class_iou_table([dataclasses.replace(run, records=[])]) is None
