"""The paired bootstrap against a plain loop, and what its intervals must hold."""

from __future__ import annotations

import numpy as np
import pytest

from wsol_dist.metrics.bootstrap import paired_gain, percentile_interval, resampled_means


def plain_means(values, *, num_resamples, seed):
    """As the book says it: draw images with replacement, take the mean, many times."""
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(num_resamples):
        drawn = rng.integers(0, len(values), len(values))
        means.append(
            [sum(values[at][column] for at in drawn) / len(drawn) for column in range(len(values[0]))]
        )
    return np.array(means)


def test_equals_a_plain_loop():
    values = np.random.default_rng(3).normal(size=(37, 3))
    found = resampled_means(values, num_resamples=50, seed=11)
    assert np.allclose(found, plain_means(values.tolist(), num_resamples=50, seed=11), rtol=0, atol=1e-12)


def test_a_gain_is_resampled_in_pairs():
    rng = np.random.default_rng(0)
    base = rng.random(200)
    gain = paired_gain(base, base + 0.01, num_resamples=300)
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.01, 0.01, 0.01))
    unpaired = resampled_means(base[:, None], num_resamples=300, seed=0)
    assert np.ptp(unpaired) > 0.05


def test_same_seed_same_interval():
    rng = np.random.default_rng(1)
    base, other = rng.random(100) < 0.5, rng.random(100) < 0.6
    one, again = (paired_gain(base.astype(float), other.astype(float), seed=5) for _ in range(2))
    assert one == again
    assert one != paired_gain(base.astype(float), other.astype(float), seed=6)


def test_images_without_a_value_are_left_out():
    base, other = np.array([0, 1, np.nan, 0, 1.0]), np.array([1, 1, 1, np.nan, 1.0])
    kept = paired_gain(np.array([0, 1, 1.0]), np.array([1, 1, 1.0]))
    assert paired_gain(base, other) == kept
    with pytest.raises(ValueError, match="no image has a value in both"):
        paired_gain(np.array([np.nan]), np.array([1.0]))


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    held = 0
    for trial in range(200):
        base = (rng.random(150) < 0.5).astype(float)
        other = np.where(rng.random(150) < 0.2, 1.0, base)  # true gain 0.1
        gain = paired_gain(base, other, num_resamples=200, seed=trial)
        held += gain.low <= 0.1 <= gain.high
    assert 0.88 <= held / 200 <= 0.99


def test_width_agrees_with_the_normal_approximation():
    gain = np.random.default_rng(4).normal(0.2, 1.0, size=4000)
    found = paired_gain(np.zeros(4000), gain, num_resamples=4000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * gain.std() / np.sqrt(4000), rel=0.06)
    assert found.excludes_zero


def test_coverage_is_checked():
    means = np.linspace(0, 1, 101)
    found = percentile_interval(0.5, means, coverage=0.9)
    assert (found.low, found.high) == pytest.approx((0.05, 0.95))
    for wrong in (0, 1, 95):
        with pytest.raises(ValueError, match="coverage must be between 0 and 1"):
            percentile_interval(0.5, means, coverage=wrong)
