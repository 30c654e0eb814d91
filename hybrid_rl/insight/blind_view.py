"""Sighted and blind accuracy side by side, for each mode and task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybrid_rl.insight import formats
from hybrid_rl.insight.comparison import Row, rows

_HEADS = ("mode / task", "n", "sighted", "blind", "difference", "95 % interval")


def compare_blind(sighted: Mapping[str, Any], blind: Mapping[str, Any]) -> dict[str, Any]:
    """`{"sighted": ..., "blind": ..., "difference": {mode: {"accuracy": d, "tasks": {task: d}}}}`."""
    difference = {
        mode: {
            "accuracy": figures["accuracy"] - blind[mode]["accuracy"],
            "tasks": {
                t: task["accuracy"] - blind[mode]["tasks"][t]["accuracy"] for t, task in figures["tasks"].items()
            },
        }
        for mode, figures in sighted.items()
    }
    return {"sighted": sighted, "blind": blind, "difference": difference}


def blind_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows of the table; the difference is what seeing the images adds."""
    return [list(_HEADS), *map(_row, rows(found.get("blind"), found.get("sighted")))]


def _row(row: Row) -> list[str]:
    interval = row.difference_interval
    return [
        f"  {row.name}" if row.name else row.mode,
        formats.count(row.after.n),
        formats.percent(row.after.accuracy),
        formats.percent(row.before.accuracy),
        formats.points(row.difference),
        f"{formats.points(interval[0])} … {formats.points(interval[1])}" if interval else formats.DASH,
    ]
