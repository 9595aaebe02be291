"""Opening a run: which checkpoint is taken, and that every command takes the same."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tests.unit.model_folders import CAM, make_images, make_run
from wsol_dist.cli import main
from wsol_dist.errors import UserError
from wsol_dist.prediction.opening import open_model
from wsol_dist.recipe import dump, from_dict
from wsol_dist.runs.checkpoint import step_folder
from wsol_dist.runs.model import build_method, initialise
from wsol_dist.runs.opening import OpenedRun, find_weights, open_run
from wsol_dist.runs.run_state import write_best


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Checkpoints 3, 5 and 7."""
    folder = make_run(tmp_path / "run")
    for step in (5, 7):
        shutil.copytree(step_folder(folder, 3), step_folder(folder, step))
    return folder


def best_is(run: Path, step: int) -> None:
    write_best(run, {"step": step, "metric": "gt_known", "split": "val"})


def test_the_best_is_taken_else_the_newest(run: Path) -> None:
    opened = open_run(run)
    assert (opened.step, opened.name, opened.whole, opened.folder) == (7, "step-00000007", True, run)
    assert opened.chosen == f"weights: {step_folder(run, 7)}, the newest (no best.json)"
    best_is(run, 5)
    opened = open_run(run)
    assert (opened.step, opened.weights) == (5, step_folder(run, 5) / "model.safetensors")
    assert opened.chosen == (
        f"weights: {step_folder(run, 5)}, the best by gt_known on val (best.json); --step last for 7"
    )
    assert open_model(run).step == 5
    assert find_weights(run) == opened.weights


def test_a_best_that_is_gone_is_said(run: Path) -> None:
    best_is(run, 4)
    assert open_run(run).step == 7
    assert open_run(run).chosen.endswith("the newest (the best, step 4, is not there)")
    with pytest.raises(UserError, match="no checkpoint 4; it has 3, 5, 7"):
        open_run(run, step="best")


@pytest.mark.parametrize(("given", "step"), [("3", 3), ("best", 5), ("last", 7)])
def test_a_step_is_named(run: Path, given: str, step: int) -> None:
    best_is(run, 5)
    assert open_run(run, step=given).step == open_model(run, step=given).step == step
    assert f"--step {given}" in open_run(run, step=given).chosen


def test_what_is_no_step(run: Path) -> None:
    for given, words in (("4", "it has 3, 5, 7"), ("newest", "best or last"), ("best", "has no best.json")):
        with pytest.raises(UserError, match=words):
            open_run(run, step=given)
    for target, init in ((run, run), ("quickstart", None)):
        with pytest.raises(UserError, match="--step: chooses a checkpoint of a RUN"):
            open_run(target, step="3", init=init)


def test_other_weights_and_recipes(run: Path, tmp_path: Path) -> None:
    file = step_folder(run, 3) / "model.safetensors"
    for init in (file, file.parent):
        opened = open_run(run, init=init)
        assert (opened.weights, opened.step, opened.whole) == (file, 0, False)
    opened = open_run("quickstart", overrides=["--seed", "3"])
    assert (opened.weights, opened.folder, opened.config.seed) == (None, None, 3)
    with pytest.raises(UserError, match="neither a weight file nor a run folder"):
        open_run("quickstart", init=tmp_path / "nothing")


def test_one_checkpoint_is_opened_by_its_folder_or_file(run: Path) -> None:
    best_is(run, 5)
    folder = step_folder(run, 3)
    for target in (folder, folder / "model.safetensors"):
        opened = open_run(target)
        assert (opened.weights, opened.step, opened.name) == (
            folder / "model.safetensors",
            3,
            "step-00000003",
        )
        assert (opened.folder, opened.whole) == (run, True)
    averaged = folder / "ema.safetensors"
    shutil.copy(folder / "model.safetensors", averaged)
    assert open_run(folder).weights == averaged
    assert open_run(averaged).name == "step-00000003 (averaged weights, train.ema)"
    assert open_run(folder / "model.safetensors").weights == folder / "model.safetensors"
    shutil.copytree(folder, run.parent / "elsewhere")
    opened = open_run(run.parent / "elsewhere")
    assert (opened.step, opened.folder, opened.whole) == (0, None, True)
    assert open_model(folder).path == run
    assert open_model(run.parent / "elsewhere").threshold.source == "fixed"
    with pytest.raises(UserError, match="--step"):
        open_run(folder, step="3")


def exported(run: Path) -> tuple[Path, OpenedRun]:
    assert main(["export", str(run), "--out", str(run.parent / "model"), "--formats", "none"]) == 0
    return run.parent / "model", open_run(run.parent / "model")


def test_an_exported_model_opens_too(run: Path) -> None:
    best_is(run, 5)
    model, opened = exported(run)
    assert (opened.weights, opened.step, opened.whole) == (model / "model.safetensors", 5, True)
    assert open_run(model / "model.safetensors") == opened
    assert opened.folder is None  # its results go elsewhere: the folder is shipped as it is
    with pytest.raises(UserError, match="--step"):
        open_run(model, step="5")
    (model / "config.yaml").write_text((model / "config.yaml").read_text() + "\n")
    with pytest.raises(UserError, match="not the file that was exported"):
        open_run(model)
    (model / "SHA256SUMS").unlink()  # without the list it is no checkpoint of one's own either
    for broken in (lambda: open_run(model), lambda: find_weights(model), lambda: open_model(model)):
        with pytest.raises(UserError, match="SHA256SUMS: missing"):
            broken()


def test_code_is_imported_for_a_run_of_ones_own_only(run: Path, tmp_path: Path) -> None:
    config = from_dict({"method": CAM}, origin="test")
    named = dump(dataclasses.replace(config, method_name="wsol_dist.methods.cam.network:CAM"))
    (run / "config.yaml").write_text(named)
    assert open_run(run).config.method_name.endswith(":CAM")
    with pytest.raises(UserError, match="would import code"):
        open_run(run, trust_code=False)
    with pytest.raises(UserError, match="would import code"):
        open_model(run)
    shutil.copytree(step_folder(run, 3), tmp_path / "stray")
    (tmp_path / "stray/config.yaml").write_text(named)
    with pytest.raises(UserError, match="would import code"):
        open_run(tmp_path / "stray")
    assert open_run(tmp_path / "stray", trust_code=True).step == 0


def test_commands_print_which_it_is(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best_is(run, 5)
    images, line = make_images(tmp_path / "photos", num=1), open_run(run).chosen
    pack = ["shards", "pack", "folder", "--root", str(images), "--out", str(tmp_path / "shards")]
    assert main([*pack, "--val-fraction", "0"]) == 0
    score = ["--index", str(tmp_path / "shards"), "--split", "train", "--threshold", "fixed"]
    assert main(["evaluate", str(run), *score]) == 0
    assert line in capsys.readouterr().out
    record = json.loads((run / "eval/train-step-00000005.json").read_text())
    assert record["checkpoint"] == "step-00000005"
    assert main(["predict", str(run), str(images), "--out", str(tmp_path / "labels")]) == 0
    assert line in capsys.readouterr().out
    assert main(["export", str(run), "--formats", "none"]) == 0
    assert line in capsys.readouterr().out
    assert main(["evaluate", str(run / "exported"), *score]) == 2
    assert "--out: needed" in capsys.readouterr().err
    out = tmp_path / "scored"
    assert main(["evaluate", str(run / "exported"), *score, "--out", str(out)]) == 0
    again = json.loads((out / "eval/train-step-00000005.json").read_text())
    assert again["metrics"] == record["metrics"]
    for command in (
        ["search", str(run), "--out", str(tmp_path / "trials"), "--dry-run"],
        [
            "pseudo-label",
            str(run),
            "--out",
            str(tmp_path / "pseudo"),
            "--split",
            "train",
            "--threshold",
            "0.4",
        ],
        ["cluster", "--embeddings", str(run), "--out", str(tmp_path / "clusters"), "--dry-run"],
    ):
        main([*command, *score[:2]])
        assert line in capsys.readouterr().out, command


def test_an_export_of_one_checkpoint_lies_in_its_run(run: Path) -> None:
    assert main(["export", str(step_folder(run, 3)), "--formats", "none"]) == 0
    assert open_run(run / "exported").step == 3


def test_weight_files_that_are_not_there_open_nothing_else(run: Path) -> None:
    for name in ("model.safetensors", "ema.safetensors"):
        with pytest.raises(UserError, match="no such weight file"):
            open_run(run / name)


def test_paths_may_be_relative_and_weights_links(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = step_folder(run, 3) / "model.safetensors"
    file.rename(run.parent / "blob")
    file.symlink_to(run.parent / "blob")
    monkeypatch.chdir(run / "checkpoints")
    for target in ("step-00000003", "step-00000003/model.safetensors"):
        opened = open_run(target)
        assert (opened.step, opened.name, opened.folder) == (3, "step-00000003", run)


def test_training_starts_from_the_last_checkpoint(run: Path) -> None:
    """Whether or not somebody scored the run in the meantime."""
    best_is(run, 5)
    config = from_dict({"method": CAM, "train": {"init": [str(run)]}}, origin="test")
    notes = initialise(build_method(config, num_classes=3), config)
    assert notes[0].startswith(f"starts from {step_folder(run, 7)}")
