"""The table of recipes: each row is chosen by what it says, and makes a recipe that can be trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from wsol_dist.errors import UserError
from wsol_dist.fitting.choose import TABLE, Seen, choose, configure, explain
from wsol_dist.fitting.weights import Weights, recognise
from wsol_dist.runs.model import build_method

PLAIN = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights(arch: str, *, folded: bool = False) -> Weights:
    family = "transformer" if "deit" in arch else "cnn"
    mean, std = PLAIN
    return Weights(
        path=Path(f"{arch}.safetensors"), arch=arch, family=family, mean=mean, std=std, folded=folded
    )


RESNET, DEIT = weights("resnet18"), weights("deit_tiny_patch16_224")


def seen(
    num_images: int, image_px: int, num_classes: int, *, gpu: bool = False, brought: Weights | None = None
) -> Seen:
    return Seen(num_images=num_images, image_px=image_px, num_classes=num_classes, gpu=gpu, weights=brought)


CHOICES = [
    (seen(1000, 300, 24, brought=DEIT), "transformer"),
    (seen(1000, 64, 24, brought=DEIT, gpu=True), "transformer"),
    (seen(1000, 64, 24, brought=RESNET), "cnn, small images"),
    (seen(100_000, 96, 24, brought=RESNET, gpu=True), "cnn, small images"),
    (seen(3_001, 300, 24, brought=RESNET), "cnn, many images"),
    (seen(3_000, 300, 24, brought=RESNET), "cnn"),
    (seen(3_001, 300, 24, brought=RESNET, gpu=True), "cnn"),
    (seen(50_000, 300, 24, gpu=True), "scratch, GPU, many images"),
    (seen(50_000, 64, 200, gpu=True), "scratch, GPU, many images"),
    (seen(50_000, 96, 200), "scratch, small images"),
    (seen(49_999, 97, 51), "scratch, many classes"),
    (seen(49_999, 97, 51, gpu=True), "scratch, many classes"),
    (seen(2_400, 128, 50), "scratch"),
    (seen(25, 4000, 2), "scratch"),
]


@pytest.mark.parametrize(("what", "row"), CHOICES, ids=lambda one: one if isinstance(one, str) else "")
def test_the_row_that_is_chosen(what, row):
    assert choose(what).name == row


def test_every_row_is_tried_here_and_no_two_have_one_name():
    names = [row.name for row in TABLE]
    assert set(names) == {row for _, row in CHOICES}
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_row_makes_a_recipe_that_builds(row):
    what = next(what for what, name in CHOICES if name == row.name)
    config, changes = configure(row, what, name="mine", index="run/shards", seed=3)
    assert (config.name, config.seed, config.data.index) == ("mine", 3, "run/shards")
    assert config.data.num_classes is None
    assert (
        changes["evaluate.threshold"] == config.evaluate.threshold
        if "evaluate.threshold" in changes
        else True
    )
    assert 0 < config.evaluate.threshold < 1
    method = build_method(config, num_classes=what.num_classes, read_files=False)
    found = method.localize(torch.zeros(1, 3, method.image_px, method.image_px))
    assert found.prob_BC.shape == (1, what.num_classes)
    assert torch.isfinite(found.map_BKhw).all()


@pytest.mark.parametrize("num_images", [20, 60, 200, 1_000, 10_000, 200_000])
def test_batch_and_epochs_follow_the_number_of_images(num_images):
    what = seen(num_images, 128, 4)
    config, _ = configure(choose(what), what, name="mine", index="x", seed=0)
    assert config.train.global_batch <= max(8, num_images)
    assert 14 <= config.train.epochs <= 100
    if num_images >= 64:
        assert num_images // config.train.global_batch >= 8
    assert config.train.epochs * num_images >= min(42_000, 100 * num_images) * 0.95


def test_explain_shows_every_row_and_marks_one():
    lines = list(explain(seen(2_400, 128, 8)))
    assert sum(line.startswith("->") for line in lines) == 1
    assert all(any(row.name in line and row.recipe in line for line in lines) for row in TABLE)
    assert any(line.startswith("-> scratch  ") and "+ no weights" in line for line in lines)
    assert any("- over 50 classes" in line for line in lines)
    assert lines[-1].startswith("chosen: scratch: ")


# ---- weights


def save(arch: str, path: Path, **metadata: str) -> Path:
    save_file(
        timm.create_model(arch, pretrained=False, num_classes=7).state_dict(), path, metadata=metadata or None
    )
    return path


@pytest.mark.parametrize("arch", ["resnet18", "deit_tiny_patch16_224", "mobilenetv2_100"])
def test_weights_are_recognised_whatever_their_classes(tmp_path, arch):
    found = recognise(save(arch, tmp_path / "w.safetensors"), None)
    assert found.arch == arch
    assert found.family == ("transformer" if "deit" in arch else "cnn")
    assert found.mean == PLAIN[0]


def test_weights_say_their_pixel_statistics_and_whether_norms_were_folded(tmp_path):
    state = timm.create_model("mobilenetv2_100", pretrained=False).state_dict()
    assert (
        recognise(save("mobilenetv2_100", tmp_path / "a.safetensors", mean="0.5,0.5,0.5"), None).mean
        == (0.5,) * 3
    )
    state["bn1.running_mean"] += 1
    torch.save(state, tmp_path / "b.pth")
    assert recognise(tmp_path / "b.pth", None).folded is False
    state["bn1.running_mean"] *= 0
    torch.save(state, tmp_path / "c.pth")
    assert recognise(tmp_path / "c.pth", None).folded is True


def test_weights_of_no_known_network_are_refused(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="name timm's architecture with --arch"):
        recognise(tmp_path / "w.safetensors", None)
    with pytest.raises(UserError, match="its tensors are not those of --arch resnet18"):
        recognise(save("resnet34", tmp_path / "x.safetensors"), "resnet18")
    with pytest.raises(UserError, match="timm has no model 'resnot'"):
        recognise(tmp_path / "x.safetensors", "resnot")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not a readable weight file"):
        recognise(tmp_path / "w.pth", None)
    assert not (tmp_path / "ran").exists()


def test_real_weights_are_recognised(real_data):
    found = recognise(real_data / "weights/mobilenetv2_100.imagenet1k.safetensors", None)
    assert (found.arch, found.mean, found.folded) == ("mobilenetv2_100", (0.5, 0.5, 0.5), True)
