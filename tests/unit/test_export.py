"""`wsol export`: what is written, that the graphs give what the model gives, and what is refused."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import wsol_dist
from tests.unit.model_folders import CLASSES, make_run, noise
from wsol_dist.cli import main
from wsol_dist.errors import UserError
from wsol_dist.exporting import export as exporting
from wsol_dist.exporting.graph import Deployed, save_onnx, to_program
from wsol_dist.methods.mmcst.config import MMCSTConfig
from wsol_dist.registry import METHODS, method_class

FILES = {
    "README.md",
    "config.yaml",
    "labels.json",
    "model.json",
    "model.onnx",
    "model.pt2",
    "model.safetensors",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("a run") / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    """The exported folder, its graphs of two classes."""
    folder = run.parent / "a model"
    assert main(["export", str(run), "--out", str(folder), "--threshold", "0.3", "--top-k", "2"]) == 0
    return folder


@pytest.fixture
def own_model(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def test_everything_is_there_and_named_in_the_sums(model: Path) -> None:
    assert {path.name for path in model.iterdir()} == FILES | {"SHA256SUMS"}
    assert {line.split("  ")[1] for line in (model / "SHA256SUMS").read_text().splitlines()} == FILES
    assert json.loads((model / "labels.json").read_text()) == list(CLASSES)


def test_the_model_folder_localizes_as_the_run_does(run: Path, model: Path) -> None:
    images = [noise(40, 30, seed=seed) for seed in range(3)]
    there = wsol_dist.load(run, threshold=0.3, device="cpu").localize(images)
    loaded = wsol_dist.load(model, device="cpu")
    assert (loaded.threshold.value, loaded.threshold.source, loaded.opened.step) == (0.3, "fixed", 3)
    for one, other in zip(there, loaded.localize(images), strict=True):
        assert one.classes[0].boxes == other.classes[0].boxes
        np.testing.assert_array_equal(one.prob_C, other.prob_C)


@pytest.mark.parametrize("batch", [1, 4])
def test_onnxruntime_alone_gives_what_the_model_gives(model: Path, batch: int) -> None:
    import onnxruntime

    loaded = wsol_dist.load(model, device="cpu")
    pictures = [noise(64, 64, seed=seed) for seed in range(batch)]
    session = onnxruntime.InferenceSession(model / "model.onnx")
    images = np.stack([np.asarray(picture) for picture in pictures])
    scores, classes, maps = session.run(None, {"images": images})
    assert maps.shape == (batch, 2, 64, 64)
    about = json.loads((model / "model.json").read_text())
    for at, found in enumerate(loaded.localize(pictures, top_k=2)):
        np.testing.assert_allclose(scores[at], found.prob_C, atol=1e-5)
        assert classes[at].tolist() == [one.label for one in found.classes]
        for map_hw, one in zip(maps[at], found.classes, strict=True):
            np.testing.assert_allclose(map_hw, one.heat_map, atol=1e-3)
            assert ((map_hw >= about["threshold"]["keep_from"]) != one.mask).mean() < 0.01


def test_the_torch_program_gives_what_the_model_gives(model: Path) -> None:
    program = torch.export.load(model / "model.pt2").module()
    pictures = [noise(64, 64, seed=seed) for seed in range(3)]
    scores, _, _ = program(torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])))
    found = wsol_dist.load(model, device="cpu").localize(pictures)
    np.testing.assert_allclose(scores.numpy(), np.stack([one.prob_C for one in found]), atol=1e-5)


def test_the_card_says_what_the_run_knows(model: Path) -> None:
    card = (model / "README.md").read_text()
    for text in (
        "the method `cam`",
        "cat & dog",
        "were not scored",
        "Seed: 0",
        "To be filled in",
        "(fixed, as given)",
    ):
        assert text in card


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_becomes_a_graph_of_any_batch_size(name: str, tmp_path: Path) -> None:
    chosen = method_class(name)
    config = chosen.tiny_config()
    if isinstance(config, MMCSTConfig):  # each view is the network once more
        config = dataclasses.replace(config, scales=(1.0,), flip=False)
    torch.manual_seed(0)
    method = chosen(config, 4).eval().requires_grad_(False)
    normalise = "max" if name == "weight_map" else "min_max"
    deployed = Deployed(method, top_k=2, size_px=48, normalise=normalise).eval()
    save_onnx(deployed, to_program(deployed), tmp_path / "model.onnx")
    for batch in (1, 3):
        live = [one.numpy() for one in deployed(deployed.example(batch))]
        scores, classes, maps = exporting.run_onnx(tmp_path / "model.onnx", deployed.example(batch))
        np.testing.assert_allclose(scores, live[0], atol=1e-5)
        np.testing.assert_array_equal(classes, live[1])
        np.testing.assert_allclose(maps, live[2], atol=1e-3)
        assert maps.min() >= 0
        assert maps.max() == pytest.approx(1, abs=1e-5)


class Stubborn(torch.nn.Module):
    """A method that looks at its pixels in Python, which no graph can."""

    image_px, mean, std = 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def localize(self, image_BCHW: torch.Tensor, class_BK: object = None) -> object:
        return None if float(image_BCHW.sum()) > 0 else 1


def test_what_cannot_be_exported_says_so_in_a_line() -> None:
    deployed = Deployed(Stubborn(), top_k=1, size_px=8, normalise="min_max")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Stubborn with these knobs cannot be exported") as error:
        to_program(deployed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "model.json"])
def test_a_changed_or_missing_file_is_refused(own_model: Path, name: str) -> None:
    data = bytearray((own_model / name).read_bytes())
    data[-2] ^= 1
    (own_model / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: not the file that was exported"):
        wsol_dist.load(own_model)
    (own_model / name).unlink()
    with pytest.raises(UserError, match="missing" if name != "config.yaml" else r"no config\.yaml"):
        wsol_dist.load(own_model)


def test_a_file_without_a_sum_is_refused(own_model: Path) -> None:
    sums = (own_model / "SHA256SUMS").read_text().splitlines()
    (own_model / "SHA256SUMS").write_text("\n".join(line for line in sums if "config" not in line))
    with pytest.raises(UserError, match=r"does not list config\.yaml"):
        wsol_dist.load(own_model)


def test_a_disk_that_fills_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Path.write_text

    def full(path: Path, *text: str, **named: str) -> int:
        if path.name != "SHA256SUMS":  # the last one
            return write(path, *text, **named)
        assert (path.parent / "model.safetensors").exists()
        raise OSError(errno.ENOSPC, "No space left on device", "SHA256SUMS")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["export", str(run), "--out", str(tmp_path / "model"), "--formats", "none"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_said_in_a_line(run: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        ([str(run), "--out", str(model)], "is there already"),
        ([str(model), "--out", "x"], "an exported model already"),
        ([str(run), "--formats", "onx"], "did you mean 'onnx'"),
        ([str(run), "--top-k", "9"], "the model has 3 classes"),
        (["nothing"], "no such folder"),
    ):
        assert main(["export", *arguments]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
