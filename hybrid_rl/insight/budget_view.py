"""The accuracy-at-budget curve for people: a table, a picture, a chart of the report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from hybrid_rl.insight import charts, formats, intervals, palette
from hybrid_rl.insight.comparison import finite, mapping

_HEADS = ("mode / budget", "n", "accuracy", "95 % interval", "tokens", "closed by force")


def budget_rows(curve: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows of the table: for each mode its budgets, then no budget."""
    rows = [list(_HEADS)]
    for mode, points in curve.items():
        rows.append([mode, *[""] * (len(_HEADS) - 1)])
        rows += [_row(mapping(point)) for point in points]
    return rows


def _row(point: Mapping[str, Any]) -> list[str]:
    budget, accuracy = point.get("max_think_tokens"), finite(point.get("accuracy"))
    n = int(finite(point.get("n")) or 0)
    low, high = intervals.wilson(accuracy or 0.0, n)
    return [
        "  no budget" if budget is None else f"  {formats.count(finite(budget))}",
        formats.count(n),
        formats.percent(accuracy),
        f"{100 * low:.1f} … {100 * high:.1f}",
        formats.number(finite(point.get("mean_tokens"))),
        formats.percent(finite(point.get("closed_by_budget"))),
    ]


def budget_lines(curve: object, places: Mapping[str, int]) -> list[charts.Line]:
    """A line a mode: accuracy over the budget, with Wilson's intervals. What cannot be read is left out."""
    lines: list[charts.Line] = []
    for mode, points in mapping(curve).items():
        found = [
            (budget, accuracy, int(finite(point.get("n")) or 0))
            for point in map(mapping, points if isinstance(points, Sequence) else ())
            if (budget := finite(point.get("max_think_tokens"))) is not None
            and (accuracy := finite(point.get("accuracy"))) is not None
        ]
        if found:
            lines.append(
                charts.Line(
                    place=places.get(str(mode), len(lines)),
                    steps=[budget for budget, _, _ in found],
                    values=[accuracy for _, accuracy, _ in found],
                    band=[intervals.wilson(accuracy, n) for _, accuracy, n in found],
                )
            )
    return lines


def budget_svg(curve: object, places: Mapping[str, int]) -> str | None:
    """The chart of the report; None where there is nothing to draw."""
    lines = budget_lines(curve, places)
    return charts.line_chart(lines, share=True, full_scale=True, wide=True) if lines else None


def budget_png(curve: Mapping[str, Any], places: Mapping[str, int]) -> bytes:
    """The curve as a picture of its own; a dashed line is the accuracy without a budget."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for line, (mode, points) in zip(budget_lines(curve, places), curve.items(), strict=True):
        colour = palette.MODES[(line.place or 0) % len(palette.MODES)][0]
        low, high = zip(*line.band, strict=True)
        axes.fill_between(line.steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(line.steps, line.values, color=colour, marker="o", linewidth=2, label=mode.replace("$", r"\$"))
        free = [point["accuracy"] for point in points if point["max_think_tokens"] is None]
        for accuracy in free:
            axes.axhline(accuracy, color=colour, linestyle="--", linewidth=1)
    axes.set(xlabel="thinking budget, tokens", ylabel="accuracy", ylim=(-0.02, 1.02))
    axes.grid(axis="y", color=palette.RULE[0], linewidth=0.8)
    axes.legend(frameon=False, title="dashed: no budget")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
