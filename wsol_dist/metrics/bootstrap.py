"""Bootstrap over images: how far a mean, or the gain of one scoring over another, may be the choice of images.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: percentile intervals. Two
scorings of the same images are resampled together (paired), since what is hard for one is hard for the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and the percentile interval of its resamples, in the unit of the values."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def resampled_means(values_NM: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """Column means of rows drawn with replacement, the same rows for all columns: (num_resamples, M) float64.

    Memory does not grow with num_resamples * N: one resample is drawn at a time, as counts of rows.

    Args:
        values_NM: finite; N images, M numbers of each.
    """
    assert values_NM.ndim == 2, values_NM.shape
    assert np.isfinite(values_NM).all(), "leave images without a value out first"
    num_images = len(values_NM)
    assert num_images > 0
    rng = np.random.default_rng(seed)
    means = np.empty((num_resamples, values_NM.shape[1]))
    for at in range(num_resamples):
        times_N = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
        means[at] = times_N @ values_NM / num_images
    return means


def paired_gain(
    base_N: np.ndarray,
    other_N: np.ndarray,
    *,
    num_resamples: int = NUM_RESAMPLES,
    coverage: float = COVERAGE,
    seed: int = 0,
) -> Interval:
    """The mean of `other - base` over the same images, with its paired bootstrap interval.

    Images without a value (nan) in either are left out.

    Args:
        base_N, other_N: one value an image, in the same order: a hit as 0 or 1, an IoU, a mean over seeds.
        coverage: share of the resamples that the interval holds.

    Raises:
        ValueError: no image has a value in both.
    """
    assert base_N.shape == other_N.shape, (base_N.shape, other_N.shape)
    gain_N = (other_N - base_N).astype(np.float64)
    gain_N = gain_N[np.isfinite(gain_N)]
    if len(gain_N) == 0:
        raise ValueError("no image has a value in both")
    means_R = resampled_means(gain_N[:, None], num_resamples=num_resamples, seed=seed)[:, 0]
    return percentile_interval(float(gain_N.mean()), means_R, coverage=coverage)


def percentile_interval(value: float, means_R: np.ndarray, *, coverage: float = COVERAGE) -> Interval:
    """The central share `coverage` of the resamples."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1, got {coverage}")
    tail = (1 - coverage) / 2
    low, high = np.quantile(means_R, [tail, 1 - tail])
    return Interval(value=value, low=float(low), high=float(high))
