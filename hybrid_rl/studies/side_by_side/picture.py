"""The panels of runs as one PNG, to be looked at without a browser."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hybrid_rl.insight import charts, palette
from hybrid_rl.insight.visible import one_line
from hybrid_rl.studies.side_by_side.panels import Curve, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOTS_TO = 15
"""Curves of at most so many points show them."""
_LEGEND_COLUMNS = 4
_LABEL = 60
"""Characters of a run's name in the legend."""


def draw(rows: Sequence[Sequence[Panel | None]], title: str) -> bytes:
    """A grid of panels, at least one.

    Args:
        rows: None leaves a place empty; so do rows that are shorter than others.
        title: what is compared, beside the legend.

    Returns:
        A PNG, equal byte for byte for equal data.
    """
    import matplotlib
    from matplotlib.figure import Figure

    width = max(len(row) for row in rows)
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False, "font.size": 10}):
        figure = Figure(figsize=(4.9 * width, 2.9 * len(rows) + 0.8), dpi=110, layout="constrained")
        grid = figure.subplots(len(rows), width, squeeze=False)
        for axes_row, row in zip(grid, rows, strict=True):
            for axes, panel in itertools.zip_longest(axes_row, row):
                if panel is None:
                    axes.set_axis_off()
                else:
                    _draw_panel(axes, panel)
        shown = {curve.label: curve for row in rows for panel in row if panel for curve in panel.curves}
        handles = [_handle(curve) for curve in shown.values()]
        names = [one_line(label)[-_LABEL:] for label in shown]
        figure.suptitle(one_line(title), x=0.01, ha="left", fontweight="bold")
        figure.legend(handles, names, loc="outside upper right", ncols=min(len(names), _LEGEND_COLUMNS), frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _style(curve: Curve) -> dict[str, Any]:
    return charts.line_style(curve.place)


def _handle(curve: Curve) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linewidth=2.5, **_style(curve))


def _draw_panel(axes: Axes, panel: Panel) -> None:
    quantity = panel.quantity
    scale = 100 if quantity.share else 1
    for curve in panel.curves:
        style, y = _style(curve), [scale * value for value in curve.y]
        if curve.band:
            lows, highs = ([scale * value for value in side] for side in zip(*curve.band, strict=True))
            axes.fill_between(curve.x, lows, highs, color=style["color"], alpha=0.12, linewidth=0)
            axes.plot(curve.x, y, linewidth=2, marker="o", markersize=4, **style)
        elif quantity.total or len(y) <= _DOTS_TO:
            axes.plot(curve.x, y, linewidth=2, marker="" if quantity.total else "o", markersize=3, **style)
        else:
            axes.plot(curve.x, y, linewidth=0.7, alpha=0.3, **style)
            axes.plot(curve.x, charts.rolling_mean(y, charts.window(len(y))), linewidth=2, **style)
    mode = f"  ·  {one_line(panel.mode)}" if panel.mode else ""
    axes.set_title(f"{quantity.title}{', %' if quantity.share else ''}{mode}", loc="left", fontsize=10.5)
    axes.set_xlabel(quantity.across)
    if quantity.share and quantity.full_scale:
        axes.set_ylim(-3, 103)
    elif quantity.share:
        top = max(2.0, 1.03 * max(max(curve.y) * scale for curve in panel.curves))
        axes.set_ylim(-0.02 * top, top)
    axes.yaxis.set_major_formatter(lambda y, _: charts.tick(y))
    axes.xaxis.set_major_formatter(lambda x, _: charts.tick(x))
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.RULE[0])
    axes.grid(axis="y", color=palette.RULE[0], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.INK[0], length=0)
