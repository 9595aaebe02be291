"""Pixels -> tensors of one size."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from wsol_dist.data.decode import decode_rgb
from wsol_dist.data.transforms import TrainTransform, normalise, squash


def encoded(rgb_HWC: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb_HWC).save(file, format=kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_squash_takes_what_the_decoder_gives_without_a_warning(kind: str) -> None:
    rgb_HWC = np.full((30, 50, 3), (200, 100, 50), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_CHW = squash(decode_rgb(encoded(rgb_HWC, kind)), 20)
    assert (image_CHW.dtype, image_CHW.shape) == (torch.uint8, (3, 20, 20))
    assert (image_CHW.float().mean(dim=(1, 2)) - torch.tensor([200.0, 100.0, 50.0])).abs().max() < 3


def test_squash_smooths_and_does_not_keep_the_aspect() -> None:
    rgb_HWC = np.random.default_rng(0).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    small = squash(rgb_HWC, 24)
    assert small.shape == (3, 24, 24)
    # noise of deviation 74: the mean of 4 x 8 pixels has 13, two by two pixels without antialias 37
    assert small.float().std() < 20


def test_the_crop_is_a_function_of_the_generator() -> None:
    rgb_HWC = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    transform = TrainTransform(resize_px=32, image_px=24, flip=True)
    crops = [transform(rgb_HWC, np.random.default_rng([seed])) for seed in (1, 1, 2)]
    assert crops[0].shape == (3, 24, 24)
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])


def test_normalise_uses_the_given_statistics() -> None:
    image_BCHW = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    wanted = torch.tensor([-1.0, 2.0, 0.0]).view(1, 3, 1, 1)
    found = normalise(image_BCHW, (0.5, 0.5, 0.2), (0.5, 0.25, 0.1))
    torch.testing.assert_close(found, wanted)
