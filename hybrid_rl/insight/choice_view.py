"""What a model that chooses its mode chooses, for people: how often it thinks, and how often that is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybrid_rl.insight import formats
from hybrid_rl.insight.comparison import finite, mapping

_HEADS = ("mode that is chosen", "figure", "before", "after", "difference")
_FIGURES = {"thinks": "thinks", "hybrid_accuracy": "in the better mode"}
"""Figure of an evaluation (`hybrid_rl.insight.evaluation.evaluate`) -> what it is called here."""


def choice_rows(summary_eval: object) -> list[list[str]]:
    """Head and rows of the table; empty where no mode leaves the choice to the model.

    Args:
        summary_eval: `eval` of `summary.json`: `{"before": {mode: {...}}, "after": ...}`; either may be missing.
    """
    tables = [mapping(mapping(summary_eval).get(when)) for when in ("before", "after")]
    found: list[list[str]] = []
    for mode in dict.fromkeys(mode for table in tables for mode in table):
        found += _rows(str(mode), *(mapping(table.get(mode)) for table in tables))
    return [list(_HEADS), *found] if found else []


def _rows(mode: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = []
    for name, label in _FIGURES.items():
        old, new = finite(before.get(name)), finite(after.get(name))
        if old is not None or new is not None:
            change = None if old is None or new is None else new - old
            cells = [formats.percent(old), formats.percent(new), formats.points(change)]
            rows.append([mode if not rows else "", label, *cells])
    return rows
