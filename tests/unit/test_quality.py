"""The quality of labels: matching as pycocotools does it, and what is made of it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.predictions import CLASSES, make_predictions, row, write_predictions
from wsol_dist.cli import main
from wsol_dist.errors import UserError
from wsol_dist.prediction.doubt import doubt_of, review_order
from wsol_dist.prediction.record import SCHEMA, Predictions
from wsol_dist.quality.matching import average_precision, judge
from wsol_dist.quality.measure import (
    calibration_error,
    kept,
    reached,
    reliability,
    reviews,
    sorting_power,
    tenths,
)
from wsol_dist.quality.quality import measure
from wsol_dist.quality.truth import Truth
from wsol_dist.review.cards import open_cards

SIZE = (100, 80)


def box_row(image: str, label: int, score: float, box: list[float], **other: Any) -> dict[str, Any]:
    sides = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    common = {"image": image, "width": SIZE[0], "height": SIZE[1], "class_rank": 0, "box_rank": 0}
    return (
        common | {"label": label, "class": CLASSES[label], "score": score, "stability": 0.9} | sides | other
    )


def empty_row(image: str) -> dict[str, Any]:
    return {"image": image, "width": SIZE[0], "height": SIZE[1]}


def write_csv(path: Path, rows: list[tuple[str, list[float]]]) -> Path:
    lines = ["image,x0,y0,x1,y1", *(",".join([image, *map(str, box)]) for image, box in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def coco_tree(images: list[str], boxes: list[tuple[str, int, list[float], bool]]) -> dict[str, Any]:
    """Boxes as image, class, x0 y0 x1 y1, crowd."""
    return {
        "info": {},
        "images": [
            {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
            for number, name in enumerate(images, start=1)
        ],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)],
        "annotations": [
            {
                "id": number,
                "image_id": images.index(image) + 1,
                "category_id": label + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": int(crowd),
            }
            for number, (image, label, (x0, y0, x1, y1), crowd) in enumerate(boxes, start=1)
        ],
    }


def random_case(seed: int) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    """Predictions near true boxes, and far from them, of right and wrong classes, with crowds and ties."""
    rng = np.random.default_rng(seed)
    images = [f"{CLASSES[number % 3]}/{number}.jpg" for number in range(12)]
    rows, true = [], []
    for image in images:
        mine = [empty_row(image)] if rng.random() < 0.1 else []
        for _ in range(rng.integers(0, 4)):
            x0, y0 = (float(v) for v in rng.integers(0, 40, 2))
            box = [x0, y0, x0 + float(rng.integers(10, 50)), y0 + float(rng.integers(10, 40))]
            label = int(rng.integers(0, 3))
            true.append((image, label, box, bool(rng.random() < 0.2)))
            for _ in range(0 if mine else rng.integers(0, 4)):
                moved = [side + float(step) for side, step in zip(box, rng.integers(-6, 7, 4), strict=True)]
                moved[2], moved[3] = max(moved[2], moved[0] + 1), max(moved[3], moved[1] + 1)
                named = label if rng.random() < 0.8 else int(rng.integers(0, 3))
                rows.append(box_row(image, named, float(rng.integers(1, 6)) / 8, moved))
        rows += mine
    known = {one["image"] for one in rows}
    rows += [empty_row(image) for image in images if image not in known]
    rows.sort(key=lambda one: images.index(one["image"]))  # as predictions are
    return rows, coco_tree(images, true), images


def coco_says(rows: list[dict[str, Any]], tree: dict[str, Any], images: list[str]) -> tuple[COCOeval, COCO]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = tree
        truth.createIndex()
        found = [
            {
                "image_id": images.index(one["image"]) + 1,
                "category_id": one["label"] + 1,
                "bbox": [one["x0"], one["y0"], one["x1"] - one["x0"], one["y1"] - one["y0"]],
                "score": one["score"],
            }
            for one in rows
            if "x0" in one
        ]
        detections = truth.loadRes(found)
        evaluation = COCOeval(truth, detections, "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation, detections


# ---- matching


@pytest.mark.parametrize("seed", range(12))
def test_the_counts_are_those_of_pycocotools(tmp_path, seed):
    rows, tree, images = random_case(seed)
    write_predictions(tmp_path / "O", rows, root=tmp_path)
    (tmp_path / "true.json").write_text(json.dumps(tree))
    found = measure(tmp_path / "O", boxes=tmp_path / "true.json")
    theirs, detections = coco_says(rows, tree, images)

    whole = [one for one in theirs.evalImgs if one and one["aRng"] == theirs.params.areaRng[0]]
    right = {
        number
        for one in whole
        for number, hit, ignored in zip(one["dtIds"], one["dtMatches"][0], one["dtIgnore"][0], strict=True)
        if hit and not ignored
    }
    ignored = {
        number
        for one in whole
        for number, left_out in zip(one["dtIds"], one["dtIgnore"][0], strict=True)
        if left_out
    }
    counted = [number for number in sorted(detections.anns) if number not in ignored]
    assert found.judged.right.tolist() == [number in right for number in counted]
    assert found.judged.num_in_crowds == len(ignored)
    assert found.judged.num_truth == sum(not one["iscrowd"] for one in tree["annotations"])

    precision = theirs.eval["precision"][0, :, :, 0, -1]
    ours = average_precision(found.judged)
    assert ours == pytest.approx(precision[precision > -1].mean(), abs=1e-9)
    recall = theirs.eval["recall"][0, :, 0, -1]
    num_true = np.array([found.judged.num_true.get(label, 0) for label in range(3)])
    hits = [found.judged.right[found.judged.label == label].sum() for label in range(3)]
    assert np.allclose(np.array(hits)[num_true > 0] / num_true[num_true > 0], recall[recall > -1])


def test_boxes_in_crowds_do_occur_in_these_cases():
    found = [one for seed in range(12) for one in random_case(seed)[1]["annotations"]]
    assert sum(one["iscrowd"] for one in found) > 10


def test_a_case_by_hand(tmp_path):
    """Right; a second box on the same object; right place, wrong class; nowhere; and an image without truth."""
    true = [10.0, 10.0, 59.0, 49.0]  # 50 x 40 with its last pixel
    rows = [
        box_row("cat/1.jpg", 0, 0.9, [10, 10, 60, 50], given_label=0),
        box_row("cat/1.jpg", 0, 0.8, [12, 10, 60, 50], box_rank=1, given_label=0),
        box_row("cat/2.jpg", 1, 0.7, [10, 10, 60, 50], given_label=0),
        box_row("cat/3.jpg", 0, 0.6, [70, 60, 90, 70], given_label=0),
        box_row("cat/4.jpg", 0, 0.5, [0, 0, 9, 9], given_label=0),
        empty_row("cat/5.jpg") | {"given_label": 0},
    ]
    for one in rows:
        path = tmp_path / "images" / one["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_predictions(tmp_path / "O", rows, root=tmp_path / "images")
    boxes = write_csv(tmp_path / "true.csv", [(f"cat/{number}.jpg", true) for number in (1, 2, 3, 5)])
    found = measure(tmp_path / "O", boxes=boxes)
    judged = found.judged
    assert judged.right.tolist() == [True, False, False, False]
    assert judged.misnamed.tolist() == [False, False, True, False]
    assert judged.iou[0] == 1.0
    assert (len(judged), judged.num_images, judged.num_without, judged.num_truth) == (4, 4, 1, 4)
    assert (found.precision, found.recall) == (0.25, 0.25)
    assert "0.420 (val)" in found.threshold
    assert "IoU >= 0.5" in found.protocol
    # The class that differs from the given one is looked at first, then the less sure.
    assert review_order(judged.doubt).tolist() == [2, 3, 1, 0]
    assert [one.num_right for one in found.reviews] == [1, 2, 3, 4, 4][: len(found.reviews)]


def test_the_least_iou_is_kept(tmp_path):
    make_one(tmp_path, box=[0, 0, 60, 50])
    boxes = write_csv(tmp_path / "true.csv", [("cat/1.jpg", [0, 0, 59, 29])])  # IoU 0.6
    assert measure(tmp_path / "O", boxes=boxes, least_iou=0.6).judged.right.tolist() == [True]
    assert measure(tmp_path / "O", boxes=boxes, least_iou=0.61).judged.right.tolist() == [False]


def make_one(folder: Path, *, box: list[float] | None, **other: Any) -> None:
    path = folder / "images/cat/1.jpg"
    path.parent.mkdir(parents=True)
    path.touch()
    rows = [empty_row("cat/1.jpg") if box is None else box_row("cat/1.jpg", 0, 0.9, box, **other)]
    write_predictions(folder / "O", rows, root=folder / "images")


# ---- where the truth is from


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Predictions of class folders, some true boxes of them, and shards of both."""
    folder = tmp_path_factory.mktemp("packed")
    predicted = make_predictions(folder, 30)
    rows = Predictions.open(predicted).table().to_pylist()
    for one in rows:  # what the folders say
        one["given_class"] = one["image"].split("/")[0]
        one["given_label"] = CLASSES.index(one["given_class"])
    write_predictions(predicted, rows, root=folder / "images")
    given = [one for one in rows if one["x0"] is not None]
    wrong = [one["x0"] if at % 3 else one["x1"] - 20 for at, one in enumerate(given)]
    true = [
        (one["image"], [x0, one["y0"], one["x1"] - 1, one["y1"] - 1])
        for one, x0 in zip(given, wrong, strict=True)
    ]
    csv = write_csv(folder / "boxes.csv", true[:20])
    pack = ["--root", str(folder / "images"), "--boxes", str(csv), "--out", str(folder / "shards")]
    assert main(["shards", "pack", "folder", *pack, "--val-fraction", "0.2"]) == 0
    return predicted, csv, folder / "shards"


def test_shards_say_what_the_csv_said_that_they_were_packed_with(packed):
    predicted, csv, shards = packed
    by_csv, by_shards = measure(predicted, boxes=csv), measure(predicted, index=str(shards))
    assert 0 < by_csv.judged.num_right < 20
    assert by_shards.judged.num_images == by_csv.judged.num_images == 20
    assert by_shards.judged.right.tolist() == by_csv.judged.right.tolist()
    assert np.allclose(by_shards.judged.iou, by_csv.judged.iou)
    assert set(by_shards.truth.splits) == {"train", "val"}
    assert any("--split scores one split" in note for note in by_shards.notes)
    assert not any("--split" in note for note in by_csv.notes)


def renamed(packed: tuple[Path, Path, Path], out: Path, *, scale: float = 1, **about: Any) -> Path:
    """The predictions with images that lie elsewhere, and are larger."""
    table = Predictions.open(packed[0]).table()
    rows = table.to_pylist()
    for one in rows:
        one["image"] = f"elsewhere/{Path(one['image']).name}" if about.get("root") else one["image"]
        one |= {name: one[name] * scale for name in ("x0", "x1") if one[name] is not None}
        one["width"] = int(one["width"] * scale)
    write_predictions(out, rows, root=about.get("root"), shards=about.get("shards", ()))
    return out


def test_a_file_name_that_stands_once_is_enough_and_another_size_is_scaled_to(tmp_path, packed):
    predicted, _, shards = packed
    elsewhere = renamed(packed, tmp_path / "O", scale=2, root=tmp_path)
    found, before = measure(elsewhere, index=str(shards)), measure(predicted, index=str(shards))
    assert found.judged.num_images == 20
    assert np.allclose(found.judged.iou, before.judged.iou)


def test_predicted_shards_are_their_own_truth(tmp_path, packed):
    predicted, csv, shards = packed
    both = [{"index": str(shards), "split": split} for split in ("train", "val")]
    own = renamed(packed, tmp_path / "O", shards=both)
    assert measure(own).judged.right.tolist() == measure(predicted, boxes=csv).judged.right.tolist()
    val = measure(own, split="val")
    assert val.truth.splits == {"val": val.judged.num_images}
    with pytest.raises(UserError, match="--split: test was not predicted; predicted: train, val"):
        measure(own, split="test")


def test_a_file_without_classes_counts_for_the_images_own(tmp_path):
    make_one(tmp_path, box=[10, 10, 60, 50], given_label=1)
    tree = coco_tree(["1.jpg"], [("1.jpg", 0, [10, 10, 60, 50], False)])
    tree["categories"] = [{"id": 1, "name": "object"}]
    (tmp_path / "true.json").write_text(json.dumps(tree))
    found = measure(tmp_path / "O", boxes=tmp_path / "true.json")
    assert found.judged.right.tolist() == [False]
    assert found.judged.misnamed.tolist() == [True]
    make_one(tmp_path / "unknown", box=[10, 10, 60, 50])
    found = measure(tmp_path / "unknown/O", boxes=tmp_path / "true.json")
    assert found.judged.right.tolist() == [True]
    assert found.average_precision is None


def test_classes_that_the_model_does_not_have_are_told(tmp_path):
    make_one(tmp_path, box=[10, 10, 60, 50])
    tree = coco_tree(["1.jpg"], [("1.jpg", 0, [10, 10, 60, 50], False), ("1.jpg", 2, [0, 0, 9, 9], False)])
    tree["categories"][2]["name"] = "yak"
    (tmp_path / "true.json").write_text(json.dumps(tree))
    found = measure(tmp_path / "O", boxes=tmp_path / "true.json")
    assert (found.judged.num_truth, found.recall) == (1, 1.0)
    assert any("1 true boxes are of classes" in note for note in found.notes)


def test_an_image_that_a_coco_file_calls_empty_counts(tmp_path):
    make_one(tmp_path, box=[10, 10, 60, 50])
    (tmp_path / "true.json").write_text(json.dumps(coco_tree(["cat/1.jpg"], [])))
    found = measure(tmp_path / "O", boxes=tmp_path / "true.json")
    assert (found.precision, found.recall) == (0.0, None)


# ---- what is made of it


def test_doubt_is_that_of_the_review_page(tmp_path):
    folder = make_predictions(tmp_path, 30)
    cards = open_cards(folder)
    shown = cards.to_json()["doubt"]
    assert review_order(cards.doubt).tolist() == sorted(range(len(shown)), key=lambda at: (-shown[at], at))
    table = Predictions.open(folder).table()
    boxed = pa.array(cards.row[: cards.num_boxes])
    assert np.array_equal(cards.doubt[: cards.num_boxes], doubt_of(table.take(boxed)))


def test_reviews_against_every_order_there_is():
    doubt = np.array([0.1, 0.9, 0.5, 0.5, 0.3, 0.2])
    right = np.array([True, False, True, False, True, False])
    rows = reviews(doubt, right, shares=(0, 1 / 3, 0.5, 1))
    assert [one.num_reviews for one in rows] == [0, 2, 3, 6]
    assert [one.num_right for one in rows] == [3, 4, 5, 6]
    assert [one.right_best for one in rows] == [3, 5, 6, 6]
    orders = list(itertools.permutations(range(6)))
    for one in rows:
        after = [3 + sum(not right[at] for at in order[: one.num_reviews]) for order in orders]
        assert one.right_random == pytest.approx(np.mean(after))
        inside = np.mean([one.random_low <= count <= one.random_high for count in after])
        assert inside >= 0.95
    found = {one.wanted: one for one in reached(doubt, right)}
    assert (found[0.8].by_doubt, found[0.8].at_best) == (3, 2)
    takes = [next(k for k in range(7) if sum(not right[at] for at in order[:k]) >= 2) for order in orders]
    assert found[0.8].at_random == round(np.mean(takes))


def test_reliability_by_hand():
    value = np.array([0.05, 0.05, 0.95, 1.0])
    right = np.array([False, True, True, True])
    bins = reliability(value, right)
    assert [(one.low, one.num_boxes, one.num_right) for one in bins] == [(0.0, 2, 1), (0.9, 2, 2)]
    assert calibration_error(bins) == pytest.approx(0.5 * (0.5 - 0.05) + 0.5 * (1 - 0.975))
    # Wilson (1927) for 1 of 2: centre 1/2, half width z sqrt(2 + z^2) / (2 (2 + z^2)).
    z = 1.959964
    assert bins[0].share_high - 0.5 == pytest.approx(z * np.sqrt(2 + z**2) / (2 * (2 + z**2)), abs=1e-5)


def test_tenths_hold_all_boxes_and_add_up():
    rng = np.random.default_rng(0)
    value, right = rng.random(57), rng.random(57) < 0.6
    bins = tenths(value, right)
    assert sum(one.num_boxes for one in bins) == 57
    assert {one.num_boxes for one in bins} == {5, 6}
    assert all(one.high <= other.low for one, other in itertools.pairwise(bins))
    assert (bins[0].num_above, bins[0].right_above) == (57, right.sum())
    assert (bins[-1].num_above, bins[-1].right_above) == (bins[-1].num_boxes, bins[-1].num_right)
    assert len(tenths(value[:3], right[:3])) == 3


def test_sorting_power_against_all_pairs():
    rng = np.random.default_rng(1)
    value, right = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.5
    pairs = [(a > b) + (a == b) / 2 for a in value[right] for b in value[~right]]
    assert sorting_power(value, right) == pytest.approx(np.mean(pairs))
    assert sorting_power(value, np.ones(40, bool)) is None


def test_what_to_keep_does_not_part_equals():
    doubt = np.array([0.1, 0.2, 0.2, 0.3])
    right = np.array([True, True, False, True])
    found = {one.wanted: one for one in kept(doubt, right)}
    assert (found[0.9].most_doubt, found[0.9].num_boxes) == (0.1, 1)
    assert kept(doubt, ~right)[0].most_doubt is None


# ---- the command


def test_the_command_writes_and_prints(tmp_path, capsys):
    folder = make_predictions(tmp_path, 30)
    table = Predictions.open(folder).table()
    given = table.filter(table["x0"].is_valid()).to_pylist()
    rows = [(one["image"], [one["x0"], one["y0"], one["x1"] - 1, one["y1"] - 1]) for one in given]
    boxes = write_csv(tmp_path / "boxes.csv", rows)
    assert main(["quality", str(folder), "--boxes", str(boxes), "--out", str(tmp_path / "Q")]) == 0
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "Q/quality.json").read_text())
    differs = sum(one["given_label"] != one["label"] for one in given)
    assert (record["num_boxes"], record["num_right"]) == (29, 29 - differs)
    assert record["num_misnamed"] == differs
    assert 0 < differs < 29
    for text in ("IoU >= 0.5", "0.420 (val)", "Only 29 boxes"):
        assert text in " ".join(said.split())
    page = (tmp_path / "Q/quality.html").read_text()
    assert "What a review buys" in page
    assert "http" not in page.split("<body>")[1]
    assert not (folder / "quality.json").exists()


def test_bad_input(tmp_path, capsys):
    make_one(tmp_path, box=[10, 10, 60, 50])
    make_one(tmp_path / "empty", box=None)
    boxes = write_csv(tmp_path / "true.csv", [("cat/1.jpg", [10, 10, 59, 49])])
    (tmp_path / "images/cat/other.jpg").touch()
    other = write_csv(tmp_path / "other.csv", [("cat/other.jpg", [1, 1, 9, 9])])
    coco = tmp_path / "other.json"
    coco.write_text(json.dumps(coco_tree(["dog/7.jpg"], [("dog/7.jpg", 0, [1, 1, 9, 9], False)])))
    turned = coco_tree(["cat/1.jpg"], [("cat/1.jpg", 0, [1, 1, 9, 9], False)])
    turned["images"][0] |= {"width": SIZE[1], "height": SIZE[0]}
    (tmp_path / "turned.json").write_text(json.dumps(turned))
    (tmp_path / "begun/parts").mkdir(parents=True)
    write_predictions(tmp_path / "S", [box_row("1.jpg", 0, 0.5, [1, 1, 9, 9])], root=None)
    folder = str(tmp_path / "O")
    for argv, message in (
        ([folder], "nothing to hold it against"),
        ([folder, "--boxes", str(tmp_path / "gone.csv")], "there is no file"),
        ([folder, "--boxes", str(other)], "no row names an image that is used"),
        ([folder, "--boxes", str(coco)], "boxes of other images (say dog/7.jpg)"),
        ([folder, "--boxes", str(tmp_path / "turned.json")], "width and height swapped"),
        ([str(tmp_path / "S"), "--boxes", str(boxes)], "was predicted from shards"),
        ([str(tmp_path / "begun"), "--boxes", str(boxes)], "not finished"),
        ([str(tmp_path / "nowhere"), "--boxes", str(boxes)], "no predictions in it"),
        ([str(tmp_path / "empty/O"), "--boxes", str(boxes_of(tmp_path / "empty"))], "no box on the 1 images"),
        ([folder, "--boxes", str(boxes), "--iou", "1"], "--iou: given 1"),
        ([folder, "--boxes", str(boxes), "--split", "test"], "goes with --index"),
        ([folder, "--index", str(tmp_path / "images")], "no index.json"),
    ):
        assert main(["quality", *argv]) == 2, argv
        assert message in capsys.readouterr().err, argv
    assert not (tmp_path / "O/quality.json").exists()


def boxes_of(folder: Path) -> Path:
    return write_csv(folder / "true.csv", [("cat/1.jpg", [10, 10, 59, 49])])


def test_shards_of_other_images_are_told(tmp_path, packed):
    make_one(tmp_path, box=[10, 10, 60, 50])
    with pytest.raises(UserError, match="boxes of other images"):
        measure(tmp_path / "O", index=str(packed[2]))
    with pytest.raises(UserError, match="no split 'tset'"):
        measure(tmp_path / "O", index=str(packed[2]), split="tset")


def test_no_box_at_all_is_no_crash():
    table = pa.Table.from_pylist([row("a.jpg", 0, box=None, size_wh=SIZE)], schema=SCHEMA)
    truth = Truth(source="", frame="", boxes={}, splits={})
    assert len(judge(table, truth, least_iou=0.5)) == 0
