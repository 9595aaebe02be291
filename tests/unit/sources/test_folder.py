"""Class folders with and without splits, boxes from a CSV."""

import pytest

from tests.unit.sources.images import write_image
from wsol_dist.data.sources import folder
from wsol_dist.errors import UserError


def test_class_folders(tmp_path):
    data = write_image(tmp_path / "b" / "1.JPEG")
    write_image(tmp_path / "a" / "2.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    source = folder.Source(folder.Options(root=tmp_path))
    items = list(source.items())
    assert source.classes == ("a", "b")
    assert [(item.id, item.split, item.labels) for item in items] == [
        ("a/2.png", "train", (0,)),
        ("b/1.JPEG", "train", (1,)),
    ]
    sample = source.read(items[1])
    assert (sample.image, sample.extension, sample.boxes_xyxy) == (data, "jpg", None)


def test_split_folders(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / split / name / "0.jpg")
    source = folder.Source(folder.Options(root=tmp_path))
    assert [item.id for item in source.items()] == [
        "train/a/0.jpg",
        "train/b/0.jpg",
        "test/a/0.jpg",
        "test/b/0.jpg",
    ]


def test_boxes_in_the_frame_of_the_image(tmp_path):
    write_image(tmp_path / "a" / "0.jpg")
    write_image(tmp_path / "b" / "0.jpg")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x0,y0,x1,y1\na/0.jpg,1,2,3,4\na/0.jpg,5,6,29,19\n")
    source = folder.Source(folder.Options(root=tmp_path, boxes=boxes))
    first, second = (source.read(item) for item in source.items())
    assert first.boxes_xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 29, 19]]
    assert first.box_frame_wh == (30, 20)
    assert second.boxes_xyxy is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x,y,w,h\n", "image,x0,y0,x1,y1"),
        ("image,x0,y0,x1,y1\na/0.jpg,1,2,three,4\n", "row 2"),
        ("image,x0,y0,x1,y1\na/0.jpg,9,2,3,4\n", "row 2"),
        ("image,x0,y0,x1,y1\na/0.jpg,nan,2,3,4\n", "row 2"),
        ("image,x0,y0,x1,y1\na/9.jpg,1,2,3,4\n", "no image 'a/9.jpg'"),
        ("image,x0,y0,x1,y1\n../a/0.jpg,1,2,3,4\n", "refused"),
        ("", "empty file"),
    ],
)
def test_bad_boxes_are_refused(tmp_path, text, message):
    write_image(tmp_path / "a" / "0.jpg")
    write_image(tmp_path / "b" / "0.jpg")
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        folder.Source(folder.Options(root=tmp_path, boxes=tmp_path / "boxes.csv"))


def test_a_class_without_images_is_named(tmp_path):
    write_image(tmp_path / "a" / "0.jpg")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match=r"b: a class without images"):
        list(folder.Source(folder.Options(root=tmp_path)).items())


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        folder.Source(folder.Options(root=tmp_path / "nowhere"))
