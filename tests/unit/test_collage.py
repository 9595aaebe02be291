"""The embedded data set: exact truth, the same pictures every time, backgrounds silent about the class."""

import cv2
import numpy as np
import pytest
import simplejpeg

from wsol_dist.data.sources.collage import BACKGROUNDS, CLASSES, SIDE_FRACTION, Options, Source, cutouts
from wsol_dist.errors import UserError

NUM_EACH = 60


@pytest.fixture(scope="module")
def source():
    count = NUM_EACH * len(CLASSES)
    return Source(Options(num_train=count, num_val=len(CLASSES), num_test=count, image_px=64))


@pytest.fixture(scope="module")
def train(source):
    return [item for item in source.items() if item.split == "train"]


def test_classes_are_balanced_exactly_in_every_split(source):
    for split, count in (("train", NUM_EACH), ("val", 1), ("test", NUM_EACH)):
        labels = [item.labels[0] for item in source.items() if item.split == split]
        assert np.bincount(labels).tolist() == [count] * len(CLASSES)
    assert len(CLASSES) >= 6
    assert len(BACKGROUNDS) >= 8


def test_ids_name_split_class_and_number(source):
    ids = [item.id for item in source.items()]
    assert len(set(ids)) == len(ids)
    assert f"train/{CLASSES[0]}/000000" in ids


def test_two_sources_paint_the_same_bytes(source, train):
    again = Source(source.options)
    for item in train[:10]:
        first, second = source.read(item), again.read(item)
        assert first.image == second.image
        assert (first.mask == second.mask).all()


def test_seed_and_split_change_the_pictures(source, train):
    other = Source(Options(num_train=64, num_test=64, num_val=64, image_px=64, collage_seed=1))
    test_item = next(item for item in source.items() if item.split == "test" and item.where == train[0].where)
    pictures = {source.read(train[0]).image, other.read(train[0]).image, source.read(test_item).image}
    assert len(pictures) == 3


def test_the_box_is_the_masks_extent_with_the_last_pixel_included(source, train):
    for item in train[:40]:
        sample = source.read(item)
        ys, xs = np.nonzero(sample.mask)
        assert sample.boxes_xyxy.tolist() == [[xs.min(), ys.min(), xs.max(), ys.max()]]
        assert sample.mask.shape == (64, 64)
        assert sample.box_frame_wh == (64, 64)


def test_only_the_mask_differs_from_the_background(source, train):
    for item in train[:24]:
        sample = source.read(item)
        image = simplejpeg.decode_jpeg(sample.image).astype(float)
        change = np.abs(image - source.background(item)).mean(axis=2)
        near = cv2.dilate(
            sample.mask, np.ones((17, 17), np.uint8)
        )  # JPEG blocks carry a change 16 pixels at most
        assert change[near == 0].mean() < 8 if (near == 0).any() else True
        assert change[sample.mask == 1].mean() > 3 * change[near == 0].mean()


def test_objects_take_the_stated_part_of_the_side_and_go_everywhere(source, train):
    boxes = np.array([source.read(item).boxes_xyxy[0] for item in train])
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).max(axis=1) / 64
    assert sides.min() >= SIDE_FRACTION[0] - 2 / 64
    assert sides.max() <= SIDE_FRACTION[1] + 1 / 64
    assert sides.min() < 0.3
    assert sides.max() > 0.65
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / 64
    assert (centres.std(axis=0) > 0.12).all()
    assert (boxes[:, :2].min(axis=0) <= 1).all()
    assert (boxes[:, 2:].max(axis=0) >= 62).all()


def test_every_class_has_a_cutout_of_sensible_shape():
    for name in CLASSES:
        for cutout in cutouts(name):
            alpha = cutout[..., 3]
            filled = alpha.mean() / 255
            assert 0.35 < filled < 0.95, name
            assert cutout[alpha == 0].max(initial=0) == 0
            assert min(alpha.shape) >= 25


def test_a_classifier_stays_at_chance_on_backgrounds_and_not_on_images(source):
    items = {split: [item for item in source.items() if item.split == split] for split in ("train", "test")}

    def accuracy(picture):
        pixels = {split: np.stack([_features(picture(item)) for item in items[split]]) for split in items}
        labels = {split: np.array([item.labels[0] for item in items[split]]) for split in items}
        return _ridge_accuracy(pixels["train"], labels["train"], pixels["test"], labels["test"])

    chance, num_test = 1 / len(CLASSES), len(items["test"])
    four_sigma = 4 * np.sqrt(chance * (1 - chance) / num_test)
    assert accuracy(source.background) < chance + four_sigma
    # The same classifier does see the class once the objects are there, so the test above can fail.
    assert accuracy(lambda item: simplejpeg.decode_jpeg(source.read(item).image)) > chance + four_sigma


def _features(image):
    """Pixels at 8 x 8 and a histogram of each colour."""
    image = np.asarray(image, np.float32)
    small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).ravel() / 255
    histograms = [
        np.histogram(image[..., c], bins=16, range=(0, 256))[0] / image[..., c].size for c in range(3)
    ]
    return np.concatenate([small, *histograms])


def _ridge_accuracy(x_train, y_train, x_test, y_test):
    mean, std = x_train.mean(axis=0), x_train.std(axis=0) + 1e-6
    x_train, x_test = (x_train - mean) / std, (x_test - mean) / std
    targets = np.eye(len(CLASSES))[y_train] - 1 / len(CLASSES)
    weights = np.linalg.solve(x_train.T @ x_train + 30 * np.eye(x_train.shape[1]), x_train.T @ targets)
    return float(((x_test @ weights).argmax(axis=1) == y_test).mean())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"num_train": 3001}, "num_train: 3001"),
        ({"image_px": 8}, "image_px: 8"),
        ({"jpeg_quality": 0}, "jpeg_quality: 0"),
    ],
)
def test_options_out_of_range_are_refused(options, word):
    with pytest.raises(UserError, match=word):
        Source(Options(**options))
