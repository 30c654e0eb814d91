"""Evaluation sets for people: mean@n and pass@k of each set and mode, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybrid_rl.insight import formats
from hybrid_rl.insight.comparison import finite, mapping

_HEADS = ("set / mode", "prompts", "figure", "before", "after", "difference")


def set_rows(eval_sets: object) -> list[list[str]]:
    """Head and rows of the table; empty where there are no sets.

    Args:
        eval_sets: `eval_sets` of `summary.json`: `{"before": {set: {mode: {...}}}, "after": ...}`; any may be missing.
    """
    tables = [mapping(mapping(eval_sets).get(when)) for when in ("before", "after")]
    found: list[list[str]] = []
    for name in dict.fromkeys(name for table in tables for name in table):
        modes = [mapping(table.get(name)) for table in tables]
        for mode in dict.fromkeys(mode for table in modes for mode in table):
            found += _rows(str(name), str(mode), *(mapping(table.get(mode)) for table in modes))
    return [list(_HEADS), *found] if found else []


def _rows(name: str, mode: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[list[str]]:
    known = after or before
    samples = formats.count(finite(known.get("samples")))
    figures = [(f"mean@{samples}", finite(before.get("accuracy")), finite(after.get("accuracy")))]
    figures += [
        (f"pass@{k}", finite(mapping(before.get("pass")).get(k)), finite(mapping(after.get("pass")).get(k)))
        for k in mapping(known.get("pass"))
    ]
    prompts = formats.count(finite(known.get("prompts")))
    return [
        [
            f"{name} / {mode}" if place == 0 else "",
            prompts if place == 0 else "",
            label,
            formats.percent(old),
            formats.percent(new),
            formats.points(None if old is None or new is None else new - old),
        ]
        for place, (label, old, new) in enumerate(figures)
    ]
