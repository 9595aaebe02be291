"""Which images of a scored split are shown."""

from __future__ import annotations

import dataclasses
from collections import Counter

from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.evaluator.cases import BEST, FIXED, WORST, choose

CONFIG = EvaluateConfig(cases=3, cases_best=4, cases_worst=6)
WRONG = ("classification", "part", "more")


def make_rows(count: int = 90):
    """Right and wrong by turns; the class is the third of the number, the wrong ones have three kinds."""
    return [
        {
            "id": f"image-{number}",
            "label": number // 30,
            "decoded": True,
            "iou": number / 100,
            "error_kind": "right" if number % 2 else WRONG[number // 2 % 3],
        }
        for number in range(count)
    ]


def ids_in(group: str, chosen) -> list[str]:
    return [one for one, this in chosen.items() if group in this.groups]


def test_fixed_ones_depend_on_the_ids_alone():
    rows = make_rows()
    fixed = ids_in(FIXED, choose(rows, CONFIG))
    worse = [row | {"iou": 0.0, "error_kind": "part"} for row in rows[::-1]]
    assert fixed == ids_in(FIXED, choose(worse, CONFIG))
    assert len(fixed) == 3
    assert fixed != ids_in(FIXED, choose(rows, dataclasses.replace(CONFIG, cases_seed=1)))
    assert len(ids_in(FIXED, choose(rows[:2], CONFIG))) == 2


def test_best_take_every_class_in_turn_and_worst_every_kind():
    chosen = choose(make_rows(), CONFIG)
    best = [chosen[one].row for one in ids_in(BEST, chosen)]
    assert {row["id"] for row in best} == {"image-89", "image-59", "image-29", "image-87"}
    worst = [chosen[one].row for one in ids_in(WORST, chosen)]
    assert Counter(row["error_kind"] for row in worst) == dict.fromkeys(WRONG, 2)
    assert {row["id"] for row in worst} == {f"image-{number}" for number in range(0, 12, 2)}


def test_equal_ious_are_chosen_alike_in_any_order():
    rows = [row | {"iou": 0.0, "error_kind": "part"} for row in make_rows()]
    one, other = choose(rows, CONFIG), choose(rows[::-1], CONFIG)
    assert ids_in(WORST, one) == ids_in(WORST, other)
    assert ids_in(BEST, one) == []


def test_an_image_may_be_in_several_groups_and_is_shown_once():
    rows = make_rows(4)
    chosen = choose(rows, dataclasses.replace(CONFIG, cases=4))
    assert list(chosen) == ids_in(FIXED, chosen)
    assert chosen["image-3"].groups == (FIXED, BEST)
    assert chosen["image-0"].groups == (FIXED, WORST)


def test_images_without_boxes_and_broken_ones_are_neither_best_nor_worst():
    rows = [row | {"iou": None, "error_kind": None} for row in make_rows(4)]
    rows += [row | {"id": "broken", "decoded": False, "iou": 0.0} for row in make_rows(1)]
    chosen = choose(rows, dataclasses.replace(CONFIG, cases=0))
    assert chosen == {}
