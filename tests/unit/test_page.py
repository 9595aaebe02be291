"""The report page and the summary, made of a run folder as training and evaluation leave it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.forkserver import FRESH
from wsol_dist.cli import main as run_command
from wsol_dist.errors import UserError
from wsol_dist.report.charts import Series, chart, labelled, smoothed, thinned, ticks
from wsol_dist.report.curves import threshold_chart
from wsol_dist.report.gallery import MOST_PICTURES, gallery
from wsol_dist.report.images import by_class, class_table, iou_histogram
from wsol_dist.report.page import write_report
from wsol_dist.report.run_data import read_picture, read_run
from wsol_dist.report.summary import write_summary
from wsol_dist.runs.rows import write_rows

EVIL = "<script>alert('x')</script>"


def make_run(
    folder: Path, *, gt_known: float = 60.6, splits: tuple[str, ...] = ("val", "test"), steps: int = 50
):
    (folder / "eval").mkdir(parents=True)
    config = {"name": "quick", "method": {"name": "molt"}, "data": {"index": "data/collage"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [
        {
            "step": s,
            "time": 1e9 + s,
            "train/loss": 2 - s / 1000,
            "train/lr": 1e-3,
            "train/images_per_s": 300.0,
        }
        for s in range(10, 10 * steps + 1, 10)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split in splits:
        record = make_record(folder, split=split, gt_known=gt_known)
        (folder / "eval" / f"{split}-step-00000500.json").write_text(json.dumps(record))
    return folder


def make_record(folder: Path, *, split: str, gt_known: float):
    source = "val" if split == "test" else "oracle"
    picture = f"{split}-step-00000500/case-000.jpg"
    path = folder / "eval" / picture
    path.parent.mkdir()
    cv2.imwrite(str(path), np.full((32, 64, 3), 90, np.uint8))

    def metric(name, value, protocol, threshold=0.302):
        kind = source if threshold else "none"
        return {
            "name": name,
            "value": value,
            "unit": "%",
            "protocol": protocol,
            "threshold": threshold,
            "threshold_source": kind,
        }

    return {
        "split": split,
        "step": 500,
        "checkpoint": "step-00000500",
        "method": "molt",
        "classes": ["cat", EVIL],
        "num_images": 600,
        "broken": [],
        "seconds": 12.3,
        "threshold": {"source": source, "level": 77, "value": 0.302, "from": None},
        "metrics": [
            metric("gt_known", gt_known, "topk_loc"),
            metric("top1_loc", gt_known - 4, "topk_loc"),
            metric("error/right", 56.6, "topk_loc"),
            metric("error/part", 43.4, "topk_loc"),
            metric("cls_top1", 93.5, "classification", None),
            metric("centre_box", 29.2, "centre_box", None),
        ],
        "curves": {"gt_known": [round(60 - abs(level - 77) / 5, 2) for level in range(255)]},
        "cases": [
            {
                "id": "a/1",
                "label": 0,
                "predicted": 1,
                "iou": 0.61,
                "error_kind": "classification",
                "picture": picture,
            }
        ],
    }


class Page(HTMLParser):
    """What a browser would fetch, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.links: list[str] = []
        self.scripts = 0
        self.texts: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.links += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action") and value
        ]

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture
def page_of(tmp_path):
    def write(*runs: Path) -> Page:
        write_report(list(runs), tmp_path / "page.html")
        return Page(tmp_path / "page.html")

    return write


def test_page_holds_numbers_with_protocol_and_source(tmp_path, page_of):
    page = page_of(make_run(tmp_path / "quick"))
    for expected in (
        "60.6 %",
        "topk_loc · threshold from val",
        "oracle: best constant box of this split",
        "+31.4 over the centre box",
        "93.5 %",
        "threshold 0.302 (from val)",
        "centre box 29.2",
        "wsol evaluate",
        "Part of the object 43.4 %",
        "test, 600 images",
        "index: data/collage",
    ):
        assert expected in page.text, expected


def test_page_fetches_nothing(tmp_path, page_of):
    page = page_of(make_run(tmp_path / "quick"))
    pictures = [link for link in page.links if link != "data:,"]  # the empty icon
    assert len(pictures) == 1
    assert pictures[0].startswith("data:image/jpeg;base64,")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0].split(",")[1]), np.uint8), 1)
    assert image.shape == (32, 64, 3)
    assert not re.search(r"url\(|@import|https?://", page.source)


def test_strings_of_users_are_escaped(tmp_path, page_of):
    plain = page_of(make_run(tmp_path / "quick")).scripts
    run = make_run(tmp_path / "<script>alert(1)<")
    (run / "config.yaml").write_text(yaml.safe_dump({"name": f"</pre>{EVIL}"}))
    page = page_of(run, make_run(tmp_path / "second"))
    assert EVIL not in page.source
    assert "<script>alert(1)" not in page.source
    assert page.scripts == plain
    assert f"predicted {EVIL}" in page.text


def test_several_runs_stand_side_by_side(tmp_path, page_of):
    runs = [
        make_run(tmp_path / "one"),
        make_run(tmp_path / "two", gt_known=41.7),
        make_run(tmp_path / "new", splits=()),
    ]
    page = page_of(*runs)
    assert "3 runs side by side" in page.text
    assert re.search(r'class="num best">60\.6<', page.source)
    assert re.search(r'class="num">41\.7<', page.source)
    assert re.search(r'class="num">–<', page.source)
    assert "molt" in page.text
    assert page.source.count("</path>") + page.source.count("<path ") >= 2 + 3 * 3
    assert "val 0.302" in page.text
    assert "scored differently" not in page.text


def test_runs_of_equal_folder_names_are_told_apart(tmp_path, page_of):
    runs = [make_run(tmp_path / name / "seed", gt_known=score) for name, score in (("a", 40.0), ("b", 50.0))]
    page = page_of(*runs)
    assert "a/seed · b/seed" in page.text


def test_a_run_has_one_colour_in_all_charts(tmp_path):
    runs = [
        read_run(make_run(tmp_path / name, splits=splits))
        for name, splits in (("new", ()), ("old", ("test",)))
    ]
    drawn = threshold_chart([*runs, read_run(make_run(tmp_path / "more"))])
    assert drawn is not None
    assert [line.color for line, _ in drawn.lines] == [1, 2]


def test_runs_that_do_not_compare_are_said(tmp_path, page_of):
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two")]
    path = runs[1] / "eval/test-step-00000500.json"
    record = json.loads(path.read_text())
    record["threshold"]["source"] = "oracle"
    path.write_text(json.dumps(record | {"index": {"name": "birds", "sha256": "ab"}}))
    assert "scored differently (shards, source of the threshold)" in page_of(*runs).text


def test_images_of_several_runs_stand_together(tmp_path):
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two")]
    path = runs[1] / "eval/test-step-00000500.json"
    record = json.loads(path.read_text())
    record["cases"].insert(0, record["cases"][0] | {"id": "b/2", "label": 1, "groups": ["best"]})
    path.write_text(json.dumps(record))
    found = gallery([read_run(run) for run in runs])
    assert [(item.id, [result.run for result in item.results]) for item in found.items] == [
        ("a/1", ["one", "two"]),
        ("b/2", ["two"]),
    ]
    assert found.items[1].groups == ("best",)
    assert list(found.groups) == ["fixed", "best"]
    assert found.items[0].filters == [["classification", 0.61, False]] * 2


def test_a_page_holds_a_bounded_number_of_pictures(tmp_path):
    run = make_run(tmp_path / "quick")
    path = run / "eval/test-step-00000500.json"
    record = json.loads(path.read_text())
    record["cases"] = [record["cases"][0] | {"id": f"a/{at}"} for at in range(MOST_PICTURES + 5)]
    path.write_text(json.dumps(record))
    found = gallery([read_run(run)])
    assert (len(found.items), found.left_out) == (MOST_PICTURES, 5)


def write_images(run: Path, **columns) -> None:
    rows = [
        dict(zip(columns, values, strict=True))
        | {"id": f"a/{at}", "label": at % 2, "gt_known": values[0] is not None and values[0] >= 0.5}
        for at, values in enumerate(zip(*columns.values(), strict=True))
    ]
    write_rows(run / "eval/test-step-00000500.parquet", rows, about={})


def test_histogram_counts_the_images_by_iou(tmp_path):
    run = make_run(tmp_path / "quick")
    assert iou_histogram([read_run(run)]) is None
    write_images(run, iou=[0.0, 0.02, 0.5, 1.0, None])
    drawn = iou_histogram([read_run(run)])
    assert drawn is not None
    bars = {round(bar.x0, 2): bar for bar, *_ in drawn.bars}
    assert len(bars) == 20
    assert {x: bar.y for x, bar in bars.items() if bar.y} == {0.0: 50.0, 0.5: 25.0, 0.95: 25.0}
    assert bars[0.45].faint
    assert not bars[0.5].faint
    assert drawn.note == "topk_loc, threshold 0.302 from val. Mean IoU 0.380."
    heights = {round(bar.x0, 2): height for bar, _, _, height in drawn.bars}
    assert heights[0.0] == 2 * heights[0.5] == 100
    other = make_run(tmp_path / "other")
    write_images(other, iou=[0.9, 0.8])
    both = iou_histogram([read_run(run), read_run(other)])
    assert both is not None
    assert [line.name for line, _ in both.lines] == ["quick, mean 0.38", "other, mean 0.85"]
    assert not both.bars


def test_classes_are_listed_from_the_best(tmp_path, page_of):
    run = make_run(tmp_path / "quick")
    write_images(run, iou=[0.1, 0.9, 0.2, 0.8, None, 0.4])
    table = class_table([read_run(run)])
    assert table is not None
    assert [(row.name, row.num_images) for row in table.rows] == [(EVIL, 3), ("cat", 3)]
    assert [row.percents for row in table.rows] == [[pytest.approx(200 / 3)], [0.0]]
    assert table.columns[0].detail == "topk_loc, threshold 0.302 from val"
    assert "66.7" in page_of(run).text


def test_of_many_classes_the_extremes_are_listed_and_all_are_there(tmp_path, page_of):
    run = make_run(tmp_path / "quick")
    path = run / "eval/test-step-00000500.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"classes": [f"class-{at}" for at in range(100)]})
    )
    rows = [{"id": str(at), "label": at, "gt_known": at % 3 == 0, "iou": at / 100} for at in range(100)]
    write_rows(path.with_suffix(".parquet"), rows, about={})
    table = class_table([read_run(run)])
    assert table is not None
    assert [len(block) for block in table.shown] == [15, 15]
    page = page_of(run)
    assert "70 classes between" in page.text
    assert page.text.count("class-50 ") == 1


def test_a_mean_by_class_leaves_out_what_is_unknown():
    values, labels = np.array([1.0, 0.0, np.nan, np.nan]), np.array([0, 0, 0, 2])
    assert by_class(values, labels, num_classes=3).tolist() == pytest.approx(
        [50, np.nan, np.nan], nan_ok=True
    )


def test_damaged_rows_are_one_line(tmp_path):
    run = make_run(tmp_path / "quick")
    (run / "eval/test-step-00000500.parquet").write_bytes(b"no parquet")
    with pytest.raises(
        UserError, match=r"test-step-00000500.parquet: cannot be read .* run wsol evaluate again"
    ):
        write_report([run], tmp_path / "page.html")


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        ("eval", "No evaluation yet"),
        ("eval/test-step-00000500.json", "The test split was not scored"),
        ("metrics.jsonl", "No training log"),
        ("config.yaml", "No config.yaml"),
        ("eval/test-step-00000500", "picture missing"),
    ],
)
def test_missing_parts_are_said(tmp_path, page_of, remove, said):
    run = make_run(tmp_path / "quick")
    path = run / remove
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert said in page_of(run).text


def test_pictures_come_from_the_run_only(tmp_path):
    run = make_run(tmp_path / "quick")
    (tmp_path / "secret.jpg").write_bytes(b"\xff\xd8\xffsecret")
    (run / "eval" / "text.jpg").write_bytes(b"no picture")
    data = read_run(run)
    assert read_picture(data, "test-step-00000500/case-000.jpg")
    assert read_picture(data, "../../secret.jpg") is None
    assert read_picture(data, str(tmp_path / "secret.jpg")) is None
    assert read_picture(data, "text.jpg") is None


def test_page_is_replaced_whole(tmp_path, monkeypatch):
    run, out = make_run(tmp_path / "quick"), tmp_path / "page.html"
    out.write_text("the page before")

    def fail(*_args):
        raise OSError(28, "disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report([run], out)
    assert out.read_text() == "the page before"


def test_summary(tmp_path, capsys):
    run = make_run(tmp_path / "quick")
    (run / "started").write_text(str(time.time() - 100))
    summary = write_summary(run)
    assert summary == json.loads((run / "summary.json").read_text())
    assert (summary["gt_known"], summary["centre_box"], summary["cls_top1"]) == (60.6, 29.2, 93.5)
    assert (summary["protocol"], summary["threshold_source"]) == ("topk_loc", "val")
    assert 100 <= summary["seconds"] < 130
    said = capsys.readouterr().out
    assert "60.6" in said
    assert "val 0.302" in said
    assert "metrics.jsonl" in said


def test_summary_again_later_keeps_its_duration(tmp_path):
    run = make_run(tmp_path / "quick")
    (run / "started").write_text(str(time.time() - 100))
    first = write_summary(run)["seconds"]
    (run / "started").write_text(str(time.time() - 5000))
    assert write_summary(run)["seconds"] == first
    later = time.time() + 10
    os.utime(run / "eval/test-step-00000500.json", (later, later))
    assert write_summary(run)["seconds"] >= 5000


def test_summary_takes_the_latest_test_record(tmp_path):
    run = make_run(tmp_path / "quick")
    record = json.loads((run / "eval/test-step-00000500.json").read_text())
    record["step"] = 900
    record["metrics"][0]["value"] = 71.5
    (run / "eval/test-step-00000900.json").write_text(json.dumps(record))
    assert (write_summary(run)["gt_known"], write_summary(run)["step"]) == (71.5, 900)


def test_command_writes_page_and_summary(tmp_path, capsys):
    run, new = make_run(tmp_path / "quick"), make_run(tmp_path / "new", splits=())
    assert run_command(["report", str(run), str(new)]) == 0
    assert (run / "side-by-side.html").is_file()
    assert not (run / "report.html").exists()
    assert (run / "summary.json").is_file()
    assert not (new / "summary.json").exists()
    said = capsys.readouterr().out
    assert str(run / "side-by-side.html") in said
    assert "was not scored yet" in said


def test_wrong_runs_are_one_line_and_code_2(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    broken = make_run(tmp_path / "broken")
    (broken / "eval/test-step-00000500.json").write_text('{"split": "te')
    for folder, said in (("none", "no such folder"), ("empty", "not a run folder"), ("broken", "not JSON")):
        assert run_command(["report", str(tmp_path / folder)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    with pytest.raises(UserError, match="no evaluation of the test split"):
        write_summary(make_run(tmp_path / "val-only", splits=("val",)))


def test_report_needs_no_torch(tmp_path):
    run = make_run(tmp_path / "quick")
    code = (
        "import sys; from wsol_dist.cli import main; "
        f"main(['report', {str(run)!r}]); assert not {{'torch', 'wandb'}} & set(sys.modules)"
    )
    subprocess.run([FRESH, "-c", code], check=True, cwd=Path(__file__).parents[2], capture_output=True)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.13, 2.07), (-3, 3), (5, 5), (0, 0), (10, 123456), (1e-6, 9e-6)]
)
def test_ticks_enclose_and_are_round(low, high):
    found = ticks(low, high)
    assert found[0] <= low + 1e-12
    assert found[-1] >= high - 1e-12
    assert 2 <= len(found) <= 8
    texts = [text for _, text in labelled(found)]
    assert len(set(texts)) == len(texts)


def test_chart_positions_and_gaps():
    line = Series(name="a", points=[(0, 0.0), (5, float("nan")), (10, 10.0), (20, 5.0)])
    drawn = chart("t", [line])
    assert drawn is not None
    assert drawn.lines[0][1] == "M0 100M50 0L100 50"
    assert chart("t", [Series(name="a", points=[(0, float("nan"))])]) is None
    assert chart("t", []) is None


def test_long_lines_are_thinned_and_smoothed():
    points = [(float(x), float(x % 2)) for x in range(10_000)]
    few = thinned(points)
    assert len(few) <= 600
    assert few[-1][0] == 9999
    assert thinned(points[:600]) == points[:600]
    middle = [y for _, y in smoothed(points)[1000:9000]]
    assert max(abs(y - 0.5) for y in middle) < 0.01
    straight = [(float(x), 3.0 * x) for x in range(100)]
    assert [y for _, y in smoothed(straight)] == pytest.approx([y for _, y in straight])


def test_the_data_set_is_the_one_that_was_scored(tmp_path):
    run = make_run(tmp_path / "quick")
    assert read_run(run).data == "collage"
    path = run / "eval/test-step-00000500.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"index": {"name": "birds", "sha256": "ab"}}))
    assert read_run(run).data == "birds"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"index": "damaged"}))
    assert read_run(run).data == "collage"
