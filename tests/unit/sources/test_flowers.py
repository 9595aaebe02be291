"""Flowers-102: official splits, masks by the blue of the segmentations."""

import tarfile

import cv2
import numpy as np
import pytest
import scipy.io

from tests.unit.sources.images import write_image
from wsol_dist.data.sources import flowers
from wsol_dist.errors import UserError


@pytest.fixture
def root(tmp_path):
    scipy.io.savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[3, 1, 102]], np.uint8)})
    numbers = {"trnid": [[2]], "valid": [[3]], "tstid": [[1]]}
    scipy.io.savemat(
        tmp_path / "setid.mat", {name: np.array(some, np.uint16) for name, some in numbers.items()}
    )
    (tmp_path / "segmim").mkdir()
    for number in (1, 2, 3):
        write_image(tmp_path / "jpg" / f"image_{number:05d}.jpg", size_hw=(64, 80))
        picture = np.full((64, 80, 3), (254, 0, 0), np.uint8)  # blue, green, red
        picture[16:48, 24:64] = (180, 60, 200)
        cv2.imwrite(str(tmp_path / "segmim" / f"segmim_{number:05d}.jpg"), picture)
    return tmp_path


def test_official_splits_and_masks(root):
    source = flowers.Source(flowers.Options(root=root))
    items = list(source.items())
    assert [(item.id, item.split, item.labels) for item in items] == [
        ("image_00002.jpg", "train", (0,)),
        ("image_00003.jpg", "val", (101,)),
        ("image_00001.jpg", "test", (2,)),
    ]
    assert (source.classes[0], source.classes[101]) == ("pink primrose", "blackberry lily")
    mask = source.read(items[0]).mask
    expected = np.zeros((64, 80), np.uint8)
    expected[16:48, 24:64] = 1
    assert (mask != expected).mean() < 0.02  # JPEG blurs the edge
    assert (mask[20:44, 28:60] == 1).all()


def test_archives_as_they_are_with_masks_and_without(root, tmp_path):
    expected = flowers.Source(flowers.Options(root=root))
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    for name in ("imagelabels.mat", "setid.mat"):
        (loaded / name).write_bytes((root / name).read_bytes())
    with tarfile.open(loaded / "102flowers.tgz", "w:gz") as tar:
        tar.add(root / "jpg", "jpg")
    source = flowers.Source(flowers.Options(root=loaded))
    for item in source.items():
        assert source.read(item).image == expected.read(item).image
        assert source.read(item).mask is None
    with tarfile.open(loaded / "102segmentations.tgz", "w:gz") as tar:
        tar.add(root / "segmim", "segmim")
    source = flowers.Source(flowers.Options(root=loaded))
    for item in source.items():
        assert (source.read(item).mask == expected.read(item).mask).all()


def test_a_number_without_a_label_is_named(root):
    scipy.io.savemat(root / "imagelabels.mat", {"labels": np.array([[3, 103, 1]], np.uint8)})
    with pytest.raises(UserError, match=r"image 2 of setid\.mat: a class from 1 to 102"):
        list(flowers.Source(flowers.Options(root=root)).items())
