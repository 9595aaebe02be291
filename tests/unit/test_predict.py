"""`wsol predict`: inputs, the record, going on after a kill, and each format read by the library that its users use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
import yaml
from PIL import Image

from tests.unit.model_folders import CLASSES, encoded, make_images, make_run, noise
from wsol_dist.cli import main
from wsol_dist.data.images.decode import decode_rgb
from wsol_dist.errors import UserError
from wsol_dist.prediction import predict as predicting
from wsol_dist.prediction.record import Predictions

FORMATS = "coco,yolo,voc,masks,heatmaps,overlays,parquet"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("a run") / "run")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("some images") / "photos")


@pytest.fixture(scope="module")
def out(run: Path, images: Path) -> Path:
    """All formats of 15 images."""
    folder = run.parent / "O"
    assert predict(run, images, folder, "--formats", FORMATS, "--boxes", "every", "--threshold", "0.4") == 0
    return folder


def predict(run: Path, images: Path, out: Path, *more: str) -> int:
    return main(["predict", str(run), str(images), "--out", str(out), *more])


def rows(out: Path) -> list[dict]:
    return polars.read_parquet(out / "predictions.parquet").to_dicts()


def boxes_of(out: Path, image: str) -> np.ndarray:
    found = [[row[side] for side in ("x0", "y0", "x1", "y1")] for row in rows(out) if row["image"] == image]
    return np.array(found)


def test_the_record_has_a_row_for_each_box_in_order(out: Path, images: Path) -> None:
    table = polars.read_parquet(out / "predictions.parquet")
    ids = [f"{name}/{number}.jpg" for name in CLASSES for number in range(5)]
    assert table["image"].unique(maintain_order=True).to_list() == ids
    assert set(table["width"]) == {40}
    assert set(table["height"]) == {30}
    assert (table["given_class"] == table["image"].str.split("/").list.first()).all()
    assert table["score"].is_between(1 / 3, 1).all()
    assert table.select((polars.col("x0") < polars.col("x1")).all()).item()
    assert (table["x1"] <= 40).all()
    assert (table["top5_label"].list.first() == table["label"]).all()
    about = json.loads((out / "predictions.json").read_text())
    assert about["threshold"] == {"source": "fixed", "level": 102, "value": 0.4, "from": None}
    assert (about["num_images"], about["num_broken"], about["num_boxes"]) == (15, 0, len(table))
    assert Predictions.open(out).read_image("bee/1.jpg") == (images / "bee" / "1.jpg").read_bytes()


def test_a_second_run_does_nothing(
    out: Path, run: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert predict(run, images, out, "--formats", FORMATS, "--boxes", "every", "--threshold", "0.4") == 0
    assert "all there, nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert predict(run, images, out, "--threshold", "0.5", "--boxes", "every") == 2
    assert "holds predictions made otherwise (threshold: 0.4 there, 0.5 here)" in capsys.readouterr().err


def test_pycocotools_reads_coco(out: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco = COCO(str(out / "coco.json"))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    for image in coco.loadImgs(coco.getImgIds()):
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        x, y, w, h = np.array([one["bbox"] for one in found]).T
        np.testing.assert_allclose(
            np.stack([x, y, x + w, y + h], axis=1), boxes_of(out, image["file_name"]), atol=0.02
        )
    # The same list serves as detections: against themselves they are all right.
    score = COCOeval(coco, coco.loadRes(coco.dataset["annotations"]), "bbox")
    score.evaluate()
    score.accumulate()
    score.summarize()
    assert score.stats[0] == pytest.approx(1)


def test_torchvision_reads_voc(out: Path) -> None:
    from torchvision.datasets import VOCDetection

    found = VOCDetection(str(out / "voc"), year="2012", image_set="trainval")
    assert len(found) == 15
    picture, target = found[0]
    annotation = target["annotation"]
    assert picture.size == (40, 30) == tuple(int(annotation["size"][side]) for side in ("width", "height"))
    expected = boxes_of(out, annotation["filename"])
    assert len(annotation["object"]) == len(expected)
    for one, (x0, y0, x1, y1) in zip(annotation["object"], expected, strict=True):
        assert one["name"] in CLASSES
        given = [int(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
        assert given == pytest.approx([x0 + 1, y0 + 1, x1, y1], abs=1.01)
        assert 1 <= given[0] <= given[2] <= 40
        assert 1 <= given[1] <= given[3] <= 30


def test_yolo_labels_lie_beside_their_images(out: Path) -> None:
    from torchvision.ops import box_convert

    tree = yaml.safe_load((out / "yolo" / "data.yaml").read_text())
    assert list(tree["names"].values()) == list(CLASSES)
    listed = (out / "yolo" / tree["train"]).read_text().splitlines()
    assert len(listed) == 15
    for line in listed:
        image = out / "yolo" / line
        assert Image.open(image).size == (40, 30)
        values = np.loadtxt(str(image).replace("/images/", "/labels/").replace(".jpg", ".txt"), ndmin=2)
        boxes = box_convert(torch.tensor(values[:, 1:]), "cxcywh", "xyxy").numpy() * [40, 30, 40, 30]
        np.testing.assert_allclose(boxes, boxes_of(out, line.removeprefix("./images/")), atol=1e-3)


def test_pil_reads_masks_heat_maps_and_overlays(out: Path) -> None:
    for row in rows(out):
        stem = row["image"].removesuffix(".jpg")
        mask = Image.open(out / "masks" / f"{stem}.png")
        assert (mask.size, mask.mode) == ((40, 30), "P")
        assert set(np.unique(np.asarray(mask))) == {0, row["label"] + 1}
        heat = Image.open(out / "heatmaps" / f"{stem}.{row['label']}.png")
        assert heat.getextrema() == (0, 255)
        np.testing.assert_array_equal(np.asarray(heat) > 102, np.asarray(mask) > 0)
        assert Image.open(out / "overlays" / f"{stem}.jpg").size == (84, 30)
    assert (out / "masks" / "classes.txt").read_text() == "0 background\n1 ant\n2 bee\n3 cat & dog\n"


def test_a_killed_run_goes_on(
    run: Path, images: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "CHUNK", 4)
    read, given = predicting.read, []

    def counting(item, image_px, work):
        given.append(item.id)
        if len(given) == 11:
            raise KeyboardInterrupt
        return read(item, image_px, work)

    monkeypatch.setattr(predicting, "read", counting)
    more = ("--threads", "1", "--batch-size", "2", "--boxes", "every", "--threshold", "0.4")
    with pytest.raises(KeyboardInterrupt):
        predict(run, images, tmp_path / "O", *more)
    assert not (tmp_path / "O" / "predictions.json").exists()
    with pytest.raises(UserError, match="not finished"):
        Predictions.open(tmp_path / "O")
    given.clear()
    monkeypatch.setattr(predicting, "read", lambda item, *rest: given.append(item.id) or read(item, *rest))
    assert predict(run, images, tmp_path / "O", *more) == 0
    assert 0 < len(given) <= 11
    strip = polars.all().exclude("score", "top5_score", "x0", "y0", "x1", "y1", "stability")
    mine, theirs = (polars.read_parquet(one / "predictions.parquet") for one in (tmp_path / "O", out))
    assert mine.select(strip).equals(theirs.select(strip))  # what shares a batch may change the last bits


def test_new_and_changed_images_are_predicted_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = make_images(tmp_path / "photos", num=2), tmp_path / "O"
    assert predict(run, images, out) == 0
    (images / "bee" / "0.jpg").write_bytes(encoded(noise(50, 30, seed=99), "JPEG"))
    (images / "bee" / "new.png").write_bytes(encoded(noise(20, 20, seed=98), "PNG"))
    (images / "ant" / "1.jpg").unlink()
    read, given = predicting.read, []
    monkeypatch.setattr(predicting, "read", lambda item, *rest: given.append(item.id) or read(item, *rest))
    assert predict(run, images, out, "--formats", "coco,masks") == 0
    assert set(given) >= {"bee/0.jpg", "bee/new.png"}
    width = {row["image"]: row["width"] for row in rows(out)}
    assert (width["bee/0.jpg"], width["bee/new.png"]) == (50, 20)
    assert "ant/1.jpg" not in width
    given.clear()
    assert predict(run, images, out, "--formats", "coco,masks,yolo") == 0
    assert given == []
    assert (out / "yolo" / "labels" / "bee" / "new.txt").is_file()


def test_odd_images_are_what_a_person_sees_and_broken_ones_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    picture = noise(40, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = picture.convert("RGBA")
    clear.putalpha(0)
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) << 8)
    odd = {
        "turned.jpg": encoded(picture, "JPEG", exif=exif),
        "grey.png": encoded(picture.convert("L"), "PNG"),
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG"),
        "deep.png": encoded(deep, "PNG"),
        "deep.tif": encoded(deep, "TIFF"),
        "clear.png": encoded(clear, "PNG"),
        "moving.gif": encoded(
            picture, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "blue")]
        ),
        "cut.jpg": encoded(picture, "JPEG")[:300],
        "text.png": b"no image",
        "empty.jpg": b"",
    }
    for name, data in odd.items():
        (folder / name).write_bytes(data)
    assert decode_rgb(odd["clear.png"]).min() == 255  # not the colours below
    np.testing.assert_array_equal(decode_rgb(odd["deep.tif"]), decode_rgb(odd["deep.png"]))
    assert predict(run, folder, tmp_path / "O") == 0
    assert "3 images do not decode: cut.jpg, empty.jpg, text.png" in capsys.readouterr().out
    of = {row["image"]: row for row in rows(tmp_path / "O")}
    assert set(of) == set(odd)
    assert (of["turned.jpg"]["width"], of["turned.jpg"]["height"]) == (30, 40)
    assert of["turned.jpg"]["y1"] <= 40
    for name, row in of.items():
        assert (row["error"] is not None) == (name in ("cut.jpg", "text.png", "empty.jpg"))
        assert (row["width"] > 0) == (row["error"] is None)
    listed = {one["file_name"] for one in json.loads((tmp_path / "O" / "coco.json").read_text())["images"]}
    assert listed == {name for name, row in of.items() if row["error"] is None}


def test_shards_are_predicted_with_their_classes(run: Path, tiny_shards: Path, tmp_path: Path) -> None:
    from wsol_dist.data.shards.index import Index

    index = Index.load(tiny_shards)
    own = make_run(tmp_path / "run", classes=index.classes)
    assert predict(own, tiny_shards, tmp_path / "O", "--split", "val", "--classes", "given") == 0
    found = rows(tmp_path / "O")
    labels = index.rows("val").label.tolist()
    assert [row["label"] for row in found] == [row["given_label"] for row in found] == labels
    assert len(Predictions.open(tmp_path / "O").read_image(found[5]["image"])) == found[5]["num_bytes"]


def test_images_of_a_pixel_and_of_extreme_sides_are_predicted(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for width, height in ((1, 1), (100_000, 1), (1, 40_000)):
        grey = np.arange(width * height, dtype=np.uint64).reshape(height, width).astype(np.uint8)
        (folder / f"{width}x{height}.png").write_bytes(encoded(Image.fromarray(grey), "PNG"))
    assert main(["predict", str(run), "--out", str(tmp_path / "O"), "--formats", FORMATS, str(folder)]) == 0
    for row in rows(tmp_path / "O"):
        assert row["error"] is None
        assert f"{row['width']}x{row['height']}.png" == row["image"]
        mask = Image.open(tmp_path / "O" / "masks" / row["image"])
        assert mask.size == (row["width"], row["height"])


def test_masks_of_many_classes_have_16_bits(tmp_path: Path) -> None:
    from wsol_dist.prediction.results import LocalizedClass, LocalizedImage
    from wsol_dist.prediction.writers import masks

    map_hw = np.eye(8, dtype=np.float32)
    one = LocalizedClass(
        label=999, name="", score=1, boxes=(), map_hw=map_hw, size_wh=(8, 8), level=127, normalise="min_max"
    )
    found = LocalizedImage(size_wh=(8, 8), prob_C=np.zeros(1000), classes=(one,))
    masks.draw(tmp_path, "a", np.zeros((8, 8, 3), np.uint8), found, tuple(map(str, range(1000))))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.eye(8) * 1000)


@pytest.mark.slow
def test_two_processes_predict_the_same(
    run: Path, images: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--procs", "2", "--boxes", "every", "--threshold", "0.4")
    assert predict(run, images, tmp_path / "O", *more) == 0
    mine, theirs = (polars.read_parquet(one / "predictions.parquet") for one in (tmp_path / "O", out))
    assert mine["image"].equals(theirs["image"])
    np.testing.assert_allclose(mine["x1"], theirs["x1"], atol=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["EMPTY"], "no images in it"),
        (["EMPTY/*.jpg"], "no images in it"),
        (["IMAGES", "--formats", "coc"], "did you mean 'coco'"),
        (["IMAGES", "--top-k", "4"], "the model has 3 classes"),
        (["IMAGES", "--min-score", "2"], "--min-score: given 2.0; allowed: 0 to 1"),
        (["IMAGES", "--split", "val"], "chooses splits of shards"),
        (["TWINS", "--formats", "yolo"], "differ in their extension only"),
        (["TWINS", "--classes", "given"], "no image lies in a folder"),
        ([], "PATH is needed"),
    ],
)
def test_mistakes_are_said_in_a_line(
    run: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "twins").mkdir()
    for name in ("a.jpg", "a.png"):
        (tmp_path / "twins" / name).write_bytes(encoded(noise(9, 9), "PNG"))
    places = {"IMAGES": images, "EMPTY": tmp_path / "empty", "TWINS": tmp_path / "twins"}
    for word, place in places.items():
        arguments = [one.replace(word, str(place)) for one in arguments]
    assert main(["predict", str(run), *arguments, "--out", str(tmp_path / "O")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "O" / "predictions.json").exists()


def test_a_folder_with_other_files_is_not_written_into(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert predict(run, images, tmp_path) == 2
    assert "holds other files" in capsys.readouterr().err
