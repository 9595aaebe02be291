"""Scored runs against each other: gains, intervals, seeds, what changed most, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.unit.test_page import Page
from wsol_dist.cli import main as run_command
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.metrics.bootstrap import paired_gain
from wsol_dist.report.comparison import flips, most_changed, read_groups, table
from wsol_dist.runs.rows import read_rows, write_rows

SIZE_PX = 32


def make_run(folder: Path, shards: Path, ious, *, seed: int = 0, lr: float = 0.1) -> Path:
    """A run whose test split was scored with these IoUs, in the order of the index."""
    index = Index.load(shards)
    ids, labels = index.rows("test").ids.to_pylist(), index.rows("test").label.tolist()
    assert len(ious) == len(ids)
    (folder / "eval").mkdir(parents=True)
    config = {"name": folder.name, "seed": seed, "method": {"name": "cam"}, "data": {"index": str(shards)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"train": {"lr": lr}}))
    rows = [
        {
            "id": one,
            "label": label,
            "decoded": True,
            "gt_boxes": [[4, 4, 20, 20]],
            "box": [4, 4, 4 + round(16 * iou), 20],
            "iou": iou,
            "gt_known": iou >= 0.5,
            "top1_loc": iou > 0.5,
            "predicted": [label],
            "error_kind": "right" if iou > 0.5 else "part",
        }
        for one, label, iou in zip(ids, labels, ious, strict=True)
    ]
    path = folder / "eval/test-step-00000007.json"
    write_rows(path.with_suffix(".parquet"), rows, about={"size_px": str(SIZE_PX)})
    value = 100 * float(np.mean([row["gt_known"] for row in rows]))
    numbers = [("gt_known", value, "topk_loc", "val"), ("max_box_acc", value + 1, "max_box_acc", "oracle")]
    record = {
        "split": "test",
        "step": 7,
        "num_images": len(rows),
        "size_px": SIZE_PX,
        "classes": list(index.classes),
        "index": {"name": "collage", "sha256": index.sha256},
        "scored_as": {"evaluate": {"size_px": SIZE_PX, "strict_gt_known": False}},
        "threshold": {"source": "val", "level": 77, "value": 0.302},
        "metrics": [
            {"name": name, "value": value, "unit": "%", "protocol": protocol, "threshold": 0.302}
            | {"threshold_source": source}
            for name, value, protocol, source in numbers
        ],
    }
    path.write_text(json.dumps(record))
    return folder


def edit(run: Path, **changes) -> Path:
    path = run / "eval/test-step-00000007.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return run


@pytest.fixture
def ious():
    rng = np.random.default_rng(0)
    base = rng.random(40).round(2)
    return base, np.clip(base + rng.normal(0.15, 0.1, 40), 0, 1).round(2)


@pytest.fixture
def pair(tmp_path, tiny_shards, ious):
    return [
        make_run(tmp_path / name, tiny_shards, of) for name, of in zip(("base", "new"), ious, strict=True)
    ]


def compare(*words) -> int:
    return run_command(["compare", *map(str, words)])


def test_gains_and_intervals_are_those_of_the_images(pair, ious):
    groups = read_groups([[run] for run in pair], split="test")
    lines = {line.name: line for line in table(groups, num_resamples=500, seed=3)}
    base, new = lines["gt_known"].cells
    hits = [(of >= 0.5).astype(float) * 100 for of in ious]
    assert (base.mean, new.mean) == pytest.approx((hits[0].mean(), hits[1].mean()))
    assert new.interval == paired_gain(hits[0], hits[1], num_resamples=500, seed=3)
    assert new.gain == pytest.approx(new.interval.value)
    assert base.gain is None
    assert base.sources == ["val 0.302"]
    assert lines["iou"].cells[1].gain == pytest.approx(100 * (ious[1].mean() - ious[0].mean()), abs=1e-4)
    assert lines["max_box_acc"].cells[1].interval is None
    assert lines["max_box_acc"].cells[1].gain == pytest.approx(new.gain)


def test_what_changed_most_and_how_many_flipped(pair, ious):
    base, new = read_groups([[run] for run in pair], split="test")
    found = most_changed(base, new, 5)
    change = ious[1] - ious[0]
    expected = np.argsort(-np.abs(change.astype(np.float32)), kind="stable")[:5]
    assert [round(one.after - one.before, 4) for one in found] == pytest.approx(change[expected], abs=1e-4)
    hits = [of >= 0.5 for of in ious]
    assert flips(base, new) == (int((hits[1] & ~hits[0]).sum()), int((hits[0] & ~hits[1]).sum()), 40)
    assert most_changed(base, base, 5) == []


def test_seeds_give_mean_and_spread(tmp_path, tiny_shards, pair, ious):
    more = [
        make_run(tmp_path / f"s{seed}", tiny_shards, ious[0] * scale, seed=seed)
        for seed, scale in ((1, 0.9), (2, 0.8))
    ]
    groups = read_groups([[pair[0], *more], [pair[1]]], split="test")
    cell, new = {line.name: line for line in table(groups, num_resamples=200, seed=0)}["iou"].cells
    means = [100 * (ious[0] * scale).mean() for scale in (1, 0.9, 0.8)]
    assert cell.mean == pytest.approx(np.mean(means), abs=1e-4)
    assert cell.spread == pytest.approx(np.std(means, ddof=1), abs=1e-4)
    assert new.spread is None
    assert new.gain == pytest.approx(100 * ious[1].mean() - np.mean(means), abs=1e-4)
    assert flips(*groups) is None


def test_command_says_it_and_writes_the_page(pair, tmp_path, capsys):
    assert compare(*pair, "--changed", 4, "--out", tmp_path / "page.html") == 0
    said = capsys.readouterr().out
    for expected in (
        "GT-known",
        "topk_loc",
        "val 0.302",
        "2000 resamples, seed 0",
        "changed most from base to new",
    ):
        assert expected in re.sub(r"\s+", " ", said), expected
    page = Page(tmp_path / "page.html")
    assert "new against base" in page.text
    pictures = [link for link in page.links if link.startswith("data:image/jpeg")]
    assert len(pictures) == 8
    assert len(set(pictures)) == 8
    assert not re.search(r"url\(|@import|https?://", page.source)


def test_groups_and_flags_in_any_order(tmp_path, tiny_shards, pair, ious, capsys):
    other = make_run(tmp_path / "s1", tiny_shards, ious[0], seed=1)
    assert compare("--changed", 1, pair[0], other, "--", pair[1], "--resamples", 100) == 0
    assert "base (2 seeds)" in capsys.readouterr().out
    assert (pair[0] / "compare.html").is_file()
    assert compare("--seeds", pair[0], other) == 0
    said = capsys.readouterr().out
    assert "± 0.0" in said
    assert "gain" not in said


def test_pictures_only_of_the_scored_shards(pair, tmp_path, capsys):
    config = yaml.safe_load((pair[0] / "config.yaml").read_text())
    (pair[0] / "config.yaml").write_text(yaml.safe_dump(config | {"data": {"index": "gone"}}))
    assert compare(*pair) == 0
    text = Page(pair[0] / "compare.html").text
    assert "no pictures: the shards are not in gone" in text
    assert "picture missing" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"index": {"name": "collage", "sha256": "ab" * 32}},
            r"different shards \(index sha256 \w{12} and abababababab\)",
        ),
        (
            {"scored_as": {"evaluate": {"size_px": 64, "strict_gt_known": False}}},
            r"different protocols \(size_px: 32 and 64\)",
        ),
        (
            {"threshold": {"source": "oracle", "level": 3, "value": 0.1}},
            r"different sources \(val and oracle\).*--threshold val",
        ),
        ({"num_images": 41}, r"40 rows, 41 images were scored; run: wsol evaluate"),
        (
            {"split": "val"},
            r"the split 'test' was not scored \(scored splits: val\); run: wsol evaluate .* --split test",
        ),
    ],
    ids=["shards", "protocol", "threshold", "num_images", "split"],
)
def test_what_does_not_compare_is_one_line(pair, change, said, capsys):
    edit(pair[1], **change)
    assert compare(*pair) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error
    assert error.count("\n") == 1
    assert not (pair[0] / "compare.html").exists()


def test_missing_rows_other_images_and_other_recipes(tmp_path, tiny_shards, pair, ious):
    other = make_run(tmp_path / "lr", tiny_shards, ious[0], seed=1, lr=0.3)
    with pytest.raises(UserError, match=r"not seeds of one recipe \(train.lr: 0.1 and 0.3\)"):
        read_groups([[pair[0], other]], split="test")
    with pytest.raises(UserError, match="given twice"):
        read_groups([[pair[0]], [pair[0]]], split="test")
    rows = pair[1] / "eval/test-step-00000007.parquet"

    known, about = read_rows(rows)
    write_rows(rows, [{**row, "id": f"{row['id']}x"} for row in known], about=about)
    with pytest.raises(UserError, match=r"different images were scored \(80 images are in one only"):
        read_groups([[run] for run in pair], split="test")
    rows.unlink()
    with pytest.raises(UserError, match=r"parquet: missing, so images cannot be compared"):
        read_groups([[run] for run in pair], split="test")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{base}"], "at least two runs are needed"),
        (["{base}", "--", "--changed", "3", "{new}", "--"], "-- with no run before or behind it"),
        (["{base}", "{new}", "--resamples", "5"], "--resamples: given 5; allowed: 100 or more"),
        (["--seeds", "{base}", "--", "{new}"], "--seeds: means one group"),
        (["{base}", "{base}/none"], "no such folder"),
        (["{base}", "{new}", "--out", "{base}"], "is a folder; give a file"),
    ],
)
def test_wrong_words_are_one_line(pair, words, said, capsys):
    assert compare(*(word.format(base=pair[0], new=pair[1]) for word in words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
