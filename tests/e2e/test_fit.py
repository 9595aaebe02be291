"""`wsol fit` on class folders with boxes: from a folder to a scored run, started again, and with another folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsol_dist.cli import main
from wsol_dist.data.shards.index import Index
from wsol_dist.data.sources.collage import Options, Source

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KNOBS = [
    "--train.epochs",
    "1",
    "--method.backbone.depth",
    "1",
    "--track.wandb",
    "off",
    "--evaluate.cases-worst",
    "2",
]


def class_folders(root: Path, *, num_images: int) -> Path:
    source = Source(Options(num_train=num_images, num_val=0, num_test=0, image_px=48))
    rows = ["image,x0,y0,x1,y1"]
    for item in source.items():
        sample = source.read(item)
        name = f"{source.classes[item.labels[0]]}/{item.where:04d}.jpg"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(sample.image)
        rows.append(",".join([name, *(f"{side:g}" for side in sample.boxes_xyxy[0])]))
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    return root


def test_from_a_folder_to_a_score(tmp_path, capfd):
    pictures, run = class_folders(tmp_path / "pictures", num_images=160), tmp_path / "run"
    (pictures / "coin/readme.txt").write_text("not a picture")
    command = ["fit", str(pictures), "--out", str(run)]
    assert main([*command, *KNOBS]) == 0
    said = capfd.readouterr().out
    assert "only jpg, png" in said
    assert "coin/readme.txt" in said
    assert "recipe ts-cam-tiny-imagenet-20 for 160 images of 8 classes" in said
    assert f"boxes of {pictures}/boxes.csv" in said
    index = Index.load(run / "shards")
    assert set(index.splits) == {"train", "val", "test"}
    assert sum(split.num_samples for split in index.splits.values()) == 160
    (record,) = (run / "eval").glob("test-step-*.json")
    threshold = json.loads(record.read_bytes())["threshold"]
    assert threshold["source"] == "val"
    assert f"on test (topk_loc, threshold {threshold['value']:.3f} from val)" in said
    assert "no localization score" not in said
    assert (run / "report.html").stat().st_size > 10_000
    assert (run / "summary.json").is_file()

    before = {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*") if path.is_file()}
    (run / "report.html").unlink()
    assert main(command) == 0  # the knobs are remembered
    said = capfd.readouterr().out
    assert "trained and scored, nothing to do" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (run / "report.html").is_file()

    assert main([*command, "--train.epochs", "2"]) == 2
    assert "was begun with other knobs (train.epochs: 1" in capfd.readouterr().err
    assert main([*command, "--seed", "5"]) == 2
    assert "was begun with seed 0, now 5 is given" in capfd.readouterr().err
    (pictures / "coin/new.jpg").write_bytes((pictures / "coin").glob("*.jpg").__next__().read_bytes())
    assert main(command) == 2
    assert "changed since this fit began: give another --out" in capfd.readouterr().err
