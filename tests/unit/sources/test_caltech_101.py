"""Caltech-101: MATLAB annotations that count from 1."""

from pathlib import Path

import numpy as np
import pytest

from tests.unit.sources.images import image_bytes, write_image
from tests.unit.test_archive import make_tar, make_zip
from wsol_dist.data.packing.plan import PackOptions, make_plan
from wsol_dist.data.sources import caltech_101
from wsol_dist.errors import UserError


def write(root, box=(2, 17, 3, 28)):
    import scipy.io

    write_image(root / "101_ObjectCategories" / "airplanes" / "image_0001.jpg")
    path = root / "Annotations" / "Airplanes_Side_2" / "annotation_0001.mat"
    path.parent.mkdir(parents=True)
    contour = np.array([[0.0, 10.0, 10.0, 0.0], [0.0, 0.0, 5.0, 5.0]])
    scipy.io.savemat(path, {"box_coord": np.array([box], np.uint16), "obj_contour": contour})
    (root / "train.txt").write_text("airplanes/image_0001.jpg\n")
    (root / "test.txt").write_text("")
    return path


def test_boxes_count_from_0_and_the_outline_starts_at_the_box(tmp_path):
    write(tmp_path)
    source = caltech_101.Source(caltech_101.Options(root=tmp_path))
    (item,) = source.items()
    sample = source.read(item)
    assert sample.boxes_xyxy.tolist() == [[2, 1, 27, 16]]  # the file has y0 y1 x0 x1 from 1
    ys, xs = np.nonzero(sample.mask)
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (2, 1, 12, 6)
    assert sample.mask.shape == (20, 30)


def test_a_damaged_annotation_is_named(tmp_path):
    write(tmp_path).write_bytes(b"nothing of the kind")
    source = caltech_101.Source(caltech_101.Options(root=tmp_path))
    with pytest.raises(UserError, match=r"annotation_0001\.mat"):
        source.read(next(source.items()))


def test_a_class_that_only_tests_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "test.txt").write_text("ant/image_0001.jpg\n")
    with pytest.raises(UserError, match="without images: 'ant'"):
        caltech_101.Source(caltech_101.Options(root=tmp_path))


def write_downloads(root: Path) -> dict[str, bytes]:
    """101_ObjectCategories.tar.gz and Annotations.tar of two classes with five images each."""
    source = write(root / "one").read_bytes()
    images, annotations = {"101_ObjectCategories/BACKGROUND_Google/image_0001.jpg": b"x"}, {}
    for name, folder in (("airplanes", "Airplanes_Side_2"), ("ant", "ant")):
        for number in range(1, 6):
            images[f"101_ObjectCategories/{name}/image_{number:04d}.jpg"] = image_bytes(shade=number)
            annotations[f"Annotations/{folder}/annotation_{number:04d}.mat"] = source
    make_tar(root / "101_ObjectCategories.tar.gz", images, "w:gz")
    make_tar(root / "Annotations.tar", annotations)
    names = ("101_ObjectCategories.tar.gz", "Annotations.tar")
    return {f"caltech-101/{name}": (root / name).read_bytes() for name in names}


def test_the_downloads_as_they_are_with_the_usual_split(tmp_path):
    (tmp_path / "zip").mkdir()
    whole = make_zip(tmp_path / "zip" / "caltech-101.zip", write_downloads(tmp_path))
    lists = []
    for given in (tmp_path, whole, tmp_path / "zip"):
        source = caltech_101.Source(
            caltech_101.Options(root=given, train_per_class=2, test_per_class=2, split_seed=3)
        )
        items = list(source.items())
        lists.append([(item.id, item.split) for item in items])
        assert source.classes == ("airplanes", "ant")
        assert [item.split for item in items] == ["train"] * 4 + ["test"] * 4
        sample = source.read(items[-1])
        assert sample.boxes_xyxy.tolist() == [[2, 1, 27, 16]]
        assert sample.image == image_bytes(shade=int(items[-1].id[-5]))
    assert lists[0] == lists[1] == lists[2]
    assert len({one for one, _ in lists[0]}) == 8
    other = caltech_101.Source(caltech_101.Options(root=tmp_path, train_per_class=2, split_seed=4))
    assert [item.id for item in other.items() if item.split == "train"] != [one for one, _ in lists[0][:4]]


def test_a_lost_image_is_noticed_though_the_splits_are_full(tmp_path, monkeypatch):
    write_downloads(tmp_path)
    monkeypatch.setattr(caltech_101, "NUM_CLASSES", 2)
    monkeypatch.setattr(caltech_101, "NUM_IMAGES", 10)
    options = caltech_101.Options(root=tmp_path, train_per_class=2, test_per_class=2)

    def plan(**more):
        source = caltech_101.Source(options)
        return make_plan(
            "caltech-101", source, options, PackOptions(out=tmp_path / "out", val_fraction=0, **more)
        )

    assert plan(complete=True).incomplete == ""
    monkeypatch.setattr(caltech_101, "NUM_IMAGES", 11)
    line = "not the whole data set: 10 of 11 images"
    assert plan().incomplete == line
    with pytest.raises(UserError, match=f"--complete: {line};"):
        plan(complete=True)
    write(tmp_path / "listed")  # lists choose a part
    source = caltech_101.Source(caltech_101.Options(root=tmp_path / "listed"))
    assert (source.known_counts, source.found_counts) == ({}, {})


def test_real_outlines_lie_in_their_boxes(real_data):
    source = caltech_101.Source(caltech_101.Options(root=real_data / "caltech-101"))
    items = list(source.items())
    assert (len(items), len(source.classes)) == (1120, 24)
    overlaps = [_extent_iou(source.read(item)) for item in items[::10]]
    assert np.mean(overlaps) > 0.93  # 0.945 over all, by the data's own description


def _extent_iou(sample):
    ys, xs = np.nonzero(sample.mask)
    mask_box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    box = sample.boxes_xyxy[0] + [0, 0, 1, 1]
    low, high = np.maximum(mask_box[:2], box[:2]), np.minimum(mask_box[2:], box[2:])
    inter = np.prod(np.maximum(high - low, 0))
    return inter / (np.prod(mask_box[2:] - mask_box[:2]) + np.prod(box[2:] - box[:2]) - inter)
