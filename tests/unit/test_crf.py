"""The mean field against the paper's sums over all pixels, and what it does to label maps."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from wsol_dist.errors import UserError
from wsol_dist.regions.config import CRFConfig
from wsol_dist.regions.crf import mean_field
from wsol_dist.regions.label_maps import IGNORE, label_maps
from wsol_dist.validation import validated

EVERY = CRFConfig(iterations=3, radius=7, step_px=1, smooth_px=2.0, appearance_px=4.0, colour=40.0)
"""A window that holds the whole of a small image."""


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def dense_mean_field(
    prob_LN: torch.Tensor, colour_CN: torch.Tensor, place_2N: torch.Tensor, config: CRFConfig
):
    """Algorithm 1 with N x N kernels of all pairs of pixels."""
    off_NN = 1 - torch.eye(prob_LN.shape[1])
    near_NN = torch.cdist(place_2N.T, place_2N.T).square()
    like_NN = torch.cdist(colour_CN.T, colour_CN.T).square()
    smooth = (-near_NN / (2 * config.smooth_px**2)).exp() * off_NN
    appearance = (-near_NN / (2 * config.appearance_px**2) - like_NN / (2 * config.colour**2)).exp() * off_NN
    q_LN = prob_LN
    for _ in range(config.iterations):
        gain = torch.zeros_like(q_LN)
        for weight, kernel in ((config.smooth, smooth), (config.appearance, appearance)):
            norm = (1 + kernel.sum(dim=1)).rsqrt()
            gain += weight * (q_LN @ (kernel * norm[:, None] * norm[None]))
        q_LN = (prob_LN.log() + gain).softmax(dim=0)
    return q_LN


def test_a_window_over_the_whole_image_is_the_fully_connected_field() -> None:
    prob = torch.rand(2, 3, 7, 8, generator=generator()).softmax(dim=1)
    image = torch.rand(2, 3, 7, 8, generator=generator()) * 255
    found = mean_field(prob, image, EVERY)
    place = torch.stack(torch.meshgrid(torch.arange(7.0), torch.arange(8.0), indexing="ij")).flatten(1)
    for b in range(2):
        wanted = dense_mean_field(prob[b].flatten(1), image[b].flatten(1), place, EVERY)
        torch.testing.assert_close(found[b].flatten(1), wanted, atol=1e-4, rtol=1e-3)


def test_off_it_gives_the_probabilities_back() -> None:
    prob = torch.rand(1, 3, 5, 5, generator=generator()).softmax(dim=1)
    torch.testing.assert_close(mean_field(prob, torch.zeros(1, 3, 5, 5), CRFConfig()), prob)


def two_halves(noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An image of two colours, noisy probabilities whose border lies 3 px off that of the colours, and the truth."""
    truth = torch.zeros(32, 32, dtype=torch.long)
    truth[:, 16:] = 1
    image = torch.where(truth[None, None] == 1, 200.0, 60.0).expand(1, 3, -1, -1)
    soft = torch.full((32, 32), 0.35)
    soft[:, 13:] = 0.65
    soft = (soft + noise * torch.randn(32, 32, generator=generator())).clamp(0.05, 0.95)
    return torch.stack([1 - soft, soft])[None], image, truth


def test_labels_snap_to_the_border_of_the_colours() -> None:
    prob, image, truth = two_halves(noise=0.2)
    config = CRFConfig(iterations=10, radius=5, step_px=2, appearance_px=20.0)
    before = (prob.argmax(dim=1)[0] == truth).float().mean()
    after = (mean_field(prob, image, config).argmax(dim=1)[0] == truth).float().mean()
    assert before < 0.85
    assert after > 0.97
    by_place_only = dataclasses.replace(config, appearance=0.0)
    smoothed = (mean_field(prob, image, by_place_only).argmax(dim=1)[0] == truth).float().mean()
    assert before < smoothed < after


@pytest.mark.parametrize(
    ("knob", "given", "allowed"),
    [
        ("iterations", -1, "0 or more"),
        ("radius", 0, "1 or more"),
        ("colour", 0.0, "above 0"),
        ("smooth", -1.0, "0 or more"),
        ("step_px", 0, "1 or more"),
    ],
)
def test_knobs_that_cannot_be(knob: str, given: float, allowed: str) -> None:
    with pytest.raises(UserError, match=f"^{knob}: given {given}; allowed: {allowed}$"):
        validated(CRFConfig, {knob: given})


# Score maps -> label maps

SCORES = torch.tensor([[[[0.0, 4.0], [1.0, 2.0]], [[8.0, 0.0], [0.0, 6.0]], [[9.0, 9.0], [9.0, 0.0]]]])
"""Of an image with the classes 2 and 5; the third map fills up the batch."""
CLASSES = torch.tensor([[2, 5, 2]])


def labels(low: float, high: float, **more) -> list[list[int]]:
    found = label_maps(
        SCORES,
        CLASSES,
        torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        num_own=[2],
        thresholds=(low, high),
        crf=more.pop("crf", CRFConfig()),
        **more,
    )
    assert found.dtype == torch.uint8
    return found[0].tolist()


def test_the_highest_of_the_images_own_classes_above_the_threshold() -> None:
    # by its own range class 2 is [[0, 1], [.25, .5]], class 5 [[1, 0], [0, .75]]
    assert labels(0.1, 0.1) == [[6, 3], [3, 6]]
    assert labels(0.3, 0.3) == [[6, 3], [0, 6]]
    assert labels(0.25, 0.25) == [[6, 3], [0, 6]], "a tie goes to the background"
    assert labels(0.8, 0.8) == [[6, 3], [0, 0]]


def test_between_two_thresholds_nobody_knows() -> None:
    assert labels(0.2, 0.8) == [[6, 3], [IGNORE, IGNORE]]
    assert labels(0.3, 0.8) == [[6, 3], [0, IGNORE]]


def test_a_crf_of_no_weight_changes_nothing() -> None:
    idle = CRFConfig(iterations=2, smooth=0.0, appearance=0.0)
    assert labels(0.3, 0.3, crf=idle) == labels(0.3, 0.3)


def test_scaled_by_the_maximum_alone() -> None:
    # class 2 then is the same; a map without zeros differs
    shifted = label_maps(
        torch.tensor([[[[2.0, 4.0]]]]),
        torch.tensor([[0]]),
        torch.zeros(1, 3, 1, 2, dtype=torch.uint8),
        num_own=[1],
        thresholds=(0.4, 0.4),
        crf=CRFConfig(),
        from_zero=True,
    )
    assert shifted.tolist() == [[[1, 1]]]


def test_a_constant_map_is_background() -> None:
    flat = label_maps(
        torch.full((1, 1, 3, 3), 7.0),
        torch.tensor([[4]]),
        torch.zeros(1, 3, 6, 6, dtype=torch.uint8),
        num_own=[1],
        thresholds=(0.0, 0.0),
        crf=CRFConfig(),
    )
    assert not flat.any()
