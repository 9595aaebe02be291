"""A real network on real ImageNet validation images, scored by the command line as a user would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wsol_dist.cli import main
from wsol_dist.runs.rows import read_rows

RECIPE = "cam-ilsvrc-mobilenetv2"
WEIGHTS = "weights/mobilenetv2_100.imagenet1k.safetensors"


def scored(real_data: Path, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record and the rows of the 300 images, packed and scored."""
    shards = folder / "shards"
    assert (
        main(
            ["shards", "pack", "imagenet", "--root", str(real_data / "ilsvrc-val-300"), "--out", str(shards)]
        )
        == 0
    )
    weights = [
        "--init",
        str(real_data / WEIGHTS),
        "--index",
        str(shards),
        "--split",
        "test",
        "--threshold",
        "fixed",
    ]
    assert main(["evaluate", RECIPE, *weights, "--out", str(folder / "run"), "--track.wandb", "off"]) == 0
    path = folder / "run" / "eval" / "test-step-00000000.json"
    return json.loads(path.read_text()), read_rows(path.with_suffix(".parquet"))[0]


@pytest.mark.slow
def test_cam_of_a_real_network_localizes_real_images(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, rows = scored(real_data, tmp_path)
    numbers = {number["name"]: number for number in record["metrics"]}
    assert (record["num_images"], record["broken"], len(rows)) == (300, [], 300)
    assert 75.5 <= numbers["cls_top1"]["value"] <= 77.5
    # Half-pixel enlargement and boxes with both ends included, as the protocol has it. Enlarged with the corners
    # of the 7 x 7 grid on the image's corners, the same maps give 58.7 and 47.7.
    assert numbers["gt_known"]["value"] == pytest.approx(61.0, abs=1)
    assert numbers["top1_loc"]["value"] == pytest.approx(49.3, abs=1)
    for name in ("gt_known", "top1_loc"):
        assert numbers[name]["protocol"] == "topk_loc"
        assert (numbers[name]["threshold"], numbers[name]["threshold_source"]) == (0.3, "fixed")
        assert numbers[name]["value"] == pytest.approx(100 * sum(row[name] for row in rows) / 300)
    assert record["threshold"] == {"source": "fixed", "level": 76, "value": 0.3, "from": None}
    centre = numbers["centre_box"]
    assert (centre["protocol"], centre["threshold_source"]) == ("centre_box", "oracle")
    assert 0 < centre["value"] < 100
    shown = capsys.readouterr().out
    assert "centre_box" in shown
    assert "points from the centre box" in shown
