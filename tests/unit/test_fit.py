"""What `wsol fit` sees in a person's folder, and what it refuses; training is elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsol_dist.cli import main
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.fitting import steps
from wsol_dist.fitting.boxes import find_boxes, open_boxes
from wsol_dist.fitting.look import look, spelling
from wsol_dist.fitting.source import FitSource
from wsol_dist.fitting.started import Started


def picture(path: Path, *, size_wh: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    assert cv2.imwrite(str(path), rng.integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8))


def fill(root: Path, **counts: int) -> Path:
    """Class folders with so many images each."""
    for name, count in counts.items():
        for number in range(count):
            picture(root / name / f"{number:03d}.jpg", seed=number)
    return root


def seen(root: Path):
    return look(root, max_bad=0.05, workers=1)


# ---- what is there


def test_class_folders(tmp_path):
    found = seen(fill(tmp_path, cat=6, dog=9))
    assert found.counts == {"cat": 6, "dog": 9}
    assert found.image_px == 30
    assert found.left_out == {}
    assert found.notes == ("classes with under 20 images, of which little can be expected: cat (6), dog (9)",)


def test_splits_that_are_folders(tmp_path):
    fill(tmp_path / "train", cat=6, dog=7)
    fill(tmp_path / "val", cat=2, dog=2)
    found = seen(tmp_path)
    assert found.splits == ("train", "val")
    assert found.counts == {"cat": 6, "dog": 7}


def test_strays_and_unusable_images_are_named_and_left_out(tmp_path):
    fill(tmp_path, cat=30, dog=30)
    (tmp_path / "cat/notes.txt").write_text("x")
    (tmp_path / "cat/moving.gif").write_bytes(b"GIF89a")
    (tmp_path / "dog/more").mkdir()
    (tmp_path / "dog/text.jpg").write_text("no image")
    picture(tmp_path / "dog/strip.png", size_wh=(100_000, 1))
    whole = (tmp_path / "cat/000.jpg").read_bytes()
    (tmp_path / "cat/cut.jpg").write_bytes(whole[: len(whole) // 2])
    found = seen(tmp_path)
    assert found.counts == {"cat": 30, "dog": 30}
    assert found.left_out["dog/strip.png"] == "100000 x 1 px, a strip that shows no object"
    assert found.left_out.keys() == {"dog/strip.png", "dog/text.jpg", "cat/cut.jpg"}
    assert found.notes[0].endswith("are: cat/moving.gif, cat/notes.txt, dog/more/")
    assert "dog/strip.png (100000 x 1 px" in found.notes[1]


def test_too_many_unusable_images_end_it_with_their_names(tmp_path):
    fill(tmp_path, cat=8, dog=8)
    for number in range(3):
        (tmp_path / f"cat/bad{number}.jpg").write_text("x")
    with pytest.raises(
        UserError, match=r"3 of 19 images cannot be used, --max-bad 0.05 allows 1: cat/bad0.jpg \(no"
    ):
        seen(tmp_path)
    assert len(look(tmp_path, max_bad=0.2, workers=1).left_out) == 3


# ---- what is refused


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder; expected one folder of images a class"):
        seen(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path):
    with pytest.raises(
        UserError, match=r"an empty folder; needed is one folder of images a class: .*/cat/1.jpg"
    ):
        seen(tmp_path)


def test_images_without_class_folders(tmp_path):
    picture(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="1 images and no class folders in it"):
        seen(tmp_path)


def test_class_folders_without_images(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    with pytest.raises(UserError, match=r"no image \(jpg, png, .* in any of its class folders"):
        seen(tmp_path)


def test_one_class_only_says_what_to_do(tmp_path):
    fill(tmp_path, cat=9)
    with pytest.raises(
        UserError, match=r"one class only, 'cat': .* add a second folder of images without it, such as"
    ):
        seen(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat "), ("red_car", "Red Car"), ("caf\u00e9", "cafe\u0301")]
)
def test_two_spellings_of_a_class_are_named(tmp_path, one, other):
    fill(tmp_path, **{one: 6, other: 6, "dog": 6})
    first, second = sorted([one, other])
    with pytest.raises(UserError) as error:
        seen(tmp_path)
    assert f"{first!r} and {second!r} are spellings of one class; move the images" in str(error.value)


@pytest.mark.parametrize(("one", "other"), [("cat", "cats"), ("c1", "c2"), ("+", "-")])
def test_other_classes_are_no_spellings(one, other):
    assert spelling(one) != spelling(other)


def test_classes_with_too_few_images_are_all_named(tmp_path):
    fill(tmp_path, cat=9, dog=4, owl=1)
    (tmp_path / "ant").mkdir()
    with pytest.raises(
        UserError, match="at least 5 are needed: 'ant' has 0, 'dog' has 4, 'owl' has 1; add images"
    ):
        seen(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--val-fraction", "0.7"], "--val-fraction: given 0.7; allowed: above 0 and below 0.5"),
        (["--max-bad", "2"], "--max-bad: given 2.0; allowed: 0 to 1"),
        (["--procs", "0"], "--procs: given 0; allowed: 1 or more"),
        (["--arch", "resnet18"], "--arch: names the architecture of --weights, which is not given"),
        (["--boxes", "none.csv"], "--boxes: there is no file none.csv"),
    ],
)
def test_flags_that_cannot_be(tmp_path, capsys, words, said):
    fill(tmp_path / "pictures", cat=6, dog=6)
    assert main(["fit", str(tmp_path / "pictures"), "--out", str(tmp_path / "run"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_folder_of_somebody_else(tmp_path, capsys):
    fill(tmp_path / "pictures", cat=6, dog=6)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/x").write_text("x")
    assert main(["fit", str(tmp_path / "pictures"), "--out", str(tmp_path / "run")]) == 2
    assert "is not empty and no fit was begun in it" in capsys.readouterr().err


def test_explain_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wsol_dist.launching.submission.local_gpus", lambda: 0)
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "pictures", cat=6, dog=6)
    assert main(["fit", "pictures", "--explain"]) == 0
    said = capsys.readouterr().out
    assert (
        "seen: 10 images to train on, 30 px (median of the shorter side), 2 classes, no GPU, weights: none"
        in said
    )
    assert "-> scratch, small images" in said
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


# ---- boxes and splits


def write_csv(root: Path, rows: list[str]) -> Path:
    path = root / "boxes.csv"
    path.write_text("\n".join(["image,x0,y0,x1,y1", *rows]) + "\n")
    return path


def write_coco(root: Path, names: list[str], *, category: str) -> Path:
    tree = {
        "categories": [{"id": 3, "name": category}, {"id": 9, "name": "other"}],
        "images": [{"id": at, "file_name": name, "width": 80, "height": 60} for at, name in enumerate(names)],
        "annotations": [
            {"id": 2 * at + k, "image_id": at, "category_id": (3, 9)[k], "bbox": [10, 5 + k, 20, 30]}
            for at in range(len(names))
            for k in (0, 1)
        ],
    }
    path = root / "labels.json"
    path.write_text(json.dumps(tree))
    return path


def test_boxes_are_found_or_named(tmp_path):
    fill(tmp_path, cat=6, dog=6)
    assert find_boxes(tmp_path, None) is None
    csv_file = write_csv(tmp_path, ["cat/000.jpg,1,2,20,25"])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert find_boxes(tmp_path, None) == csv_file
    assert find_boxes(tmp_path, "none") is None
    coco = write_coco(tmp_path, ["cat/000.jpg"], category="cat")
    with pytest.raises(UserError, match=r"several files of boxes \(boxes.csv, labels.json\)"):
        find_boxes(tmp_path, None)
    assert find_boxes(tmp_path, str(coco)) == coco


@pytest.mark.parametrize(
    ("name", "category", "num_boxes"),
    [("cat/000.jpg", "Cat", 1), ("cat/000.jpg", "object", 2), ("only.jpg", "cat", 1)],
    ids=["own class only", "every box where no category is a class", "by file name"],
)
def test_boxes_of_a_coco_file(tmp_path, name, category, num_boxes):
    fill(tmp_path, cat=6, dog=6)
    picture(tmp_path / "cat/only.jpg")
    images = [f"{folder}/{number:03d}.jpg" for folder in ("cat", "dog") for number in range(6)] + [
        "cat/only.jpg"
    ]
    path = write_coco(tmp_path, [name, "gone.jpg"], category=category)
    found = open_boxes(path, tmp_path, images)
    (image,) = found.boxes_xyxy
    assert image.endswith(name)
    assert found.boxes_xyxy[image][0] == [10, 5, 30, 35]
    assert len(found.boxes_xyxy[image]) == num_boxes
    assert found.frame_wh[image] == (80, 60)
    assert found.num_unknown == 1


def test_boxes_of_nothing_are_refused(tmp_path):
    fill(tmp_path, cat=6, dog=6)
    path = write_coco(tmp_path, ["000.jpg"], category="cat")
    with pytest.raises(UserError, match="has no box of an image that is used"):
        open_boxes(path, tmp_path, ["cat/000.jpg", "dog/000.jpg"])


def splits_of(root: Path, *, boxes: Path | None, fraction: float, seed: int = 0) -> dict[str, list[str]]:
    plain = FitSource(root, left_out=(), boxes=None, fraction=0, seed=0)
    known = None if boxes is None else open_boxes(boxes, root, [item.id for item in plain.items()])
    found: dict[str, list[str]] = {}
    for item in FitSource(root, left_out=(), boxes=known, fraction=fraction, seed=seed).items():
        found.setdefault(item.split, []).append(item.id)
    return found


def test_without_boxes_the_packing_holds_out(tmp_path):
    fill(tmp_path, cat=30, dog=30)
    assert splits_of(tmp_path, boxes=None, fraction=0.2).keys() == {"train"}


def test_val_and_test_are_held_out_of_the_images_with_boxes(tmp_path):
    fill(tmp_path, cat=60, dog=60)
    boxed = {f"{name}/{number:03d}.jpg" for name in ("cat", "dog") for number in range(30)}
    path = write_csv(tmp_path, [f"{image},1,2,20,25" for image in sorted(boxed)])
    found = splits_of(tmp_path, boxes=path, fraction=0.1)
    assert set(found["val"] + found["test"]) <= boxed
    assert 4 <= len(found["val"]) <= 24
    assert 4 <= len(found["test"]) <= 24
    assert len(found["train"]) == 120 - len(found["val"]) - len(found["test"])
    assert splits_of(tmp_path, boxes=path, fraction=0.1) == found
    assert splits_of(tmp_path, boxes=path, fraction=0.1, seed=1) != found


def test_samples_carry_their_boxes_in_their_frame(tmp_path):
    fill(tmp_path, cat=6, dog=6)
    known = open_boxes(write_coco(tmp_path, ["cat/000.jpg"], category="cat"), tmp_path, ["cat/000.jpg"])
    source = FitSource(tmp_path, left_out=["cat/001.jpg"], boxes=known, fraction=0, seed=0)
    samples = {item.id: source.read(item) for item in source.items()}
    assert len(samples) == 11
    assert samples["cat/000.jpg"].boxes_xyxy.tolist() == [[10, 5, 30, 35]]
    assert samples["cat/000.jpg"].box_frame_wh == (80, 60)
    assert samples["dog/000.jpg"].boxes_xyxy is None


def test_which_splits_are_scored_and_with_whose_threshold(tmp_path, tiny_shards):
    index = Index.load(tiny_shards)
    assert steps.scored_splits(index) == ("val", "test")
    assert steps.scored_with_fixed(index) == ()
    pictures = fill(tmp_path / "pictures/train", cat=8, dog=8).parent
    for split in ("val", "test"):
        fill(pictures / split, cat=3, dog=3)
    boxes = write_csv(pictures, ["test/cat/000.jpg,1,2,20,25"])
    started = Started(
        folder=str(pictures), boxes=str(boxes), seed=0, val_fraction=0.2, left_out={}, row="", why="", recipe="",
        changes={}, config={},
    )  # fmt: skip
    source = steps.open_source(started)
    (tmp_path / "run").mkdir()
    index = steps.pack(started, tmp_path / "run", source, workers=1)
    assert steps.describe_splits(index, source.known).startswith(
        "splits: train 16, val 6, test 6 (1 with boxes)"
    )
    assert steps.scored_splits(index) == ("val",)
    assert steps.scored_with_fixed(index) == ("test",)
    assert steps.pack(started, tmp_path / "run", source, workers=1).sha256 == index.sha256
