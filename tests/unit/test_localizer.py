"""`wsol_dist.load(path).localize(images)`: forms of images, classes, boxes, masks, thresholds, foreign folders."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import wsol_dist
from tests.forkserver import FRESH
from tests.unit.model_folders import CAM, CLASSES, encoded, make_run, noise
from wsol_dist.cli import main
from wsol_dist.errors import UserError
from wsol_dist.metrics.base import Scored
from wsol_dist.prediction.boxes import BoxRule, find_boxes
from wsol_dist.registry import METHODS, method_class


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("a run") / "run")


@pytest.fixture(scope="module")
def localizer(run: Path) -> wsol_dist.Localizer:
    return wsol_dist.load(run, threshold=0.4, device="cpu")


def test_the_package_is_imported_without_torch() -> None:
    code = "import sys, wsol_dist; 'load' in dir(wsol_dist) or sys.exit(3); sys.exit('torch' in sys.modules)"
    assert subprocess.run([FRESH, "-c", code], check=False).returncode == 0


def test_results_hang_together(localizer: wsol_dist.Localizer) -> None:
    (found,) = localizer.localize(noise(50, 35), top_k=3, boxes="every")
    assert found.size_wh == (50, 35)
    assert found.prob_C.sum() == pytest.approx(1, abs=1e-5)
    assert [one.label for one in found.classes] == found.top(3).tolist()
    for one in found.classes:
        assert one.name == CLASSES[one.label]
        assert one.score == pytest.approx(float(found.prob_C[one.label]))
        assert one.heat_map.shape == one.mask.shape == (35, 50)
        assert (one.heat_map.min(), one.heat_map.max()) == (0, 1)
        assert 0 < one.mask.mean() < 1
        for box in one.boxes:
            assert 0 <= box.x0 < box.x1 <= 50
            assert 0 <= box.y0 < box.y1 <= 35
            assert 0 < box.stability <= 1
    assert set(np.unique(found.class_mask())) <= {0, 1, 2, 3}


def test_every_form_of_an_image_gives_the_same(localizer: wsol_dist.Localizer, tmp_path: Path) -> None:
    picture = noise(30, 40)
    path = tmp_path / "a b.png"
    path.write_bytes(encoded(picture, "PNG"))
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    turned.write_bytes(encoded(picture.rotate(90, expand=True), "PNG", exif=exif))
    pixels = np.asarray(picture)
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    found = localizer.localize([path, str(path), picture, pixels, opaque, turned, Image.open(turned)])
    assert {one.size_wh for one in found} == {(30, 40)}
    assert {one.classes[0].boxes for one in found} == {found[0].classes[0].boxes}
    assert localizer.localize([]) == []


def test_a_wanted_class_is_localized_whatever_its_rank(localizer: wsol_dist.Localizer) -> None:
    images = [noise(40, 30, seed=seed) for seed in range(3)]
    found = localizer.localize(images, classes=["cat & dog", 0, "bee"], batch_size=2)
    assert [one.classes[0].label for one in found] == [2, 0, 1]
    every = localizer.localize(images[:1], top_k=3)[0]
    same = next(one for one in every.classes if one.label == 2)
    np.testing.assert_allclose(same.map_hw, found[0].classes[0].map_hw, atol=1e-5)
    assert localizer.localize(images[0], min_score=1.0)[0].classes == ()


def test_boxes_are_the_evaluators(localizer: wsol_dist.Localizer) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        map_hw = cv2.GaussianBlur(rng.normal(size=(14, 14)).astype(np.float32), (5, 5), 1)
        scored = Scored(id="", label=0, prob_C=np.zeros(1), map_hw=map_hw, size_px=64)
        level = int(rng.integers(255))
        largest = scored.topk_boxes.largest_L4[level]
        for which in ("largest", "every"):
            rule = BoxRule(level=level, size_px=64, normalise="min_max", which=which, min_area=0.0)
            boxes = find_boxes(map_hw, (640, 320), rule)
            assert boxes[0].xyxy == pytest.approx(largest * [10, 5, 10, 5])
        _, _, stats, _ = cv2.connectedComponentsWithStats((scored.topk_gray > level).astype(np.uint8))
        lefts = {(x * 10.0, y * 5.0) for x, y, _, _, area in stats[1:] if area > 9}
        assert lefts <= {(box.x0, box.y0) for box in boxes}
    assert find_boxes(np.ones((7, 7), np.float32), (10, 10), rule) == ()


def test_a_box_that_hangs_on_the_threshold_is_less_stable() -> None:
    sure = np.zeros((16, 16), np.float32)
    sure[4:12, 4:12] = 1
    slope = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    rule = BoxRule(level=100, size_px=16, normalise="min_max")
    assert find_boxes(sure, (16, 16), rule)[0].stability == pytest.approx(1)
    assert find_boxes(slope, (16, 16), rule)[0].stability < 0.95


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_localizes_the_k_most_probable_classes(name: str) -> None:
    chosen = method_class(name)
    torch.manual_seed(0)
    method = chosen(chosen.tiny_config(), 4).eval()
    image_BCHW = torch.randn(2, 3, method.image_px, method.image_px)
    found = method.localize(image_BCHW, 3)
    assert torch.equal(found.class_BK, found.prob_BC.topk(3).indices)
    torch.testing.assert_close(found.map_BKhw, method.localize(image_BCHW, found.class_BK).map_BKhw)


def test_the_threshold_is_vals_where_it_was_scored(tiny_shards: Path, tmp_path: Path) -> None:
    from wsol_dist.data.shards.index import Index

    classes = Index.load(tiny_shards).classes
    run = make_run(tmp_path / "run", CAM | {"image_px": 32}, classes=classes, size_px=32)
    before = wsol_dist.load(run, device="cpu")
    assert (before.threshold.source, before.threshold.value) == ("fixed", 0.12)
    assert "was not scored" in before.opened.threshold_why
    assert (
        main(["evaluate", str(run), "--index", str(tiny_shards), "--split", "val", "--track.wandb", "off"])
        == 0
    )
    after = wsol_dist.load(run, device="cpu")
    record = json.loads((run / "eval" / "val-step-00000003.json").read_text())
    assert after.threshold.source == "val"
    assert after.threshold.level == record["threshold"]["level"]
    assert wsol_dist.load(run, threshold=0.5, device="cpu").threshold.source == "fixed"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("missing.jpg", "missing.jpg: cannot read this image"),
        (np.zeros((4, 4, 3), np.float32), "allowed: uint8 of shape"),
        (np.zeros((4, 4, 2), np.uint8), "allowed: uint8 of shape"),
    ],
)
def test_what_is_no_image_is_said_in_one_line(
    localizer: wsol_dist.Localizer, given: object, says: str
) -> None:
    with pytest.raises(UserError, match=says) as error:
        localizer.localize(given)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_numbers_out_of_range_are_refused(localizer: wsol_dist.Localizer) -> None:
    for wrong in (
        {"top_k": 4},
        {"min_score": 2.0},
        {"batch_size": 0},
        {"classes": ["wolf"]},
        {"classes": [7]},
    ):
        with pytest.raises(UserError):
            localizer.localize([noise(8, 8)], **wrong)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": {"name": "wolf"}}, "unknown method 'wolf'"),
        ({"method": {"name": "os:system"}}, "would import code"),
        ({"method": {"name": "tests.unit.model_folders:make_run"}}, "would import code"),
        ({"method": CAM | {"arch": "hf-hub:someone/model"}}, "timm has no model"),
        ({"method": CAM | {"image_px": -1}}, "allowed: 1 or more"),
        ({"method": 3}, "method.name is missing"),
    ],
)
def test_a_foreign_configuration_is_refused_in_a_line(
    run: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    foreign = tmp_path / "foreign"
    (foreign / "checkpoints").mkdir(parents=True)
    (foreign / "checkpoints" / "step-00000003").symlink_to(run / "checkpoints" / "step-00000003")
    tree = yaml.safe_load((run / "config.yaml").read_text()) | change
    (foreign / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=says) as error:
        wsol_dist.load(foreign)
    assert "\n" not in str(error.value)


def test_yaml_that_would_run_code_does_not(run: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    (foreign / "checkpoints").mkdir(parents=True)
    (foreign / "checkpoints" / "step-00000003").symlink_to(run / "checkpoints" / "step-00000003")
    victim = tmp_path / "ran"
    (foreign / "config.yaml").write_text(f"method: !!python/object/apply:os.mkdir ['{victim}']\n")
    with pytest.raises(UserError, match="could not determine a constructor"):
        wsol_dist.load(foreign)
    assert not victim.exists()


def test_no_model_is_said_in_a_line(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        wsol_dist.load(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no config\.yaml"):
        wsol_dist.load(tmp_path)
    with pytest.raises(UserError, match="has no checkpoint 9; it has 3"):
        wsol_dist.load(run, step="9")
    with pytest.raises(UserError, match=r"must be in \[0, 1\)"):
        wsol_dist.load(run, threshold=1.0)
