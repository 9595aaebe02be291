"""Every protocol against brute force on the maps of a real network of real images."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.unit import brute_force
from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.data.images.decode import decode_rgb
from wsol_dist.data.shards.sample import Sample
from wsol_dist.data.sources import caltech_101, imagenet
from wsol_dist.methods.cam.config import CAMConfig
from wsol_dist.methods.cam.network import CAM
from wsol_dist.metrics import threshold as thresholds
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.max_box_acc import DELTAS, MaxBoxAcc
from wsol_dist.metrics.pxap import PxAP
from wsol_dist.metrics.topk_loc import TopKLoc

SIZE = 224


@pytest.fixture
def cam(real_data: Path) -> CAM:
    checkpoint = real_data / "weights" / "mobilenetv2_100.imagenet1k.safetensors"
    half = (0.5, 0.5, 0.5)
    kwargs: dict[str, bool | int | float | str] = {"pad_type": "same"}
    config = CAMConfig(
        arch="mobilenetv2_100", model_kwargs=kwargs, mean=half, std=half, checkpoint=str(checkpoint)
    )
    return CAM(config, 1000).eval()


def scored_by(cam: CAM, samples: list[Sample], *, own_class: bool) -> list[Scored]:
    """With the map of the image's class, or of the most probable one."""
    pixels = [
        cv2.resize(decode_rgb(sample.image), (SIZE, SIZE), interpolation=cv2.INTER_AREA) for sample in samples
    ]
    image_BCHW = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    wanted = torch.tensor([[sample.labels[0]] for sample in samples]) if own_class else None
    with torch.inference_mode():
        found = cam.localize(image_BCHW, wanted)
    return [
        Scored(
            id=sample.id,
            label=sample.labels[0],
            prob_C=found.prob_BC[at].numpy(),
            map_hw=found.map_BKhw[at, 0].numpy(),
            size_px=SIZE,
            boxes_xyxy=sample.boxes_xyxy,
            box_frame_wh=sample.box_frame_wh,
            mask=sample.mask,
        )
        for at, sample in enumerate(samples)
    ]


def as_brute_force_reads(scored: Scored) -> dict:
    fields = {"map": scored.map_hw, "boxes": scored.boxes_xyxy, "frame_wh": scored.box_frame_wh}
    return fields | {"label": scored.label, "prob": scored.prob_C, "decoded": True}


def test_box_protocols_on_imagenet(cam: CAM, real_data: Path) -> None:
    source = imagenet.Source(imagenet.Options(root=real_data / "ilsvrc-val-300"))
    samples = [source.read(item) for item in islice(source.items(), 3, None, 50)]
    scored = scored_by(cam, samples, own_class=True)
    images = [as_brute_force_reads(one) for one in scored]
    metrics = {kind: kind(EvaluateConfig(), num_classes=1000) for kind in (MaxBoxAcc, TopKLoc)}
    for metric in metrics.values():
        for one in scored:
            metric.update(one)
    found = {number.name: number.value for number in metrics[MaxBoxAcc].records(thresholds.oracle())}
    names = ["max_box_acc", *(f"max_box_acc_v2@{delta}" for delta in DELTAS)]
    assert [found[name] for name in names] == brute_force.max_box_acc(images, SIZE)
    for threshold in (0.0, 0.12, 0.3, 0.5, 0.75, 0.999):
        records = metrics[TopKLoc].records(thresholds.fixed(threshold))
        values = {number.name.removeprefix("error/"): number.value for number in records}
        assert values == brute_force.topk_loc(images, threshold, SIZE)
    for one in scored:
        levels = [*range(0, 255, 12), 254]
        for largest, map_8bit in (
            (one.field_boxes.largest_L4, brute_force.gray_map(one.map_hw, SIZE, cubic=True)),
            (one.topk_boxes.largest_L4, brute_force.gray_map(one.map_hw, SIZE, cubic=False)),
        ):
            clamp = largest is one.field_boxes.largest_L4
            boxes = [brute_force.largest_box(map_8bit, level / 255 + 1e-6, clamp=clamp) for level in levels]
            assert largest[levels].tolist() == boxes


def test_pixel_protocols_on_caltech(cam: CAM, real_data: Path) -> None:
    source = caltech_101.Source(caltech_101.Options(root=real_data / "caltech-101"))
    samples = [source.read(item) for item in islice(source.items(), 5, None, 300)]
    scored = scored_by(cam, samples, own_class=False)
    metric = PxAP(EvaluateConfig(), num_classes=1000)
    scores, masks = [], []
    for one in scored:
        metric.update(one)
        assert one.mask is not None
        masks.append(cv2.resize(one.mask, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST))
        large = cv2.resize(one.map_hw.astype(np.float64), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        large = large - large.min()
        scores.append(large / large.max())
    found = {number.name: number.value for number in metric.records(thresholds.oracle())}
    assert found["pxap"] == pytest.approx(brute_force.pxap(scores, masks), abs=1e-9)
    assert found["max_piou"] == pytest.approx(brute_force.max_piou(scores, masks), abs=1e-9)
    true, false, positives = brute_force.pixel_counts(scores, masks)
    assert metric.counts[0][::-1].cumsum()[::-1].tolist() == true
    assert metric.counts[1][::-1].cumsum()[::-1].tolist() == false
    assert metric.counts[0].sum() == positives
