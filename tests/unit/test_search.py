"""The held-out search: only the held-out split, each trial kept, scores as the evaluator's, a table at the end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.hue import config, write_checkpoint, write_run
from wsol_dist.cli import main
from wsol_dist.columns.search import Search, draw
from wsol_dist.evaluator.work import plan_work
from wsol_dist.regions.cluster import backend_config
from wsol_dist.runs.opening import open_run
from wsol_dist.validation import validated


@pytest.fixture(scope="module")
def run_folder(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "hue"
    write_run(folder, config(tiny_shards))
    write_checkpoint(folder, config(tiny_shards), 1)
    return folder


def search(run_folder: Path, shards: Path, out: Path, *extra: str) -> int:
    flags = ["--index", str(shards), "--out", str(out), "--size-px", "16", "--workers", "0"]
    return main(["search", str(run_folder), *flags, *extra])


def trials(out: Path) -> dict[str, tuple[int, dict[str, object]]]:
    return {path.name: (path.stat().st_mtime_ns, json.loads(path.read_text())) for path in out.glob("*.json")}


def test_trials_are_kept_and_a_second_run_only_prints(
    run_folder: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "search"
    assert search(run_folder, tiny_shards, out, "--trials", "4") == 0
    said = capsys.readouterr().out
    before = trials(out)
    assert sorted(before) == ["none.json", "search.json", *(f"trial-{n:03d}.json" for n in range(4))]
    assert "val, 24 images; gt_known at each trial's best threshold (oracle: it chooses)" in said
    assert "paired 95 % interval" in said
    assert search(run_folder, tiny_shards, out, "--trials", "5") == 0
    after = trials(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    # Test images were never looked at.
    assert before["search.json"][1]["split"] == "val"
    assert search(run_folder, tiny_shards, out, "--seed", "1") == 2
    assert "holds another search (seed differ)" in capsys.readouterr().err


def test_a_trial_scores_what_the_evaluator_scores_with_its_labels(
    run_folder: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    out, labels = tmp_path / "search", tmp_path / "labels"
    assert search(run_folder, tiny_shards, out, "--trials", "2", "--backends", "slic") == 0
    trial = trials(out)["trial-001.json"][1]
    knobs = [f"--{name}={value}" for name, value in trial["knobs"].items()]
    make = ["cluster", "--index", str(tiny_shards), "--out", str(labels), "--split", "val", "--size-px", "16"]
    assert main([*make, "--backend", "slic", "--procs", "1", "--workers", "0", *knobs]) == 0
    refine = ["--refine.labels", str(labels), "--refine.alpha", str(trial["alpha"])]
    evaluate = ["evaluate", str(run_folder), "--index", str(tiny_shards), "--split", "val", *refine]
    assert main([*evaluate, "--out", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run/eval/val-step-00000001.json").read_text())
    scored = {one["name"]: one["value"] for one in record["metrics"]}
    assert scored["gt_known"] == trial["numbers"]["gt_known"]
    assert np.mean(trial["hits"]) * 100 == pytest.approx(scored["gt_known"])
    # With label maps that are there alpha alone is drawn.
    assert search(run_folder, tiny_shards, tmp_path / "alpha", "--trials", "2", "--labels", str(labels)) == 0
    assert trials(tmp_path / "alpha")["trial-000.json"][1]["knobs"] == {}


@pytest.mark.parametrize("size_px", [2, 8, 64])
def test_draws_depend_on_seed_and_number_only_and_fit_their_backends(
    run_folder: Path, tiny_shards: Path, size_px: int
) -> None:
    work = plan_work(open_run(run_folder), index=str(tiny_shards), splits=("val",))
    given = Search(
        work=work,
        out=Path(),
        num_trials=40,
        seed=0,
        backends=("dic", "faiss", "slic"),
        labels=None,
        num_images=None,
        size_px=size_px,
        workers=0,
    )
    drawn = [draw(given, number) for number in range(40)]
    assert drawn == [draw(given, number) for number in range(40)]
    assert drawn != [draw(dataclasses.replace(given, seed=1), number) for number in range(40)]
    assert {trial.backend for trial in drawn} == {"dic", "faiss", "slic"}
    for trial in drawn:
        assert 0 < trial.alpha <= 1
        validated(backend_config(trial.backend), {"size_px": size_px, **trial.knobs})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "--trials: given 0; allowed: 1 or more"),
        (["--backends", "slic,fais"], "--backends: unknown backend 'fais'; did you mean 'faiss'?"),
        (["--refine.alpha", "2"], "--refine.alpha: given 2.0; allowed: 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(
    run_folder: Path,
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert search(run_folder, tiny_shards, tmp_path / "out", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
