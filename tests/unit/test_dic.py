"""Deep image clustering: many at once equals one alone, and both equal the plain form written with torch.nn."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.cluster_images import some_images
from wsol_dist.metrics.rand_index import adjusted_rand_index
from wsol_dist.regions.dic import DIC, DICConfig, Fits, majority

TINY = DICConfig(size_px=24, segments=30, iterations=5)
SEEDS = (3, 1, 4)
ROOT = Path(__file__).parents[2]


def plain_form() -> Any:
    """The peer of the bench: a network of torch.nn for one image, a loop over superpixels."""
    spec = importlib.util.spec_from_file_location("plain_dic", ROOT / "bench/_plain_dic.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network_input(images: np.ndarray) -> Tensor:
    """(B, 3, H, W) in 0..1 of images that are as large as the network's input."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def fit(backend: DIC, images: np.ndarray, seeds: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    segment_BHW = torch.from_numpy(np.stack([backend.prepare(image) for image in images]))
    fits = Fits(network_input(images), segment_BHW, config=backend.config, seeds=seeds)
    return [(fits.loss_B.clone(), fits.label_BHW.clone()) for _ in fits.steps()]


def test_a_batch_equals_each_image_alone_and_the_plain_form() -> None:
    images, backend = some_images(3, 24), DIC(TINY)
    together = fit(backend, images, SEEDS)
    assert len(together) == 5
    for b, seed in enumerate(SEEDS):
        alone = fit(backend, images[b : b + 1], (seed,))
        segment_HW = torch.from_numpy(backend.prepare(images[b]))
        plain = plain_form().plain_fit(network_input(images)[b], segment_HW, config=TINY, seed=seed)
        for (loss_B, label_BHW), (loss_1, label_1HW), (loss, label_HW) in zip(
            together, alone, plain, strict=True
        ):
            # The last bits follow the order of sums, a CPU's own choice, and grow with each step: 1e-4 was seen.
            assert abs(loss_B[b] - loss_1[0]) < 1e-3
            assert abs(loss_B[b] - loss) < 1e-3
            assert torch.equal(label_BHW[b], label_1HW[0])
            assert torch.equal(label_BHW[b], label_HW)


def test_each_image_stops_by_itself() -> None:
    images = some_images(3, 24)
    images[1] = 200  # one colour: only the padding of the convolutions tells its pixels apart
    config = DICConfig(size_px=24, segments=30, iterations=8, min_labels=18)
    backend = DIC(config)
    segment_BHW = torch.from_numpy(np.stack([backend.prepare(image) for image in images]))
    fits = Fits(network_input(images), segment_BHW, config=config, seeds=SEEDS)
    ended: dict[int, int] = {}
    kept: dict[int, Tensor] = {}
    for step, running_R in enumerate(fits.steps()):
        for one in running_R.tolist():
            ended[one], kept[one] = step, fits.label_BHW[one].clone()
    assert len(set(ended.values())) > 1, "all stopped together, the test sees nothing"
    for one, step in ended.items():
        # What it had when it stopped stays.
        assert torch.equal(fits.label_BHW[one], kept[one])
        assert step == 7 or len(kept[one].unique()) < 18


def test_the_majority_wins_and_the_smallest_label_of_equals() -> None:
    generator = torch.Generator().manual_seed(0)
    label_Bn = torch.randint(0, 7, (4, 200), generator=generator)
    segment_Bn = torch.randint(0, 30, (4, 200), generator=generator)
    found = majority(label_Bn, segment_Bn, num_labels=7)
    for b in range(4):
        for segment in segment_Bn[b].unique():
            inside = segment_Bn[b] == segment
            votes = np.bincount(label_Bn[b][inside].numpy(), minlength=7)
            assert set(found[b][inside].tolist()) == {int(np.flatnonzero(votes == votes.max())[0])}
    tie = majority(torch.tensor([[5, 2, 2, 5]]), torch.zeros(1, 4, dtype=torch.int64), num_labels=7)
    assert tie.tolist() == [[2, 2, 2, 2]]


def test_labels_are_constant_in_a_superpixel_and_enlarged_from_a_smaller_fit() -> None:
    images = some_images(2, 32)
    config = DICConfig(size_px=32, fit_px=16, segments=20, iterations=2)
    backend = DIC(config)
    label_BHW = backend(images, seeds=(0, 1))
    assert label_BHW.shape == (2, 32, 32)
    for image_HWC, label_HW in zip(images, label_BHW, strict=True):
        segment_HW = backend.prepare(image_HWC).repeat(2, axis=0).repeat(2, axis=1)
        for segment in np.unique(segment_HW):
            assert len(np.unique(label_HW[segment_HW == segment])) == 1


@pytest.mark.slow
def test_after_100_iterations_a_batch_is_no_further_from_alone_than_a_hair_moves_it() -> None:
    images, backend = some_images(4, 32), DIC(DICConfig(size_px=32, segments=60))
    seeds = (0, 1, 2, 3)
    segment_BHW = torch.from_numpy(np.stack([backend.prepare(image) for image in images]))
    image_BCHW = network_input(images)

    def last(image_BCHW: Tensor, segment_BHW: Tensor, seeds: tuple[int, ...]) -> np.ndarray:
        fits = Fits(image_BCHW, segment_BHW, config=backend.config, seeds=seeds)
        list(fits.steps())
        return fits.label_BHW.flatten(1).numpy()

    def alone(shift: float) -> list[np.ndarray]:
        return [
            last(image_BCHW[b : b + 1] + shift, segment_BHW[b : b + 1], seeds[b : b + 1])[0] for b in range(4)
        ]

    by_itself, moved, together = alone(0.0), alone(1e-6), last(image_BCHW, segment_BHW, seeds)
    batch = np.mean([adjusted_rand_index(a, b) for a, b in zip(by_itself, together, strict=True)])
    hair = np.mean([adjusted_rand_index(a, b) for a, b in zip(by_itself, moved, strict=True)])
    # Four images: the mean of either is uncertain by about this much.
    assert batch >= hair - 0.1, (batch, hair)
