"""wsol pseudo-label: score maps to label maps, with val's threshold, resumable; what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_multi_label import CLASSES, PX, pack
from wsol_dist.cli import main
from wsol_dist.columns.pseudo_labels import score_labels
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.label_maps import LabelMaps
from wsol_dist.processes.ranks import Ranks

RECIPE = """
name: plain
method: {{name: cam, arch: resnet10t, image_px: 64}}
data: {{index: "{index}"}}
evaluate: {{select: miou, size_px: 48, batch_size: 8, workers: 0, cases: 0, cases_best: 0, cases_worst: 0}}
track: {{wandb: "off"}}
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("multi") / "shards")


@pytest.fixture(scope="module")
def recipe(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "plain.yaml"
    path.write_text(RECIPE.format(index=shards))
    return str(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which runs/plain is made."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def label(recipe: str, *words: str, out: str = "labels") -> int:
    return main(["pseudo-label", recipe, "--out", out, "--workers", "0", *words])


def values(folder: Path, shards: Path, split: str) -> list[np.ndarray]:
    index = Index.load(shards)
    maps = LabelMaps.open(folder, index, split)
    return [maps.read(row) for row in range(len(index.rows(split)))]


def test_label_maps_with_the_threshold_that_val_chose(
    shards: Path, recipe: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(recipe) == 2
    assert "run first: wsol evaluate" in capsys.readouterr().err
    assert main(["evaluate", recipe, "--split", "val"]) == 0
    record = json.loads((folder / "runs/plain/eval/val-step-00000000.json").read_text())
    best = next(one for one in record["metrics"] if one["name"] == "max_miou")
    assert label(recipe, "--split", "train,val", "--size-px", str(PX)) == 0
    said = capsys.readouterr().out
    assert f"threshold {best['threshold']:.3f} as chosen on val" in said
    assert f"threshold {best['threshold']:.3f} (val)" in said

    index = Index.load(shards)
    made = Column.open(folder / "labels", index).about.settings["threshold"]
    assert made["source"] == "val"
    assert made["value"] == best["threshold"]
    assert made["from"] == "eval/val-step-00000000.json"
    rows, found = index.rows("train"), values(folder / "labels", shards, "train")
    for row, label_HW in enumerate(found):
        assert label_HW.shape == (PX, PX)
        assert set(np.unique(label_HW)) <= {0, *(one + 1 for one in rows.labels(row))}
    assert np.mean([label_HW.any() for label_HW in found]) > 0.9
    # The evaluator's mIoU at this threshold, but for how the maps are enlarged.
    again = score_labels(folder / "labels", index, "val", Ranks())
    assert again == pytest.approx(best["value"], abs=1.0)


def test_cut_off_it_goes_on_and_a_second_run_does_nothing(
    recipe: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ("--threshold", "0.3")
    assert label(recipe, *fixed) == 0
    assert "threshold 0.300 (fixed)" in capsys.readouterr().out
    whole = {path.name: path.read_bytes() for path in (folder / "labels").glob("*.tar")}
    shutil.move(folder / "labels/column.json", folder / "labels/begun.json")
    sorted((folder / "labels").glob("*.tar"))[1].unlink()
    assert label(recipe, *fixed) == 0
    assert f"{len(whole) - 1} are there already" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (folder / "labels").glob("*.tar")} == whole
    assert label(recipe, *fixed) == 0
    assert "complete, nothing to do" in capsys.readouterr().out
    assert label(recipe, "--threshold", "0.4") == 2
    assert "holds another column (settings differ)" in capsys.readouterr().err


def test_a_margin_leaves_pixels_unknown_and_a_crf_smooths(shards: Path, recipe: str, folder: Path) -> None:
    plain = ("--threshold", "0.3", "--size-px", "32", "--split", "val")
    assert label(recipe, *plain, out="plain") == 0
    assert label(recipe, *plain, "--ignore-margin", "0.1", out="margin") == 0
    assert label(recipe, *plain, "--crf.iterations", "5", "--crf.appearance", "0", out="crf") == 0
    without, margin, smooth = (
        np.stack(values(folder / n, shards, "val")) for n in ("plain", "margin", "crf")
    )
    unknown = margin == 255
    assert 0.02 < unknown.mean() < 0.6
    assert np.array_equal(margin[~unknown], without[~unknown])

    def borders(label_NHW: np.ndarray) -> int:
        return int((label_NHW[:, 1:] != label_NHW[:, :-1]).sum())

    assert borders(smooth) < borders(without)


def test_refined_by_clusters(shards: Path, recipe: str, folder: Path) -> None:
    words = ["--index", str(shards), "--out", "clusters", "--backend", "slic", "--size-px", "32"]
    assert main(["cluster", *words, "--segments", "12", "--split", "val", "--procs", "1"]) == 0
    common = ("--threshold", "0.3", "--size-px", "32", "--split", "val")
    assert label(recipe, *common, out="plain") == 0
    assert label(recipe, *common, "--refine.labels", "clusters", "--refine.alpha", "1.0", out="refined") == 0
    plain, refined = (np.stack(values(folder / name, shards, "val")) for name in ("plain", "refined"))
    clusters = Column.open(folder / "clusters", Index.load(shards))
    cluster_HW = clusters.value("val", 0)
    assert all(len(np.unique(refined[0][cluster_HW == one])) == 1 for one in np.unique(cluster_HW))
    assert any(len(np.unique(plain[0][cluster_HW == one])) > 1 for one in np.unique(cluster_HW))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threshold", "oracle"), "--threshold oracle: label maps are made where no truth is known"),
        (("--threshold", "1.5"), "a number must be in [0, 1)"),
        (("--threshold", "0.3", "--split", "nothing"), "'nothing'"),
        (("--threshold", "0.3", "--method.arch", "resnet0"), "timm has no model 'resnet0'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_mistakes_cost_a_line(
    words: tuple[str, ...], message: str, recipe: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(recipe, *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ignore-margin", "2"), "--ignore-margin: given 2.0; allowed: from 0 to below 1"),
        (("--crf.radius", "0"), "--crf.radius: given 0; allowed: 1 or more"),
    ],
)
def test_knobs_that_cannot_be(
    words: tuple[str, ...], message: str, recipe: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(recipe, "--threshold", "0.3", *words) == 2
    assert message in capsys.readouterr().err


def test_one_map_for_all_classes_makes_no_label_map(
    shards: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "agnostic.yaml"
    path.write_text(f"name: a\nmethod: {{name: weight_map}}\ndata: {{index: '{shards}'}}\n")
    assert label(str(path), "--threshold", "0.3") == 2
    assert "has one map whatever the class" in capsys.readouterr().err
    assert main(["pseudo-label", "runs/nothing", "--out", "labels"]) == 2
    assert "unknown recipe 'runs/nothing'" in capsys.readouterr().err
    assert len(CLASSES) == 8
