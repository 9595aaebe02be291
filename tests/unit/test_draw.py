"""Pictures of cases: panels, boxes, label and heat map are where they should be."""

from __future__ import annotations

import numpy as np
import pytest

from wsol_dist.report.draw import GT_COLOR, PREDICTED_COLOR, draw_case, heat_over

GREY = np.full((64, 64, 3), 128, np.uint8)
RAMP = np.linspace(0, 1, 49).reshape(7, 7)


def draw(image=GREY, scores=RAMP, **changes):
    given = {"gt_boxes": [[8, 16, 40, 48]], "predicted_box": [20, 24, 56, 60], "iou": None}
    return draw_case(image, scores, **(given | changes))


def is_color(picture, y, x, color):
    return tuple(int(v) for v in picture[y, x]) == color


def test_two_panels_of_the_asked_size():
    assert draw().shape == (224, 224 * 2 + 4, 3)
    assert draw().dtype == np.uint8
    wide = np.zeros((50, 100, 3), np.uint8)
    assert draw(wide, size_px=300).shape == (150, 300 * 2 + 4, 3)


def test_boxes_are_scaled_into_the_left_panel_only():
    picture = draw()
    scale = 224 / 64
    assert is_color(picture, round(16 * scale), round(24 * scale), GT_COLOR)
    assert is_color(picture, round(60 * scale), round(38 * scale), PREDICTED_COLOR)
    assert is_color(picture, round(32 * scale), round(30 * scale), (128, 128, 128))
    right = picture[:, 228:].reshape(-1, 3)
    assert not (right == GT_COLOR).all(axis=1).any()


def test_several_true_boxes_and_no_prediction():
    picture = draw(gt_boxes=np.array([[4, 4, 20, 20], [30, 30, 60, 60]]), predicted_box=None)
    left = picture[:, :224].reshape(-1, 3)
    assert is_color(picture, 14, 42, GT_COLOR)
    assert is_color(picture, 105, 150, GT_COLOR)
    assert not (left == PREDICTED_COLOR).all(axis=1).any()


def test_box_beyond_the_image_shows_all_sides():
    picture = draw(gt_boxes=[[-5, -5, 90, 90]], predicted_box=None)
    for y, x in [(1, 112), (222, 112), (112, 1), (112, 222)]:
        assert is_color(picture, y, x, GT_COLOR)


def test_iou_stands_in_the_corner():
    plain, labelled = draw(), draw(iou=0.61)
    differs = np.argwhere((plain != labelled).any(axis=2))
    assert len(differs)
    assert differs.max(axis=0)[0] < 40
    assert differs.max(axis=0)[1] < 112
    assert (draw(iou=0.61) != draw(iou=0.16)).any()


def test_heat_goes_from_blue_to_red_whatever_the_range():
    for scores in (RAMP, RAMP * 100 - 700):
        heat = heat_over(GREY, scores).astype(int)
        assert heat[0, 0, 2] > heat[0, 0, 0]
        assert heat[-1, -1, 0] > heat[-1, -1, 2] + 50
    assert (heat_over(GREY, RAMP) == heat_over(GREY, RAMP * 100 - 700)).mean() > 0.99


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_map_without_contrast_is_drawn_flat(value):
    heat = heat_over(GREY, np.full((7, 7), value))
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) == 1


def test_input_is_left_alone():
    image = GREY.copy()
    draw(image, size_px=64, iou=0.5)
    assert (image == GREY).all()
