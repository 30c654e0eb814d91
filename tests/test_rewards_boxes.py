"""Rewards for boxes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.boxes import generalised_iou, intersection_over_union, read_boxes
from rewards.grounding import giou, iou, mean_iou_over_gold

SIDE = st.integers(0, 20)
BOXES = st.tuples(SIDE, SIDE, st.integers(1, 20), st.integers(1, 20)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3, 4]",
        "<answer>(1,2,3,4)</answer>",
        '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]\n```',
        "The cat is at [1, 2, 3, 4].",
        "(1,2),(3,4)",
        "1 2 3 4",
    ],
)
def test_spellings_of_a_box(text: str) -> None:
    assert read_boxes(text) == [(1, 2, 3, 4)]


@pytest.mark.parametrize(
    "text", ["[1, 2, 3]", "[1, 2, 3, 4, 5]", "[nan, 1, 2, 3]", "one two three four", "", "[1e999, 1, 2, 3]"]
)
def test_what_is_no_box(text: str) -> None:
    assert read_boxes(text) is None
    assert iou(text, "[0, 0, 1, 1]") == 0
    assert iou("[0, 0, 1, 1]", text) is None


def test_iou_by_hand() -> None:
    """The boxes share 5 x 5 of 10 x 10 each: 25 / 175. The hull has 225, of which 50 belong to none."""
    assert iou("[5, 5, 15, 15]", "[0, 0, 10, 10]") == pytest.approx(25 / 175)
    assert giou("[5, 5, 15, 15]", "[0, 0, 10, 10]") == pytest.approx(25 / 175 - 50 / 225)
    assert iou("[10, 10, 0, 0]", "[0, 0, 10, 10]") == 0
    assert iou("(0.4, 0.2, 0.6, 0.6)", "[400, 100, 600, 300]", image=[1000, 500], pred_scale=1) == pytest.approx(1)


def test_a_listing_of_boxes_does_not_pay() -> None:
    listing = str([[i, i, i + 10, i + 10] for i in range(50)])
    assert iou(listing, "[5, 5, 15, 15]") == 0
    assert mean_iou_over_gold(listing, "[[5, 5, 15, 15]]") == 0


@given(BOXES, BOXES)
def test_iou_and_giou_are_bounded_and_symmetric(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    one, other = (a[0], a[1], a[2], a[3]), (b[0], b[1], b[2], b[3])
    shared, general = intersection_over_union(one, other), generalised_iou(one, other)
    assert 0 <= shared <= 1 and -1 <= general <= shared + 1e-12
    assert shared == intersection_over_union(other, one) and general == generalised_iou(other, one)
    assert intersection_over_union(one, one) == generalised_iou(one, one) == 1


def test_boxes_are_matched_for_the_greatest_sum() -> None:
    """Taking the best partner first would leave the second reference without one."""
    gold = [[0, 0, 10, 10], [0, 0, 10, 8]]
    assert mean_iou_over_gold([[0, 0, 10, 8], [0, 0, 10, 10]], gold) == 1
    assert mean_iou_over_gold([[0, 0, 10, 10]], gold) == 0.5
    # Sums of the two matchings: 0.9 + 0.8 and 0.72 + 1.
    assert mean_iou_over_gold([[0, 0, 10, 9], [0, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 9]]) == 1
