"""CUB-200-2011: folder and archive, boxes, masks by votes, CUBV2."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.unit.sources.images import png_bytes, write_image, write_text
from wsol_dist.data.sources import cub
from wsol_dist.errors import UserError

LISTS = {
    "classes.txt": "1 001.Albatross\n2 002.Auklet\n",
    "images.txt": "1 001.Albatross/a_1.jpg\n3 001.Albatross/a_3.jpg\n7 002.Auklet/b_7.jpg\n",
    "image_class_labels.txt": "1 1\n3 1\n7 2\n",
    "train_test_split.txt": "1 0\n3 1\n7 1\n",
    "bounding_boxes.txt": "1 2.0 3.0 10.0 5.0\n3 0.0 0.0 30.0 20.0\n7 1.5 2.0 8.0 9.0\n",
}


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "CUB_200_2011"
    for name, text in LISTS.items():
        write_text(base / name, text)
    for row in LISTS["images.txt"].splitlines():
        write_image(base / "images" / row.split()[1])
    return tmp_path


def open_source(root: Path, **options) -> cub.Source:
    return cub.Source(cub.Options(root=root, **options))


def read_all(root: Path) -> None:
    source = open_source(root)
    for item in source.items():
        source.read(item)


def write_masks(folder: Path) -> None:
    grey = np.zeros((20, 30), np.uint8)
    grey[4:9, 5:11], grey[4, 5] = 153, 102  # three annotators, two of them
    for row in LISTS["images.txt"].splitlines():
        path = folder / row.split()[1].replace(".jpg", ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png_bytes(grey))


def test_official_splits_and_boxes(root):
    source = open_source(root)
    items = list(source.items())
    assert source.classes == ("001.Albatross", "002.Auklet")
    assert [(item.id, item.split, item.labels) for item in items] == [
        ("001.Albatross/a_1.jpg", "test", (0,)),
        ("001.Albatross/a_3.jpg", "train", (0,)),
        ("002.Auklet/b_7.jpg", "train", (1,)),
    ]
    sample = source.read(items[0])
    assert sample.boxes_xyxy.tolist() == [[2, 3, 12, 8]]  # x, y, x + width, y + height
    assert (sample.box_frame_wh, sample.mask) == ((30, 20), None)
    assert source.read(items[2]).boxes_xyxy.tolist() == [[1.5, 2, 9.5, 11]]


def test_the_official_archives_give_the_same(root):
    write_masks(root / "segmentations")
    expected = open_source(root)
    loaded = root / "loaded"
    loaded.mkdir()
    for name in ("CUB_200_2011", "segmentations"):
        with tarfile.open(loaded / f"{name}.tgz", "w:gz") as tar:
            tar.add(root / name, name)
    source = open_source(loaded)
    assert list(source.items()) == list(expected.items())
    for item in source.items():
        mine, theirs = source.read(item), expected.read(item)
        assert mine.image == theirs.image
        assert mine.boxes_xyxy.tolist() == theirs.boxes_xyxy.tolist()
        assert (mine.mask == theirs.mask).all()


def test_a_mask_is_what_enough_annotators_say(root):
    write_masks(root / "masks" / "segmentations")
    item = next(open_source(root).items())
    majority = open_source(root, segmentations=root / "masks").read(item).mask
    ys, xs = np.nonzero(majority)
    assert (xs.min(), ys.min(), xs.max(), ys.max(), len(xs)) == (5, 4, 10, 8, 29)
    assert set(np.unique(majority)) == {0, 1}
    two = open_source(root, segmentations=root / "masks", mask_votes=2).read(item).mask
    assert two.sum() == 30


@pytest.mark.parametrize("packed", [False, True])
def test_cubv2_is_the_split_val(root, packed):
    names = ("001.Albatross/99.jpg", "002.Auklet/98.jpg")
    images = [write_image(root / "CUBV2" / name, shade, (40, 50)) for shade, name in enumerate(names)]
    lists = {
        "image_ids.txt": "001.Albatross/99.jpg\n002.Auklet/98.jpg\n",
        "class_labels.txt": "001.Albatross/99.jpg,0\n002.Auklet/98.jpg,1\n",
        "image_sizes.txt": "001.Albatross/99.jpg,50,40\n002.Auklet/98.jpg,50,40\n",
        "localization.txt": "001.Albatross/99.jpg,1,2,48,39\n002.Auklet/98.jpg,5,6,7,8\n",
    }
    for name, text in lists.items():
        write_text(root / "lists" / name, text)
    (root / "kept").mkdir()
    with tarfile.open(root / "kept" / "CUBV2.tar", "w") as tar:  # as it is downloaded
        tar.add(root / "CUBV2", "CUBV2")
    if packed:
        shutil.rmtree(root / "CUBV2")
    place = root / "kept" / "CUBV2.tar" if packed else root / "CUBV2"
    source = open_source(root, cubv2=place, cubv2_lists=root / "lists")
    first, second = (item for item in source.items() if item.split == "val")
    sample = source.read(first)
    assert (sample.image, source.read(second).image) == tuple(images)
    assert (sample.labels, sample.boxes_xyxy.tolist(), sample.box_frame_wh) == (
        (0,),
        [[1, 2, 48, 39]],
        (50, 40),
    )
    assert source.known_counts == {"train": 5994, "test": 5794, "val": 1000, "classes": 200}
    with pytest.raises(UserError, match="both are needed"):
        open_source(root, cubv2=root / "CUBV2")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train_test_split.txt", "1 0\n3 2\n7 1\n", r"image 3 .*1 \(train\) or 0 \(test\)"),
        ("image_class_labels.txt", "1 1\n3 1\n7 3\n", "image 7 .*a class of classes.txt"),
        ("bounding_boxes.txt", "1 2 3 4\n", r"bounding_boxes\.txt: row 1"),
        ("bounding_boxes.txt", "1 2 3 4 nan\n", "'nan' given, a number expected"),
        ("images.txt", "1 001.Albatross/a_1.jpg\n3 ../../x.jpg\n7 002.Auklet/b_7.jpg\n", "refused"),
    ],
)
def test_lists_that_do_not_fit_are_named(root, name, text, message):
    (root / "CUB_200_2011" / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_all(root)


def test_an_image_without_a_box_is_named(root):
    (root / "CUB_200_2011" / "bounding_boxes.txt").write_text("1 2 3 4 5\n")
    source = open_source(root)
    with pytest.raises(UserError, match=r"bounding_boxes\.txt: no row for image 3"):
        list(source.items())


def test_what_is_no_cub_is_refused(root):
    shutil.rmtree(root / "CUB_200_2011")
    with pytest.raises(UserError, match=r"no images\.txt in it; expected CUB_200_2011\.tgz"):
        open_source(root)


def test_the_real_birds(real_data):
    source = open_source(real_data / "CUB_200_2011")
    items = list(source.items())
    assert [len([item for item in items if item.split == split]) for split in ("train", "test")] == [300, 50]
    for item in items[::25]:
        sample = source.read(item)
        (x0, y0, x1, y1), (width, height) = sample.boxes_xyxy[0], sample.box_frame_wh
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
