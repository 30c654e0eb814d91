"""Boxes `[x1, y1, x2, y2]` read from text: JSON, `bbox_2d` records, or four numbers in brackets."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from rewards.answer_span import MAX_CHARACTERS, tagged

Box = tuple[float, float, float, float]

MAX_BOXES = 256
_NUMBER = r"[-+]?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE][-+]?\d{1,3})?"
_BRACKETED = re.compile(r"[\[(<]\s{0,8}(" + _NUMBER + r"(?:\s{0,8}[,\s]\s{0,8}" + _NUMBER + r"){1,15})\s{0,8}[\])>]")
# `(x1, y1), (x2, y2)`, as Qwen-VL writes a box.
_POINT = r"\(\s{0,4}(" + _NUMBER + r")\s{0,4},\s{0,4}(" + _NUMBER + r")\s{0,4}\)"
_CORNERS = re.compile(_POINT + r"\s{0,4},?\s{0,4}" + _POINT)
_ONE = re.compile(_NUMBER)
_KEYS = ("bbox_2d", "bbox", "box", "box_2d")


def read_boxes(value: Any) -> list[Box] | None:
    """The boxes in a text, a list or a record, in order.

    Returns:
        None if there is none, if one does not have four finite numbers, or if there are more than `MAX_BOXES`.
    """
    if isinstance(value, str):
        text = tagged(value)
        if len(value) > MAX_CHARACTERS:
            return None
        value = _json(text)
        if value is None:
            corners = _CORNERS.findall(text)
            value = [[float(n) for n in corner] for corner in corners]
            value = value or [[float(n) for n in _ONE.findall(found)] for found in _BRACKETED.findall(text)]
            value = value or _bare(text)
    boxes: list[Box] = []
    if not _collect(value, boxes, depth=0) or not 0 < len(boxes) <= MAX_BOXES:
        return None
    return boxes


def _bare(text: str) -> list[float]:
    """Four numbers with nothing but commas and blanks between them."""
    numbers = _ONE.findall(text)
    return [float(number) for number in numbers] if not re.sub(_NUMBER, "", text).strip(" ,;\n") else []


def _json(text: str) -> Any:
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _collect(value: Any, boxes: list[Box], depth: int) -> bool:
    """Append the boxes below a JSON value; False if one of them is malformed."""
    if depth > 4 or len(boxes) > MAX_BOXES:
        return False
    if isinstance(value, dict):
        found = [value[key] for key in _KEYS if key in value]
        return len(found) == 1 and _collect(found[0], boxes, depth + 1)
    if not isinstance(value, (list, tuple)):
        return False
    if value and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value):
        if len(value) != 4 or not all(abs(item) < 1e15 and math.isfinite(item) for item in value):
            return False
        x1, y1, x2, y2 = (float(item) for item in value)
        boxes.append((x1, y1, x2, y2))
        return True
    return all(_collect(item, boxes, depth + 1) for item in value)


def rescale(boxes: Sequence[Box], image: Sequence[float] | None, pred_scale: float | None) -> list[Box]:
    """Boxes in units of the image's width and height over `pred_scale`, in pixels; unchanged without an image."""
    if image is None or pred_scale is None:
        return list(boxes)
    width, height = image[0] / pred_scale, image[1] / pred_scale
    return [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in boxes]


def intersection_over_union(a: Box, b: Box) -> float:
    """|A and B| / |A or B|, in [0, 1]; 0 where a box is empty or turned inside out."""
    shared, union, _ = _areas(a, b)
    return shared / union if union > 0 else 0.0


def generalised_iou(a: Box, b: Box) -> float:
    """IoU - (C - U) / C with C the area of the smallest box around both (arXiv 1902.09630), in [-1, 1].

    -1 where a box is empty or turned inside out.
    """
    shared, union, hull = _areas(a, b)
    return shared / union - (hull - union) / hull if union > 0 and hull > 0 else -1.0


def _areas(a: Box, b: Box) -> tuple[float, float, float]:
    sizes = [(box[2] - box[0], box[3] - box[1]) for box in (a, b)]
    if any(width <= 0 or height <= 0 for width, height in sizes):
        return 0.0, 0.0, 0.0
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared, sizes[0][0] * sizes[0][1] + sizes[1][0] * sizes[1][1] - shared, hull
