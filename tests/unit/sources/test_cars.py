"""Stanford Cars: both layouts say the same."""

import tarfile

import numpy as np
import pytest
import scipy.io

from tests.unit.sources.images import write_image
from wsol_dist.data.sources import cars
from wsol_dist.errors import UserError

NAMES = np.array(["AM General Hummer", "Acura RL"], dtype=object)
BOX = {"bbox_x1": 2, "bbox_y1": 3, "bbox_x2": 30, "bbox_y2": 20}


def struct(rows: list[dict]) -> np.ndarray:
    """What savemat writes as a struct array, numbers as the small types of the original."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for number, row in enumerate(rows):
        array[0, number] = tuple(
            np.uint8(value) if isinstance(value, int) else value for value in row.values()
        )
    return array


def write_older(root):
    rows = [
        {"relative_im_path": f"car_ims/{n:06d}.jpg", **BOX, "class": label, "test": test}
        for n, label, test in ((1, 1, 0), (2, 2, 0), (3, 2, 1))
    ]
    scipy.io.savemat(root / "cars_annos.mat", {"annotations": struct(rows), "class_names": NAMES})
    for number in (1, 2, 3):
        write_image(root / "car_ims" / f"{number:06d}.jpg")


def write_newer(root, test_labels=True):
    kit = root / "devkit"
    kit.mkdir()
    scipy.io.savemat(kit / "cars_meta.mat", {"class_names": NAMES})
    train = [{**BOX, "class": label, "fname": f"{n:05d}.jpg"} for n, label in ((1, 1), (2, 2))]
    scipy.io.savemat(kit / "cars_train_annos.mat", {"annotations": struct(train)})
    if test_labels:
        test = [{**BOX, "class": 2, "fname": "00001.jpg"}]
        scipy.io.savemat(root / "cars_test_annos_withlabels.mat", {"annotations": struct(test)})
    for name in ("cars_train/00001.jpg", "cars_train/00002.jpg", "cars_test/00001.jpg"):
        write_image(root / name)


@pytest.mark.parametrize("write", [write_older, write_newer])
def test_both_layouts(tmp_path, write):
    write(tmp_path)
    source = cars.Source(cars.Options(root=tmp_path))
    items = list(source.items())
    assert source.classes == tuple(NAMES)
    assert [(item.split, item.labels) for item in items] == [("train", (0,)), ("train", (1,)), ("test", (1,))]
    sample = source.read(items[-1])  # one car in a file is no array of one
    assert sample.boxes_xyxy.tolist() == [[1, 2, 29, 19]]
    assert sample.box_frame_wh == (30, 20)


def test_the_older_archive_as_it_is(tmp_path):
    write_older(tmp_path)
    expected = cars.Source(cars.Options(root=tmp_path))
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    with tarfile.open(loaded / "car_ims.tgz", "w:gz") as tar:
        tar.add(tmp_path / "car_ims", "car_ims")
    (tmp_path / "cars_annos.mat").rename(loaded / "cars_annos.mat")
    source = cars.Source(cars.Options(root=loaded))
    assert list(source.items()) == list(expected.items())
    for item in source.items():
        assert source.read(item).image == expected.read(item).image
        assert source.read(item).boxes_xyxy.tolist() == [[1, 2, 29, 19]]


def test_archives_as_they_are(tmp_path):
    write_newer(tmp_path)
    expected = cars.Source(cars.Options(root=tmp_path))
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    for name, archive in (("cars_train", "cars_train"), ("cars_test", "cars_test"), ("devkit", "car_devkit")):
        with tarfile.open(loaded / f"{archive}.tgz", "w:gz") as tar:
            tar.add(tmp_path / name, name)
    (tmp_path / "cars_test_annos_withlabels.mat").rename(loaded / "cars_test_annos_withlabels.mat")
    source = cars.Source(cars.Options(root=loaded))
    assert list(source.items()) == list(expected.items())
    for item in source.items():
        assert source.read(item).image == expected.read(item).image


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"neither cars_annos\.mat nor devkit"):
        cars.Source(cars.Options(root=tmp_path))
    write_newer(tmp_path, test_labels=False)
    with pytest.raises(
        UserError, match=r"withlabels\.mat: no such file; it holds the classes of the test images"
    ):
        cars.Source(cars.Options(root=tmp_path))
