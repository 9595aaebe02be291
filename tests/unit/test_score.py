"""`wsol score`: maps that other code wrote get the numbers that our own would, and mistakes are one line."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.hue import Hue, HueConfig, config, write_checkpoint, write_run
from wsol_dist.cli import main
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import evaluation_batches
from wsol_dist.evaluator.localize import localize_true_class

SIZE = ["--evaluate.size-px", "32", "--evaluate.cases", "2"]
NEEDS_CLASSES = {"top1_loc", "top5_loc", "cls_top1", "cls_top5"}


@pytest.fixture(scope="module")
def written(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What some other code could have left: maps of val and test as ID.npy, and predicted classes."""
    folder = tmp_path_factory.mktemp("maps")
    index, method = Index.load(tiny_shards), Hue(HueConfig(), 8)
    for split in ("val", "test"):
        lines, ids, top5 = ["id,class"], [], []
        for batch in evaluation_batches(
            index, split=split, rank=0, world=1, batch_size=8, workers=0, image_px=method.image_px
        ):
            prob_BC, map_Bhw = localize_true_class(method, batch, torch.device("cpu"))
            for truth, prob_C, map_hw in zip(batch.truths, prob_BC, map_Bhw, strict=True):
                path = folder / split / f"{truth.id}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, map_hw)
                best = np.argsort(-prob_C, kind="stable")[:5]
                lines.append(f"{truth.id},{index.classes[best[0]]}")
                ids.append(truth.id)
                top5.append(best)
        (folder / f"{split}.csv").write_text("\n".join(lines))
        np.savez(folder / f"{split}.npz", ids=np.array(ids), predicted=np.array(top5))
    return folder


@pytest.fixture(scope="module")
def ours(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model scored as a run of ours, its maps kept."""
    run, recipe = tmp_path_factory.mktemp("ours") / "run", config(tiny_shards)
    write_run(run, recipe)
    write_checkpoint(run, recipe, 1)
    assert main(["evaluate", str(run), "--split", "val,test", "--save-maps"]) == 0
    return run


def numbers(folder: Path, step: int = 0, split: str = "test") -> dict[str, dict[str, Any]]:
    record = json.loads((folder / "eval" / f"{split}-step-{step:08d}.json").read_text())
    return {number["name"]: number for number in record["metrics"]}


def test_maps_in_a_folder_get_the_numbers_of_the_model_that_made_them(
    tiny_shards: Path, written: Path, ours: Path, tmp_path: Path
) -> None:
    given = ["--maps", str(written / "test"), "--val-maps", str(written / "val")]
    classes = ["--predictions", str(written / "test.npz")]
    out = ["--index", str(tiny_shards), "--out", str(tmp_path / "x"), *SIZE]
    assert main(["score", *given, *classes, *out]) == 0
    # Stored as float32, nothing is lost: every number and its threshold are those of the model itself.
    assert numbers(tmp_path / "x") == numbers(ours, step=1)
    assert (tmp_path / "x" / "test-scorings.jsonl").is_file()


def test_one_models_threshold_and_scores_are_not_anothers(
    tiny_shards: Path, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two models whose folders of maps are called alike, as by default the folders of their scores are."""
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        for split in ("val", "test"):
            shutil.copytree(written / split, tmp_path / name / split)
    out = ["--index", str(tiny_shards), "--out", str(tmp_path / "runs" / "test"), *SIZE]
    maps = {name: ["--maps", str(tmp_path / name / "test")] for name in ("A", "B")}
    val_maps = ["--val-maps", str(tmp_path / "A" / "val")]
    assert main(["score", *maps["A"], *val_maps, "--threshold", "val", *out]) == 0
    record = tmp_path / "runs" / "test" / "eval" / "test-step-00000000.json"
    before = record.read_bytes()
    assert json.loads(before)["threshold"]["source"] == "val"
    capsys.readouterr()
    for more in ([], ["--threshold", "val"]):
        assert main(["score", *maps["B"], *more, *out]) == 2
        assert "give the maps of 'val' with --val-maps" in capsys.readouterr().err
    for more in (["--threshold", "oracle"], ["--val-maps", str(tmp_path / "B" / "val")]):
        assert main(["score", *maps["B"], *more, *out]) == 2
        said = capsys.readouterr().err
        assert "holds the scores of" in said
        assert "give another --out or --name" in said
        assert record.read_bytes() == before
    assert main(["score", *maps["A"], "--threshold", "oracle", *out]) == 0  # the same maps once more
    assert json.loads(record.read_bytes())["threshold"]["source"] == "oracle"


def test_without_classes_only_what_needs_none_is_said(
    tiny_shards: Path, written: Path, ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--maps", str(written / "test"), "--val-maps", str(written / "val")]
    assert main(["score", *given, "--index", str(tiny_shards), "--out", str(tmp_path / "x"), *SIZE]) == 0
    found, own = numbers(tmp_path / "x"), numbers(ours, step=1)
    assert found == {
        name: number for name, number in own.items() if name not in NEEDS_CLASSES and "error/" not in name
    }
    assert not any(name in capsys.readouterr().out for name in NEEDS_CLASSES)
    record = json.loads((tmp_path / "x" / "eval" / "test-step-00000000.json").read_text())
    assert not NEEDS_CLASSES & record["curves"].keys()


def test_one_class_an_image_gives_top1_and_no_top5(
    tiny_shards: Path, written: Path, ours: Path, tmp_path: Path
) -> None:
    given = ["--maps", str(written / "test"), "--predictions", str(written / "test.csv")]
    out = ["--index", str(tiny_shards), "--out", str(tmp_path / "x"), "--threshold", "0.5", *SIZE]
    assert main(["score", *given, *out]) == 0
    found = numbers(tmp_path / "x")
    assert found["cls_top1"]["value"] == numbers(ours, step=1)["cls_top1"]["value"]
    assert {"cls_top5", "top5_loc"}.isdisjoint(found)
    assert found["top1_loc"]["threshold_source"] == "fixed"


def test_our_own_saved_maps_and_a_tar_of_8_bit_maps_agree(
    tiny_shards: Path, ours: Path, tmp_path: Path
) -> None:
    saved = ours / "eval" / "test-step-00000001-maps"
    out = ["--index", str(tiny_shards), "--threshold", "oracle", *SIZE]
    assert main(["score", "--maps", str(saved), "--out", str(tmp_path / "column"), *out]) == 0
    # The same 8-bit maps as someone else would hand them over: a tar of a folder.
    from wsol_dist.data.shards.columns import Column

    index = Index.load(tiny_shards)
    column, rows = Column.open(saved, index), index.rows("test")
    for row in range(len(rows)):
        path = tmp_path / "maps" / f"{rows.ids[row].as_py()}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, column.value("test", row))
    with tarfile.open(tmp_path / "maps.tar", "w") as tar:
        tar.add(tmp_path / "maps", arcname="maps")
    assert main(["score", "--maps", str(tmp_path / "maps.tar"), "--out", str(tmp_path / "tar"), *out]) == 0
    assert numbers(tmp_path / "tar") == numbers(tmp_path / "column")
    exact, coarse = numbers(ours, step=1)["pxap"]["value"], numbers(tmp_path / "tar")["pxap"]["value"]
    assert coarse == pytest.approx(exact, abs=0.5)


def test_saving_maps_again_does_nothing_and_a_missing_tar_is_made_again(ours: Path) -> None:
    folder = ours / "eval" / "test-step-00000001-maps"
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    again = ["evaluate", str(ours), "--split", "test", "--save-maps"]
    assert main(again) == 0
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before
    # As a job leaves it that was killed after some shards.
    whole = json.loads((folder / "column.json").read_text())
    (folder / "column.json").rename(folder / "begun.json")
    (folder / "test-000002.tar").unlink()
    assert main(again) == 0
    assert json.loads((folder / "column.json").read_text())["shards"] == whole["shards"]
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert [name for name, time_ns in sorted(times.items()) if time_ns != before[name][0]] == [
        "test-000002.tar"
    ]


def damaged(written: Path, tmp_path: Path, kind: str) -> str:
    """A copy of the test maps, the third of them wrong; returns what is wrong with it."""
    folder = tmp_path / "copy"
    shutil.copytree(written / "test", folder)
    path = sorted(folder.rglob("*.npy"))[2]
    image_id = str(path.relative_to(folder)).removesuffix(".npy")
    if kind == "missing":
        path.unlink()
        return f"no map for 1 of 40 images: {image_id}; a map is called ID.npy"
    if kind == "three dimensions":
        np.save(path, np.zeros((1, 4, 4), np.float32))
        return f"the map of {image_id}: shape (1, 4, 4) given, a map is (height, width)"
    if kind == "not finite":
        np.save(path, np.full((4, 4), np.nan, np.float32))
        return f"{image_id}: the score map holds NaN"
    if kind == "objects":
        np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
        return f"the map of {image_id}: "
    path.write_bytes(b"not an array")
    return f"the map of {image_id}: "


@pytest.mark.parametrize("kind", ["missing", "three dimensions", "not finite", "objects", "no array"])
def test_a_bad_map_is_named(
    tiny_shards: Path, written: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = damaged(written, tmp_path, kind)
    arguments = [
        "--maps",
        str(tmp_path / "copy"),
        "--index",
        str(tiny_shards),
        "--threshold",
        "oracle",
        *SIZE,
    ]
    assert main(["score", *arguments, "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the threshold of 'test' is the one that 'val' chooses; give the maps of 'val' with --val-maps"),
        (["--threshold", "val"], "--val-maps, or say --threshold oracle, fixed or a number"),
        (["--split", "val", "--threshold", "val"], "'val' is what is to be scored"),
        (["--maps", "nowhere", "--threshold", "fixed"], "nowhere: no such folder or tar of score maps"),
        (["--split", "tset"], "did you mean 'test'"),
        (["--index", "nowhere"], "no such folder of shards"),
        (["--threshold", "2"], "must be in [0, 1)"),
        (["--threshold", "fixed", "--predictions", "nowhere.csv"], "cannot be read as predicted classes"),
        (["--threshold", "fixed", "--predictions", "CLASSES"], "class 'nothing': no name or number"),
        (["--threshold", "fixed", "--evaluate.select", "top1_loc"], "top1_loc needs predicted classes"),
    ],
)
def test_mistakes_are_one_line(
    tiny_shards: Path,
    written: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "classes.csv").write_text("a,nothing\n")
    arguments = [str(tmp_path / "classes.csv") if one == "CLASSES" else one for one in arguments]
    start = [
        "score",
        "--maps",
        str(written / "test"),
        "--index",
        str(tiny_shards),
        "--out",
        str(tmp_path / "x"),
    ]
    assert main([*start, *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_a_tar_with_a_name_twice_or_compressed_is_refused(
    tiny_shards: Path, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = next((written / "test").rglob("*.npy"))
    for name, mode in (("twice.tar", "w"), ("packed.tar.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as tar:  # type: ignore[call-overload]
            tar.add(one, arcname="a.npy")
            tar.add(one, arcname="a.npy")
    arguments = ["--index", str(tiny_shards), "--threshold", "oracle", "--out", str(tmp_path / "x")]
    assert main(["score", "--maps", str(tmp_path / "twice.tar"), *arguments]) == 2
    assert "holds a.npy several times" in capsys.readouterr().err
    assert main(["score", "--maps", str(tmp_path / "packed.tar.gz"), *arguments]) == 2
    assert "no plain tar" in capsys.readouterr().err
