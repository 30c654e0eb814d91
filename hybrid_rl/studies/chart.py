"""`ablation.png`: accuracy against update tokens in each mode, and accuracy of each task."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybrid_rl.insight import charts, palette
from hybrid_rl.insight.atomic import write_atomically
from hybrid_rl.insight.visible import one_line
from hybrid_rl.studies.curves import CurvePoint
from hybrid_rl.studies.training import TrainingCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = Mapping[str, Sequence[CurvePoint]]


def colour(place: int) -> str:
    return palette.MODES[place % len(palette.MODES)][0]


def draw(rows: Sequence[Mapping[str, Any]], curves: Curves, target: Path) -> None:
    """Draw the arms of `table.json` into a PNG file."""
    import matplotlib
    from matplotlib.figure import Figure

    modes = list(dict.fromkeys(mode for row in rows for mode in row["accuracy"]))
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False, "font.size": 10}):
        figure = Figure(figsize=(5.2 * len(modes), 8.2), dpi=150, layout="constrained")
        axes = figure.subplots(2, len(modes), squeeze=False)
        for column, mode in enumerate(modes):
            _against_tokens(axes[0][column], mode, rows, curves)
            _by_task(axes[1][column], mode, rows)
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(rows), 4), frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(target, buffer.getvalue())


def tokens_chart(mode: str, rows: Sequence[Mapping[str, Any]], curves: Curves) -> str:
    """Accuracy in a mode over the update tokens spent, as SVG."""
    lines = []
    for place, row in enumerate(rows):
        points = [point for point in curves.get(row["name"], ()) if mode in point.accuracy]
        bands = [band for point in points if (band := point.interval[mode]) is not None]
        lines.append(
            charts.Line(
                place=place,
                steps=[point.tokens for point in points],
                values=[point.accuracy[mode] for point in points],
                band=bands if len(bands) == len(points) else (),
            )
        )
    return charts.line_chart([line for line in lines if line.values], share=True, full_scale=True, wide=True)


def steps_chart(measure: str, mode: str, rows: Sequence[Mapping[str, Any]], training: TrainingCurves) -> str:
    """A measure of the training in a mode over the steps, as SVG."""
    lines = []
    for place, row in enumerate(rows):
        points = training.get(row["name"], {}).get(measure, {}).get(mode, [])
        steps, values = [float(point.step) for point in points], [point.mean for point in points]
        lines.append(charts.Line(place=place, steps=steps, values=values))
    return charts.line_chart([line for line in lines if line.values], share=measure == "score")


def _against_tokens(axes: Axes, mode: str, rows: Sequence[Mapping[str, Any]], curves: Curves) -> None:
    for place, row in enumerate(rows):
        points = [point for point in curves.get(row["name"], ()) if mode in point.accuracy]
        end = row["accuracy"].get(mode)
        if not points or end is None:
            continue
        tokens, values = [p.tokens for p in points], [100 * p.accuracy[mode] for p in points]
        axes.plot(tokens, values, color=colour(place), linewidth=1.4, alpha=0.6, marker=".", markersize=5)
        _mark(axes, row["tokens"]["update"], end, place, label=one_line(row["name"]))
    axes.set_title(f"{one_line(mode)} mode", loc="left", fontweight="bold")
    axes.set_xlabel("update tokens")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(-3, 103)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(
        lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x >= 1e3 else f"{x:g}"
    )
    _plain(axes, "both")


def _by_task(axes: Axes, mode: str, rows: Sequence[Mapping[str, Any]]) -> None:
    tasks = [task for task in dict.fromkeys(t for row in rows for t in row["tasks"])]
    spread = 0.6 / max(1, len(rows) - 1)
    for place, row in enumerate(rows):
        for line, task in enumerate(tasks):
            entry = row["tasks"].get(task, {}).get(mode)
            if entry is not None:
                _mark(axes, line + (place - (len(rows) - 1) / 2) * min(spread, 0.2), entry, place)
    axes.set_xticks(range(len(tasks)), [one_line(task)[:24] for task in tasks])
    axes.set_xlim(-0.6, max(0.6, len(tasks) - 0.4))
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(-3, 103)
    axes.set_title("by task", loc="left")
    _plain(axes, "y")


def _mark(axes: Axes, x: float, entry: Mapping[str, float | None], place: int, label: str | None = None) -> None:
    mean, low, high = (None if entry[key] is None else 100 * entry[key] for key in ("mean", "low", "high"))  # type: ignore[operator]
    if mean is None:
        return
    errors = None if low is None or high is None else [[mean - low], [high - mean]]
    axes.errorbar(
        [x], [mean], yerr=errors, fmt="o", color=colour(place), markersize=8, capsize=4, linewidth=1.8, label=label
    )


def _plain(axes: Axes, grid: Any) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.RULE[0])
    axes.grid(axis=grid, color=palette.RULE[0], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.INK[0], length=0)
