"""The same images at successive checkpoints: on the page, and as one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import yaml

from wsol_dist.report.filmstrip import CELL_PX, MOST_COLUMNS, MOST_ROWS, filmstrips, picture
from wsol_dist.report.page import write_report
from wsol_dist.report.run_data import read_run


def make_run(folder: Path, *, steps: list[int], num_cases: int = 3) -> Path:
    """Pictures whose brightness is ten times their step's number."""
    (folder / "eval").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "film", "method": {"name": "weight_map"}}))
    rows = [{"step": step, "time": 1e9 + step, "train/loss": 1.0, "train/epoch": step / 10} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, step in enumerate(steps):
        stem = f"val-step-{step:08d}"
        (folder / "eval" / stem).mkdir()
        cases: list[dict[str, Any]] = []
        for case in range(num_cases):
            file = f"{stem}/case-{case:03d}.jpg"
            pixels = np.full((50, 104, 3), 10 * number, np.uint8)
            (folder / "eval" / file).write_bytes(simplejpeg.encode_jpeg(pixels))
            cases.append({"id": f"<b>{case}", "iou": 0.5, "picture": file, "groups": ["fixed"], "label": 0})
        cases.append({"id": "worst", "iou": 0.0, "picture": "none.jpg", "groups": ["worst"], "label": 0})
        record = {"split": "val", "step": step, "metrics": [], "cases": cases, "classes": ["a"]}
        (folder / "eval" / f"{stem}.json").write_text(json.dumps(record))
    return folder


def test_rows_are_the_fixed_images_and_columns_the_epochs(tmp_path: Path) -> None:
    strip = filmstrips([read_run(make_run(tmp_path / "run", steps=[10, 20, 30]))])[0]
    assert strip.columns == ["epoch 1", "epoch 2", "epoch 3"]
    assert [one for one, _ in strip.rows] == ["<b>0", "<b>1", "<b>2"]
    assert all(cell.picture and cell.iou == "0.50" for _, cells in strip.rows for cell in cells)
    assert (
        len({cells[0].picture for _, cells in strip.rows} | {cells[1].picture for _, cells in strip.rows})
        == 2
    )


def test_of_many_checkpoints_a_few_are_shown_the_first_and_the_last_among_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=list(range(10, 210, 10)), num_cases=9)
    strip = filmstrips([read_run(run)])[0]
    assert len(strip.columns) == MOST_COLUMNS
    assert (strip.columns[0], strip.columns[-1]) == ("epoch 1", "epoch 20")
    assert len(strip.rows) == MOST_ROWS


def test_one_checkpoint_makes_no_strip(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=[10])
    assert filmstrips([read_run(run)]) == []
    assert picture(run, "val") is None


def test_one_picture_holds_all_cells_in_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=[10, 20, 30], num_cases=2)
    found = picture(run, "val")
    assert found is not None
    width = round(104 * CELL_PX / 50)
    assert found.shape[1] == 3 * width + 8
    middle = found[-CELL_PX // 2, [width // 2, width + 4 + width // 2, 2 * (width + 4) + width // 2], 0]
    assert np.abs(middle.astype(int) - [0, 10, 20]).max() <= 2
    assert picture(run, "test") is None


def test_a_missing_picture_leaves_a_gap_and_files_elsewhere_are_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=[10, 20], num_cases=1)
    (run / "eval/val-step-00000010/case-000.jpg").unlink()
    record = run / "eval/val-step-00000020.json"
    raw = json.loads(record.read_text())
    raw["cases"].append(raw["cases"][0] | {"id": "evil", "picture": "../../secret.jpg"})
    (tmp_path / "secret.jpg").write_bytes(simplejpeg.encode_jpeg(np.zeros((9, 9, 3), np.uint8)))
    record.write_text(json.dumps(raw))
    rows = dict(filmstrips([read_run(run)])[0].rows)
    assert [cell.picture is None for cell in rows["<b>0"]] == [True, False]
    assert [cell.picture is None for cell in rows["evil"]] == [True, True]


def test_the_page_has_it_and_escapes_what_it_quotes(tmp_path: Path) -> None:
    write_report([make_run(tmp_path / "run", steps=[10, 20])], tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "Maps over training" in html
    assert "epoch 2" in html
    assert "<b>0" not in html
