"""COCO and JSON files of one's own: labels, boxes, every kind of mask, crowds."""

import json
import pickle  # noqa: TID251 - as a packing process gets it
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.unit.sources.images import image_bytes, png_bytes, write_image, write_text
from tests.unit.test_archive import make_zip
from wsol_dist.data.raw.masks import decode_runs, fill_polygons, segmentation_mask
from wsol_dist.data.sources import coco, coco_json
from wsol_dist.errors import UserError

SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 8.0, 2.0, 8.0]]
"""Pixels x 2 to 11, y 3 to 7."""
ALL_RUNS = {"counts": [0, 600], "size": [20, 30]}


def content(**changed) -> dict:
    return {
        "images": [{"id": n, "file_name": f"{n:012d}.jpg", "width": 30, "height": 20} for n in (5, 3, 9)],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 90, "bbox": [2, 3, 10, 5], "segmentation": SQUARE},
            {
                "id": 2,
                "image_id": 3,
                "category_id": 1,
                "iscrowd": 1,
                "bbox": [0, 0, 30, 20],
                "segmentation": ALL_RUNS,
            },
            {"id": 3, "image_id": 9, "category_id": 1, "bbox": [1.5, 2, 3, 4], "segmentation": ALL_RUNS},
        ],
    } | changed


@pytest.fixture
def root(tmp_path):
    write_text(tmp_path / "annotations" / "instances_val2017.json", json.dumps(content()))
    for number in (3, 5, 9):
        write_image(tmp_path / "val2017" / f"{number:012d}.jpg")
    return tmp_path


def test_labels_boxes_and_masks(root):
    source = coco.Source(coco.Options(root=root))
    items = list(source.items())
    assert source.classes == ("person", "toothbrush")
    assert [(item.id, item.split, item.labels) for item in items] == [
        ("val2017/000000000003.jpg", "test", (0, 1)),
        ("val2017/000000000005.jpg", "test", ()),
        ("val2017/000000000009.jpg", "test", (0,)),
    ]
    sample = source.read(items[0])
    assert (sample.boxes_xyxy.tolist(), sample.box_labels) == ([[2, 3, 12, 8]], (1,))  # without the crowd
    expected = np.full((20, 30), 255, np.uint8)
    expected[3:8, 2:12] = 2
    assert (sample.mask == expected).all()
    assert (source.read(items[2]).mask == 1).all()


def download(root: Path, to: Path, year: int = 2017) -> Path:
    """The same as the official zips."""
    to.mkdir()
    for archive in root.glob("*.zip"):
        shutil.copy(archive, to)
    for folder, name in (
        ("annotations", f"annotations_trainval{year}.zip"),
        (f"val{year}", f"val{year}.zip"),
    ):
        files = {f"{folder}/{path.name}": path.read_bytes() for path in sorted((root / folder).glob("*.j*"))}
        make_zip(to / name, files)
    return to


def test_the_zips_as_they_are(root, tmp_path):
    expected = coco.Source(coco.Options(root=root))
    source = coco.Source(coco.Options(root=download(root, tmp_path / "loaded")))
    assert list(source.items()) == list(expected.items())
    for item in source.items():
        assert source.read(item).image == expected.read(item).image


def test_panoptic_masks(root):
    ids = np.zeros((20, 30), np.uint32)
    ids[:5], ids[5:10], ids[10:12] = 70_000, 300, 7
    colours = np.stack([ids // 65_536, ids // 256 % 256, ids % 256], axis=2).astype(
        np.uint8
    )  # blue, green, red
    (root / "annotations" / "panoptic_val2017").mkdir()
    (root / "annotations" / "panoptic_val2017" / "3.png").write_bytes(png_bytes(colours))
    segments = [
        {"id": 70_000, "category_id": 90},
        {"id": 300, "category_id": 184},
        {"id": 7, "category_id": 1, "iscrowd": 1},
    ]
    panoptic = {"annotations": [{"image_id": 3, "file_name": "3.png", "segments_info": segments}]}
    write_text(root / "annotations" / "panoptic_val2017.json", json.dumps(panoptic))
    source = coco.Source(coco.Options(root=root, masks="panoptic"))
    first, _, third = source.items()
    mask = source.read(first).mask
    assert [int(mask[row, 0]) for row in (0, 4, 5, 9, 10, 12)] == [2, 2, 0, 0, 255, 255]
    assert source.read(third).mask is None
    folder = root / "annotations" / "panoptic_val2017"  # the official download has a zip in its place
    shutil.make_archive(str(folder), "zip", root / "annotations", "panoptic_val2017")
    shutil.rmtree(folder)
    assert (coco.Source(coco.Options(root=root, masks="panoptic")).read(first).mask == mask).all()
    (root / "annotations" / "panoptic_val2017.json").unlink()
    with pytest.raises(
        UserError, match=r"neither annotations/panoptic_val2017\.json nor panoptic_annotations_"
    ):
        coco.Source(coco.Options(root=root, masks="panoptic"))
    inner = folder.with_suffix(".zip").read_bytes()
    names = {
        "annotations/panoptic_val2017.json": json.dumps(panoptic),
        "annotations/panoptic_val2017.zip": inner,
    }
    make_zip(root / "panoptic_annotations_trainval2017.zip", names)
    downloaded = download(root, root / "downloaded")  # nothing unpacked, and the instances only
    for place in (root, downloaded):
        source = coco.Source(coco.Options(root=place, masks="panoptic"))
        assert (pickle.loads(pickle.dumps(source)).read(first).mask == mask).all()  # noqa: S301 - its own


def test_an_outline_is_filled_as_coco_fills_it():
    assert fill_polygons([[0, 0, 4, 0, 4, 2, 0, 2]], (4, 6)).sum() == 8
    assert fill_polygons([[0.6, 0, 4, 0, 4, 2, 0.6, 2]], (4, 6)).sum() == 6
    corner = fill_polygons([[4, 2, 9, 2, 9, 9, 4, 9]], (4, 6))  # reaches out
    assert corner.sum() == 4
    assert corner[2:, 4:].all()
    assert not fill_polygons([], (4, 6)).any()
    for bad, words in (
        ([[0, 0, 4, 4]], "three or more"),
        ([[0, 0, 4, 4, float("nan"), 1]], "three or more"),
        ([[0, 0, 4, 4, 1e9, 1]], "far outside"),
    ):
        with pytest.raises(ValueError, match=words):
            fill_polygons(bad, (4, 6))


def test_blobs_and_runs_equal_pycocotools():
    generator = np.random.default_rng(0)
    for _ in range(20):
        angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        points = 30 + generator.uniform(5, 35, 12)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        annotation = {"image_id": 0, "segmentation": [points.ravel().tolist(), [0, 0, 9.5, 0, 9.5, 9.5]]}
        theirs = COCO()
        theirs.imgs = {0: {"height": 50, "width": 60}}
        mask = theirs.annToMask(annotation).astype(bool)
        assert (segmentation_mask(annotation["segmentation"], (50, 60)) == mask).all()
        runs = theirs.annToRLE(annotation)
        assert (decode_runs(runs["counts"].decode(), (50, 60)) == mask).all()


def test_runs_go_down_the_columns_and_may_be_compressed():
    plain = decode_runs([2, 3, 4, 3], (3, 4))
    assert plain.tolist() == [
        [False, True, False, True],
        [False, True, False, True],
        [True, False, False, True],
    ]
    # By hand, as the format says: runs 100, 5, 95, 6, 94; from the fourth on differences to the last but one.
    assert (decode_runs("T35o21O", (10, 30)) == decode_runs([100, 5, 95, 6, 94], (10, 30))).all()
    for bad in ([3, 4], [-1, 13], "~~"):
        with pytest.raises(ValueError, match="run lengths"):
            decode_runs(bad, (3, 4))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"categories": [{"id": 1}]}, "KeyError.*categories"),
        ({"annotations": [{"image_id": 4, "category_id": 1}]}, "no image or category of its number"),
        ({"images": [{"id": 3, "file_name": "x.jpg"}]}, "width"),
    ],
)
def test_files_that_do_not_fit_are_named(root, changed, message):
    write_text(root / "annotations" / "instances_val2017.json", json.dumps(content(**changed)))
    with pytest.raises(UserError, match=rf"instances_val2017\.json: .*{message}"):
        coco.Source(coco.Options(root=root))


class TestOwn:
    def open(self, root: Path, **files: Path) -> coco_json.Source:
        return coco_json.Source(coco_json.Options(root=root / "val2017", **files))

    def test_several_labels(self, root):
        source = self.open(root, train=root / "annotations" / "instances_val2017.json")
        by_id = {item.id: item for item in source.items()}
        assert by_id["000000000003.jpg"].labels == (0, 1)
        sample = source.read(by_id["000000000003.jpg"])
        assert (sample.semantic, sample.box_labels) == (True, (1,))

    def test_one_label_an_image(self, root):
        single = content(annotations=[content()["annotations"][0], content()["annotations"][2]])
        write_text(root / "own.json", json.dumps(single))
        source = self.open(root, test=root / "own.json")
        by_id = {item.id: item for item in source.items()}
        sample = source.read(by_id["000000000003.jpg"])
        assert (sample.semantic, sample.box_labels, sample.labels) == (False, None, (1,))
        assert set(np.unique(sample.mask)) == {0, 1}
        assert sample.mask.sum() == 50

    def test_nothing_given(self, root):
        with pytest.raises(UserError, match="one or more of --train, --val, --test"):
            self.open(root)

    def test_files_with_other_categories(self, root):
        write_text(
            root / "own.json", json.dumps(content(categories=content()["categories"][:1], annotations=[]))
        )
        with pytest.raises(UserError, match="other categories"):
            self.open(root, train=root / "annotations" / "instances_val2017.json", test=root / "own.json")


def test_the_real_images(real_data):
    """Panoptic masks equal the derived semantic PNGs but for crowds, which those have as their class."""
    import cv2

    root = real_data / "coco128-val2017"
    source = coco.Source(coco.Options(root=root, masks="panoptic"))
    items = list(source.items())
    samples = [source.read(item) for item in items[::8]]
    assert (len(items), len({label for item in items for label in item.labels})) == (128, 73)
    assert round(np.mean([len(item.labels) for item in items]), 1) == 2.9
    for item, sample in zip(items[::8], samples, strict=True):
        path = root / "annotations" / "semantic80_val2017" / f"{Path(item.id).stem}.png"
        assert (sample.mask is None) == (not path.is_file())
        if sample.mask is not None:
            derived = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert ((sample.mask == derived) | (sample.mask == 255)).all()
            assert {int(value) - 1 for value in np.unique(derived)} - {-1, 254} <= set(item.labels)


def test_the_names_of_2014(root, tmp_path):
    """Its files and archives are named by year, its images by part, too."""
    text = json.dumps(content()).replace('"file_name": "', '"file_name": "COCO_val2014_')
    write_text(tmp_path / "old" / "annotations" / "instances_val2014.json", text)
    for number in (3, 5, 9):
        write_image(tmp_path / "old" / "val2014" / f"COCO_val2014_{number:012d}.jpg", shade=number)
    loaded = download(tmp_path / "old", tmp_path / "loaded", year=2014)
    for place in (tmp_path / "old", loaded):
        source = coco.Source(coco.Options(root=place, year=2014))
        items = list(source.items())
        assert [item.id for item in items] == [f"val2014/COCO_val2014_{n:012d}.jpg" for n in (3, 5, 9)]
        assert source.read(items[0]).image == image_bytes(shade=3)
        assert source.known_counts["test"] == 40_137
    with pytest.raises(UserError, match=r"neither annotations nor annotations_trainval2017\.zip"):
        coco.Source(coco.Options(root=loaded))
