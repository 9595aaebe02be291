"""Pixels -> tensors of one size."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.images.transforms import TrainTransform, normalise, squash
from wsol_dist.data.shards.shard import image_size


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


def photograph(side_px: int) -> bytes:
    return encoded(np.asarray(Image.fromarray(astronaut()).resize((side_px * 3 // 2, side_px))), "JPEG")


@pytest.mark.parametrize(
    ("side_px", "cover_px", "height"),
    [(256, 129, 256), (256, 128, 128), (301, 75, 76), (301, 37, 38), (64, 1, 8)],
)
def test_a_jpeg_is_decoded_at_a_fraction_that_still_covers(side_px: int, cover_px: int, height: int) -> None:
    rgb_HWC = decode_rgb(photograph(side_px), cover_px=cover_px)
    assert rgb_HWC.shape[0] == height >= cover_px
    assert decode_rgb(photograph(side_px)).shape[0] == side_px


def test_a_scaled_decode_squashes_to_nearly_the_same_picture() -> None:
    data = photograph(400)
    full, scaled = squash(decode_rgb(data), 96), squash(decode_rgb(data, cover_px=96), 96)
    difference = (full.float() - scaled.float()).abs()
    assert difference.mean() < 2.5
    assert (full.float() - full.flip(-1).float()).abs().mean() > 20, "any two pictures would have passed"


def test_a_scaled_decode_finds_a_broken_image() -> None:
    with pytest.raises(DecodeError):
        decode_rgb(photograph(400)[:-2000], cover_px=64)


def test_any_flipped_bit_of_a_jpeg_gives_pixels_or_a_decode_error() -> None:
    data = photograph(16)
    kinds = {"pixels": 0, "an error": 0}
    for at in range(len(data)):
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            width, height = image_size(flipped)
            if width * height > 2**16:  # a header that lies about the size: slow, and tested elsewhere
                continue
            try:
                kinds["pixels"] += decode_rgb(flipped).ndim == 3
            except DecodeError:
                kinds["an error"] += 1
    assert min(kinds.values()) > 100
