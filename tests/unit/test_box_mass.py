"""S of equation 6, the box rule of equation 5, and the trap that both share: a map of ones."""

from __future__ import annotations

import numpy as np
import pytest

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.errors import UserError
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.box_mass import BoxMass, box_area, box_mass
from wsol_dist.metrics.registry import make_metrics
from wsol_dist.metrics.select import Candidate, choose_best
from wsol_dist.metrics.threshold import fixed

SIZE = 40


def scored(map_hw: np.ndarray, **more) -> Scored:
    knobs = {
        "id": "one",
        "label": 0,
        "prob_C": np.ones(2, np.float32) / 2,
        "size_px": SIZE,
        "normalise": "max",
    }
    return Scored(map_hw=map_hw.astype(np.float32), **(knobs | more))


def blobs(*parts: tuple[int, int, int, int, float], ground: float = 0.0) -> np.ndarray:
    map_hw = np.full((SIZE, SIZE), ground)
    for y0, y1, x0, x1, value in parts:
        map_hw[y0:y1, x0:x1] = value
    return map_hw


def test_by_hand() -> None:
    # 10 x 10 at 1 is the largest contour; 5 x 4 at 0.5 lies outside of its box; 0.05 is below a tenth of the maximum.
    map_hw = blobs((2, 12, 3, 13, 1.0), (20, 25, 20, 24, 0.5), (30, 39, 30, 39, 0.05))
    assert box_mass(scored(map_hw)) == pytest.approx(100 / 110)
    assert box_area(scored(map_hw)) == pytest.approx(100 / SIZE**2)
    assert box_mass(scored(0.3 * map_hw)) == pytest.approx(100 / 110), "S does not depend on the map's scale"


def test_the_box_holds_what_is_inside_it_of_other_contours_too() -> None:
    ring = blobs((5, 30, 5, 30, 1.0), (8, 27, 8, 27, 0.0), (15, 18, 15, 18, 0.6))
    assert box_mass(scored(ring)) == 1.0


@pytest.mark.parametrize(
    ("normalise", "area"), [("max", 1.0), ("min_max", 100 / SIZE**2)], ids=["raw", "min-max"]
)
def test_a_bright_ground_is_kept_by_the_raw_rule_only(normalise: str, area: float) -> None:
    map_hw = blobs((2, 12, 3, 13, 0.9), ground=0.3)
    assert box_area(scored(map_hw, normalise=normalise)) == pytest.approx(area)


@pytest.mark.parametrize("level", [1.0, 0.01])
def test_the_trap_a_constant_map_has_the_highest_score(level: float) -> None:
    assert box_mass(scored(np.full((SIZE, SIZE), level))) == 1.0


def test_a_map_of_zeros_has_no_contour_and_no_mass() -> None:
    assert box_mass(scored(np.zeros((SIZE, SIZE)))) == 0.0


def records(*images: Scored) -> dict[str, float]:
    metric = BoxMass(EvaluateConfig(box_mass=True, normalise="max"), num_classes=2)
    for one in images:
        metric.update(one)
    return {record.name: record.value for record in metric.records(fixed(0.1))}


def test_guards_keep_an_untrained_g_from_being_chosen() -> None:
    """An untrained g is 0.5 and more nearly everywhere: S = 100 %. Without guards it would be kept."""
    rng = np.random.default_rng(0)
    untrained = records(*(scored(rng.uniform(0.4, 0.9, (SIZE, SIZE))) for _ in range(3)))
    ones = records(scored(np.ones((SIZE, SIZE))))
    trained = records(scored(blobs((2, 30, 3, 33, 0.8), (35, 39, 35, 39, 0.5), ground=0.01)))
    assert untrained["box_mass"] == ones["box_mass"] == 100
    assert ones["mean_map"] == 100
    assert trained["box_mass"] < 100
    scored_epochs = [
        Candidate(step=step, values=values | {"step": step})
        for step, values in ((1, untrained), (2, ones), (3, trained))
    ]
    assert choose_best(scored_epochs, metric="box_mass").best.step == 2, "the trap"
    choice = choose_best(scored_epochs, metric="box_mass", guards=["mean_map<=60", "step>=2"])
    assert choice.best.step == 3
    assert set(choice.refused) == {1, 2}
    assert "mean_map 100 is not <= 60" in choice.refused[2]


def test_counts_are_integers_that_add_up_over_ranks() -> None:
    rng = np.random.default_rng(1)
    images = [scored(rng.random((SIZE, SIZE)) ** 4) for _ in range(7)]
    metrics = [BoxMass(EvaluateConfig(box_mass=True), num_classes=2) for _ in range(3)]
    for number, one in enumerate(images):
        metrics[0].update(one)
        metrics[1 + number % 2].update(one)
    assert metrics[0].counts.dtype == np.int64
    assert np.array_equal(metrics[0].counts, metrics[1].counts + metrics[2].counts)


def test_an_image_that_does_not_decode_counts_as_nothing() -> None:
    good = scored(blobs((2, 12, 3, 13, 1.0)))
    found = records(good, scored(np.zeros((SIZE, SIZE)), decoded=False))
    assert found["box_mass"] == 50


def test_maps_that_are_no_weights_are_refused() -> None:
    with pytest.raises(UserError, match=r"weights in 0\.\.1, this one goes from -1 to 3"):
        records(scored(np.array([[-1.0, 3.0]])))


def test_only_where_the_recipe_asks_for_it() -> None:
    assert BoxMass not in map(type, make_metrics(EvaluateConfig(), num_classes=2))
    assert BoxMass in map(type, make_metrics(EvaluateConfig(box_mass=True), num_classes=2))
