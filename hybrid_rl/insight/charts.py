"""Small line and area charts as inline SVG, equal byte for byte for equal data.

Colours are written as CSS variables of the page, with the light colour as fallback, so that one drawing serves a light
and a dark page. No text from outside is drawn: titles and legends are the page's.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybrid_rl.insight import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTH_FROM = 30
"""Charts with more steps than this show the rolling mean, and the raw values thin behind it."""
MAX_POINTS = 400
"""Longer lines are drawn as means of equally many neighbouring steps; a chart is only some 400 pixels wide."""
WRITTEN_OUT = 10_000
"""An axis of steps or tokens that reaches further has short labels, as 40k."""
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        place: of its mode, gives the colour; None for a curve of the whole run.
        band: an interval around each value.
        noisy: worth smoothing; a running total is not.
    """

    place: int | None
    steps: Sequence[float]
    values: Sequence[float]
    band: Sequence[tuple[float, float]] = ()
    noisy: bool = True


def rolling_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and its neighbours, `window` in all; fewer near the ends, so that nothing is shifted."""
    half = window // 2
    sums = [0.0, *itertools.accumulate(values)]
    edges = ((max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values)))
    return [(sums[end] - sums[start]) / (end - start) for start, end in edges]


def window(length: int) -> int:
    """Steps of the rolling mean of a curve with so many steps."""
    return max(5, length // 15)


def thin(values: Sequence[float], limit: int = MAX_POINTS) -> list[float]:
    """At most `limit` values: means of equally long stretches."""
    size = -(-len(values) // limit) if values else 1
    stretches = (values[start : start + size] for start in range(0, len(values), size))
    return [sum(stretch) / len(stretch) for stretch in stretches]


def _settings() -> Any:
    # Any: matplotlib types the keys as a literal of all its settings.
    return {
        "svg.fonttype": "none",  # text stays text: small, and in the page's own font
        "svg.hashsalt": "hybrid-rl",
        "text.parse_math": False,
        "text.usetex": False,
        "font.size": 10.5,
        "font.family": ["DejaVu Sans"],
    }


def _axes(*, wide: bool = False) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    width, height = (8.0, 2.7) if wide else (5.0, 2.6)
    figure = Figure(figsize=(width, height))
    figure.patch.set_visible(False)
    axes = figure.add_axes((0.58 / width, 0.32 / height, 1 - 0.74 / width, 1 - 0.44 / height))
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.RULE[0])
    axes.grid(axis="y", color=palette.RULE[0], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.INK[0], length=0, pad=5)
    axes.xaxis.set_major_locator(MaxNLocator(10 if wide else 6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    # Steps are written out; tokens, which run into the millions, would run into each other.
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:,.0f}" if axes.get_xlim()[1] < WRITTEN_OUT else tick(x))
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
    return figure, axes


def tick(value: float) -> str:
    """The label of a tick: short, with a true minus sign."""
    size = abs(value)
    for scale, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= scale:
            return f"{value / scale:.3g}{sign}".replace("-", "−")
    text = "0" if size < 1e-12 else f"{value:.3g}" if size >= 1e-3 else f"{value:.0e}"
    return text.replace("-", "−")


def _percent_axis(axes: Axes, top: float) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_ylim(-0.02 * top, 1.03 * top)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    colours: dict[str, str] = {}
    for name, colour in palette.variables(dark=False).items():
        colours.setdefault(colour, name)

    def variable(match: re.Match[str]) -> str:
        colour = match.group()
        return f"var({colours[colour]}, {colour})" if colour in colours else colour

    return re.sub(r"(?<=: )#[0-9a-f]{6}\b", variable, svg)


def line_style(place: int | None) -> dict[str, Any]:
    """Colour and dashes of the curve at a place, or of a curve of the whole run; dashes begin where colours end."""
    style: dict[str, Any] = {"color": palette.INK[0], "solid_capstyle": "round"}
    if place is not None:
        style["color"] = palette.MODES[place % len(palette.MODES)][0]
        style["linestyle"] = _DASHES[place // len(palette.MODES) % len(_DASHES)]
    return style


def _draw_line(axes: Axes, line: Line) -> None:
    steps, raw = list(line.steps), list(line.values)
    style = line_style(line.place)
    if line.band:
        lows, highs = zip(*line.band, strict=True)
        axes.fill_between(steps, lows, highs, color=style["color"], alpha=0.14, linewidth=0)
        axes.plot(steps, raw, linewidth=2, marker="o", markersize=4.5, **style)
    elif not line.noisy:
        axes.plot(thin(steps), thin(raw), linewidth=2.2, **style)
    elif len(raw) > SMOOTH_FROM:
        smooth = rolling_mean(raw, window(len(raw)))
        axes.plot(thin(steps), thin(raw), linewidth=0.8, alpha=0.35, **style)
        axes.plot(thin(steps), thin(smooth), linewidth=2.2, **style)
    else:
        dots: dict[str, Any] = {"marker": "o", "markersize": 4.5 if len(raw) < 4 else 2.5}
        axes.plot(steps, raw, linewidth=2, **dots, **style)


def line_chart(lines: Sequence[Line], *, share: bool = False, full_scale: bool = False, wide: bool = False) -> str:
    """Curves over the training step.

    Args:
        share: values are shares in [0, 1], written as percentages, from 0 up.
        full_scale: a share's axis always ends at 100 %, so that charts of good and bad runs compare at a glance.
    """
    import matplotlib

    with matplotlib.rc_context(_settings()):
        figure, axes = _axes(wide=wide)
        for line in lines:
            _draw_line(axes, line)
        if share:
            peak = max((value for line in lines for value in line.values), default=1.0)
            _percent_axis(axes, 1.0 if full_scale else min(max(peak, 0.02), 1.0))
        axes.margins(x=0.015)
        return _svg(figure)


def stacked_chart(
    steps: Sequence[float], layers: Sequence[Sequence[float]], *, share: bool = False, wide: bool = False
) -> str:
    """Layers on top of each other, in the colours of the phases.

    Args:
        share: the layers are shares that add up to 1; the axis is in percent and ends there.
    """
    import matplotlib

    smooth = len(steps) > SMOOTH_FROM
    shown = [thin(rolling_mean(layer, window(len(layer))) if smooth else layer) for layer in layers]
    colours = [palette.PHASES[place % len(palette.PHASES)][0] for place in range(len(layers))]
    with matplotlib.rc_context(_settings()):
        figure, axes = _axes(wide=wide)
        if len(steps) == 1:
            bottom = 0.0
            for layer, colour in zip(shown, colours, strict=True):
                axes.bar([steps[0]], layer, bottom=bottom, color=colour, width=0.3)
                bottom += layer[0]
            axes.set_xlim(steps[0] - 1, steps[0] + 1)
        else:
            axes.stackplot(thin(steps), shown, colors=colours, linewidth=0, alpha=0.92)
            axes.margins(x=0)
        axes.set_ylim(bottom=0)
        if share:
            _percent_axis(axes, 1.0)
        return _svg(figure)
