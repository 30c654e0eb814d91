"""Rewards for boxes: IoU, GIoU, and the mean IoU over the boxes of the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference, pays_for
from rewards.boxes import Box, generalised_iou, intersection_over_union, read_boxes, rescale


@blames_reference
def iou(answer: Any, gold: Any, image: Sequence[float] | None = None, pred_scale: float | None = None) -> float | None:
    """Intersection over union of the one box of the answer and the one of the reference, in [0, 1].

    Args:
        answer: `[x1, y1, x2, y2]`, in an `<answer>` tag or not, or JSON with `bbox_2d`; any other number of boxes is 0.
        gold: the box of the reference; None is returned where it cannot be read or is empty.
        image: width and height of the image in pixels, if the answer's coordinates are relative to it.
        pred_scale: what the answer calls the full width or height: 1 or 1000.
    """
    return _of_one_pair(intersection_over_union, answer, gold, image, pred_scale)


@blames_reference
def giou(answer: Any, gold: Any, image: Sequence[float] | None = None, pred_scale: float | None = None) -> float | None:
    """Generalised IoU of one box and one reference, in [-1, 1]; arguments as in `iou`. An unreadable answer is 0."""
    return _of_one_pair(generalised_iou, answer, gold, image, pred_scale)


@pays_for("hedged", "all_options", "boxes", "question")  # up to twice as many boxes as the reference has are matched
@blames_reference
def mean_iou_over_gold(
    answer: Any, gold: Any, image: Sequence[float] | None = None, pred_scale: float | None = None
) -> float | None:
    """Mean over the reference's boxes of the IoU with the box matched to each, in [0, 1]; arguments as in `iou`.

    The matching is the one with the greatest sum (Hungarian algorithm). A box without a partner counts 0. More than
    twice as many boxes as the reference has are a listing, not an answer, and score 0.
    """
    from scipy.optimize import linear_sum_assignment

    wanted = _readable(gold, one=False)
    if wanted is None:
        return None
    found = read_boxes(answer)
    if found is None or len(found) > 2 * len(wanted):
        return 0.0
    found = rescale(found, image, pred_scale)
    table = [[intersection_over_union(a, b) for b in found] for a in wanted]
    rows, columns = linear_sum_assignment(table, maximize=True)
    return sum(table[row][column] for row, column in zip(rows, columns, strict=True)) / len(wanted)


def _of_one_pair(
    measure: Callable[[Box, Box], float],
    answer: Any,
    gold: Any,
    image: Sequence[float] | None,
    pred_scale: float | None,
) -> float | None:
    wanted = _readable(gold, one=True)
    if wanted is None:
        return None
    found = read_boxes(answer)
    if found is None or len(found) != 1:
        return 0.0
    return measure(rescale(found, image, pred_scale)[0], wanted[0])


def _readable(gold: Any, *, one: bool) -> list[Box] | None:
    boxes = read_boxes(gold)
    if boxes is None or (one and len(boxes) != 1) or any(intersection_over_union(box, box) == 0 for box in boxes):
        return None
    return boxes


def warm_up() -> None:
    """Load what a first call would otherwise load within its time limit."""
    import scipy.optimize  # noqa: F401
